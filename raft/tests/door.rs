//! Who is let in at the peer port, and who is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Cluster, STEP, logs};
use matriarch_raft::TlsFiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Ten times what a member that is admitted needs: whoever is not in by then was refused.
const REFUSED: Duration = Duration::from_secs(3);
/// How long the door waits for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Attempts at what a busy machine may be too late to see.
const ATTEMPTS: usize = 5;

/// Starts node 0 as a group of its own and node 1 as somebody who wants to join it, as `stranger` changes him.
async fn knock(patience: Duration, stranger: impl FnOnce(&mut matriarch_raft::Settings)) -> (Cluster, bool) {
    let mut cluster = Cluster::new(2);
    let mut host = cluster.settings(0);
    host.partners.clear();
    cluster.start_with(0, host).await.unwrap();
    cluster.leader().await;
    let mut guest = cluster.settings(1);
    stranger(&mut guest);
    cluster.start_with(1, guest).await.unwrap();
    let mut status = cluster.group(1).status();
    let joined = timeout(patience, status.wait_for(|s| s.joined)).await.is_ok();
    (cluster, joined)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_password_joins() {
    logs();
    let (mut cluster, joined) = knock(STEP, |_| {}).await;
    assert!(joined);
    cluster.wait(0, "the learner", |s| s.learners.len() == 1).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    logs();
    let (mut cluster, joined) = knock(REFUSED, |s| s.password = Some("guess".to_owned())).await;
    assert!(!joined);
    assert!(cluster.group(0).members().len() == 1);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_is_refused() {
    logs();
    let (mut cluster, joined) = knock(REFUSED, |s| s.password = None).await;
    assert!(!joined);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_cluster_is_refused() {
    logs();
    let (mut cluster, joined) = knock(REFUSED, |s| s.cluster = "other".to_owned()).await;
    assert!(!joined);
    cluster.close().await;
}

/// What the port does with a connection that sends `bytes`: it must close without a word.
async fn closes_silently(addr: &str, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    // It may be closed before all is sent, and a reset is as good as an end.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(STEP, tcp.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    assert!(answer.is_empty(), "{answer:?}");
    began.elapsed()
}

/// The same for what is refused before the time for a handshake is over.
async fn closes_at_once(addr: &str, bytes: &[u8]) {
    for _ in 0..ATTEMPTS {
        if closes_silently(addr, bytes).await < HANDSHAKE {
            return;
        }
    }
    panic!("{bytes:?} waits for the end of the handshake's time");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_oversized_frames_and_silence_are_closed_without_a_word() {
    logs();
    let mut cluster = Cluster::new(1);
    cluster.start(0).await;
    cluster.leader().await;
    let addr = cluster.addrs[0].clone();
    closes_at_once(&addr, b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n").await;
    closes_at_once(&addr, &[0xff; 64]).await;
    closes_at_once(&addr, &[&[0, 0, 0, 20][..], &[7; 20]].concat()).await;
    // Larger than any handshake: refused by its head, before its body.
    closes_at_once(&addr, &[0, 1, 0, 0]).await;
    let took = closes_silently(&addr, &[0, 0]).await;
    assert!(
        took + Duration::from_millis(100) >= HANDSHAKE,
        "a handshake may take two seconds, not {took:?}"
    );
    // Many at once: the excess is closed at once, and the door works again afterwards.
    let mut shown_out = false;
    for _ in 0..ATTEMPTS {
        let (mut crowd, began) = (Vec::new(), Instant::now());
        for _ in 0..100 {
            crowd.push(TcpStream::connect(&addr).await.unwrap());
        }
        let mut byte = [0u8; 1];
        let end = timeout(STEP, crowd[99].read(&mut byte)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
        shown_out |= began.elapsed() < HANDSHAKE;
        if shown_out {
            break;
        }
    }
    assert!(
        shown_out,
        "the last of a hundred waits for the end of the handshake's time"
    );
    cluster.group(0).propose(b"still here".to_vec()).await.unwrap();
    cluster.close().await;
}

/// An authority and the certificates it signed.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self, dir: &Path, name: &str) -> TlsFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str, text: &str| {
            let path = dir.join(format!("{name}-{:p}.{end}", self));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            certfile: file("crt", &certificate.pem()),
            keyfile: file("key", &key.serialize_pem()),
            cafile: file("ca", &self.pem),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_form_with_mutual_tls_and_without_a_password() {
    logs();
    let mut cluster = Cluster::new(3);
    let authority = Authority::new();
    for i in 0..3 {
        let mut settings = cluster.settings(i);
        settings.password = None;
        settings.tls = Some(authority.issue(cluster.dir.path(), &settings.name));
        cluster.start_with(i, settings).await.unwrap();
    }
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.group(follower).propose(b"one".to_vec()).await.unwrap();
    cluster.confirmed().await;
    cluster.level().await;
    cluster.close().await;
}

async fn knock_with_tls(
    patience: Duration,
    guest: impl FnOnce(&Authority, &Path, &mut matriarch_raft::Settings),
) -> bool {
    logs();
    let mut cluster = Cluster::new(2);
    let authority = Authority::new();
    let mut host = cluster.settings(0);
    host.partners.clear();
    host.tls = Some(authority.issue(cluster.dir.path(), "node0"));
    cluster.start_with(0, host).await.unwrap();
    cluster.leader().await;
    let mut settings = cluster.settings(1);
    guest(&authority, cluster.dir.path(), &mut settings);
    cluster.start_with(1, settings).await.unwrap();
    let mut status = cluster.group(1).status();
    let joined = timeout(patience, status.wait_for(|s| s.joined)).await.is_ok();
    timeout(STEP, cluster.close()).await.unwrap();
    joined
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_joins() {
    assert!(knock_with_tls(STEP, |ca, dir, s| s.tls = Some(ca.issue(dir, "node1"))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_refused() {
    assert!(!knock_with_tls(REFUSED, |_, _, _| {}).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let foreign = |_: &Authority, dir: &Path, s: &mut matriarch_raft::Settings| {
        s.tls = Some(Authority::new().issue(dir, "node1"));
    };
    assert!(!knock_with_tls(REFUSED, foreign).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_made_out_to_another_member_does_not_start() {
    logs();
    let mut cluster = Cluster::new(1);
    let mut settings = cluster.settings(0);
    settings.tls = Some(Authority::new().issue(cluster.dir.path(), "somebody"));
    let error = cluster.start_with(0, settings).await.unwrap_err().to_string();
    assert!(error.contains("somebody") && error.contains("node0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_and_a_broken_one_does_not_count() {
    logs();
    let mut cluster = Cluster::new(2);
    let authority = Authority::new();
    let mut host = cluster.settings(0);
    host.partners.clear();
    let files = authority.issue(cluster.dir.path(), "node0");
    host.tls = Some(files.clone());
    cluster.start_with(0, host).await.unwrap();
    cluster.leader().await;
    let reload = |cluster: &Cluster| cluster.group(0).reload_certificates();
    assert_eq!(reload(&cluster).unwrap(), None);
    // The same files with another certificate.
    assert_eq!(
        authority.issue(cluster.dir.path(), "node0").certfile,
        files.certfile
    );
    assert!(reload(&cluster).unwrap().is_some());
    std::fs::write(&files.certfile, "no certificate").unwrap();
    let error = reload(&cluster).unwrap_err().to_string();
    assert!(error.contains("node0") && !error.contains('\n'), "{error}");
    let mut guest = cluster.settings(1);
    guest.tls = Some(authority.issue(cluster.dir.path(), "node1"));
    cluster.start_with(1, guest).await.unwrap();
    cluster.wait(0, "the learner", |s| s.learners.len() == 1).await;
    cluster.close().await;
}
