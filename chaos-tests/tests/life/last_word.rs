//! The daemon is stopped or dead, its guard has fenced, and the word of it reaches the leader all the same.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{FORM_S, Herd, Options};

/// The rule by which the newest primary was made.
async fn newest_rule(herd: &Herd, node: usize) -> String {
    let explain = herd.find("what was decided", 20, async || {
        herd.nodes[node].get_json("/explain").await
    });
    let explain = explain.await;
    let events = explain
        .pointer("/events")
        .and_then(|events| events.as_array())
        .cloned();
    let word = |event: &serde_json::Value| event.pointer("/rule")?.as_str().map(str::to_owned);
    let rules: Vec<String> = events.unwrap_or_default().iter().filter_map(word).collect();
    // What follows a promotion in the list only records that it came about.
    let decisive = rules.iter().rev().find(|rule| *rule != "promoted");
    decisive
        .cloned()
        .unwrap_or_else(|| panic!("no event in {explain}"))
}

/// The word has some 400 ms to be there before the lease is over, less than a busy machine may take.
const ATTEMPTS: usize = 8;

/// Waits for another primary; whether the guard's word made it, and not the end of the lease.
async fn moved_by_the_word(herd: &Herd, crowd: &Crowd, old: usize) -> bool {
    crowd.await_flow(herd).await;
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert!(
        herd.nodes[old].postgres_processes().is_empty(),
        "PostgreSQL outlived its fence"
    );
    let rule = newest_rule(herd, new).await;
    println!("another primary by the rule {rule}");
    ["has-every-byte", "best-standby"].contains(&rule.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_stopped_and_the_guards_word_moves_primacy_before_the_lease_is_over() {
    let herd = Herd::three().await;
    let crowd = Crowd::gather(&herd).await;
    let mut spoken = false;
    for _ in 0..ATTEMPTS {
        let (old, _) = herd.await_leader_elsewhere(20).await;
        herd.nodes[old].freeze_daemon();
        spoken |= moved_by_the_word(&herd, &crowd, old).await;
        // Awake, it still believes for a moment that it holds the epoch; nothing it says moves anything.
        herd.nodes[old].thaw_daemon();
        herd.await_streaming(old, RETURN_S).await;
        crowd.await_flow(&herd).await;
        if spoken {
            break;
        }
    }
    assert!(
        spoken,
        "every failover waited for the lease\n{}",
        herd.portrait().await
    );
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_killed_and_the_word_is_spoken_with_the_groups_certificates() {
    let mut herd = Herd::new(
        3,
        Options {
            raft: "  certfile: '{dir}/cert.pem'\n  keyfile: '{dir}/key.pem'\n  cafile: '{dir}/ca.pem'\n"
                .to_owned(),
            ..Options::default()
        },
    );
    certify(&herd);
    herd.nodes.iter_mut().for_each(matriarch_chaos::Node::start);
    herd.await_whole(FORM_S).await;
    let crowd = Crowd::gather(&herd).await;
    let mut spoken = false;
    for _ in 0..ATTEMPTS {
        let (old, _) = herd.await_leader_elsewhere(20).await;
        herd.nodes[old].kill_daemon();
        spoken |= moved_by_the_word(&herd, &crowd, old).await;
        herd.nodes[old].start();
        herd.await_streaming(old, RETURN_S).await;
        if spoken {
            break;
        }
    }
    assert!(
        spoken,
        "every failover waited for the lease\n{}",
        herd.portrait().await
    );
    crowd.judge(&herd).await.0.demand_sound();
}

/// One authority, and a certificate in each node's own name.
fn certify(herd: &Herd) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    for node in &herd.nodes {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![node.name.clone()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(node.dir.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(node.dir.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(node.dir.join("ca.pem"), root.pem()).unwrap();
    }
}
