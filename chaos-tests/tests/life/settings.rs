//! An operator changes settings: they reach PostgreSQL on every node, a restart is asked for and not imposed.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::{FORM_S, Herd, Options};
use std::collections::BTreeMap;

/// A restart waits for checkpoint, stop and start.
const RESTART_S: u64 = 60;

async fn asked(herd: &Herd, node: usize, method: &str, path: &str, body: &str) -> (u16, String) {
    herd.nodes[node].order(method, path, body).await
}

async fn await_setting(herd: &Herd, name: &str, value: &str) {
    let what = format!("{name} = {value} everywhere");
    herd.until(&what, RETURN_S, async || {
        for node in &herd.nodes {
            if node.sql(&format!("SHOW {name}")).await.as_deref() != Ok(value) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn await_pending(herd: &Herd, waits: impl Fn(usize) -> bool) {
    herd.until("pending_restart as expected", RETURN_S, async || {
        for (i, node) in herd.nodes.iter().enumerate() {
            let new = node
                .patroni("/pending_restart_reason/max_connections/new_value")
                .await;
            if new.is_some() != waits(i) {
                return false;
            }
        }
        true
    })
    .await;
}

async fn postmasters(herd: &Herd) -> Vec<String> {
    let mut all = Vec::new();
    for node in 0..herd.nodes.len() {
        all.push(herd.told(node, "/postmaster_start_time").await);
    }
    all
}

/// Beside the data of every node, as Patroni keeps it.
async fn await_kept(herd: &Herd, config: &str) {
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    herd.until("the configuration beside the data", RETURN_S, async || {
        herd.nodes.iter().all(|node| {
            let text = std::fs::read_to_string(node.data_dir().join("patroni.dynamic.json"));
            serde_json::from_str::<serde_json::Value>(&text.unwrap_or_default()).ok() == Some(config.clone())
        })
    })
    .await;
}

/// Scripts send back whole configurations; what is not theirs to choose stands in them and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_the_node_file_is_taken_and_has_no_effect() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let port = herd.nodes[primary].sql("SHOW port").await.unwrap();
    let change = r#"{"postgresql":{"parameters":{"port":1,"listen_addresses":"nowhere","cluster_name":"x","hot_standby":"off",
        "work_mem":"5MB"}}}"#;
    let (status, text) = asked(&herd, primary, "PATCH", "/config", change).await;
    assert_eq!(status, 200, "{text}");
    await_setting(&herd, "work_mem", "5MB").await;
    await_setting(&herd, "hot_standby", "on").await;
    await_setting(&herd, "port", &port).await;
    await_pending(&herd, |_| false).await;
    let line = "postgresql.parameters.port has no effect: it comes from the node file";
    herd.until(line, 20, async || herd.nodes[primary].log().contains(line))
        .await;
    let again = herd.others(primary)[0];
    let answer = asked(&herd, again, "POST", "/restart", "{}").await;
    assert_eq!(answer, (200, "restarted successfully".to_owned()));
    herd.await_whole(RESTART_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_reach_every_node_and_a_restart_is_the_operators() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let replica = herd.others(primary)[0];
    let before = postmasters(&herd).await;

    let change = r#"{"postgresql":{"parameters":{"work_mem":"5MB"}}}"#;
    let (status, body) = asked(&herd, replica, "PATCH", "/config", change).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""work_mem": "5MB""#), "{body}");
    await_setting(&herd, "work_mem", "5MB").await;
    assert_eq!(
        asked(&herd, replica, "PATCH", "/config", change).await,
        (200, body.clone())
    );
    await_kept(&herd, &body).await;

    for (wrong, why) in [
        (r#"{"postgresql":{"parameters":{"work_mem":"banana"}}}"#, "banana"),
        (r#"{"postgresql":{"parameters":{"wrok_mem":"5MB"}}}"#, "wrok_mem"),
        (
            r#"{"postgresql":{"parameters":{"max_connections":3}}}"#,
            "at least 25",
        ),
        (r#"{"ttl":0.6}"#, "ttl"),
    ] {
        let (status, text) = asked(&herd, primary, "PATCH", "/config", wrong).await;
        assert_eq!(status, 422, "{wrong}: {text}");
        assert!(text.contains(why), "{wrong}: {text}");
    }
    assert_eq!(herd.latest(primary, "/config").await, body, "nothing changed");

    let crowd = Crowd::gather(&herd).await;
    let change = r#"{"postgresql":{"parameters":{"max_connections":70}}}"#;
    assert_eq!(asked(&herd, primary, "PATCH", "/config", change).await.0, 200);
    await_pending(&herd, |_| true).await;
    assert_eq!(postmasters(&herd).await, before, "nobody was restarted unasked");

    assert_eq!(
        asked(&herd, replica, "POST", "/restart", r#"{"role":"primary"}"#).await,
        (503, "restart conditions are not satisfied".to_owned())
    );
    for node in herd.others(primary).into_iter().chain([primary]) {
        let done = asked(&herd, node, "POST", "/restart", r#"{"restart_pending":true}"#).await;
        assert_eq!(
            done,
            (200, "restarted successfully".to_owned()),
            "{}",
            herd.portrait().await
        );
    }
    await_pending(&herd, |_| false).await;
    await_setting(&herd, "max_connections", "70").await;
    assert_eq!(herd.await_whole(RESTART_S).await, primary, "primacy did not move");
    crowd.await_flow(&herd).await;
    let (verdict, _) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_file_is_read_again_and_a_replica_is_copied_anew() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let replica = herd.others(primary)[0];
    let node = &herd.nodes[replica];
    let text = std::fs::read_to_string(node.file()).unwrap();
    let edited = text.replace(
        "    shared_buffers: 16MB\n",
        "    shared_buffers: 16MB\n    work_mem: 6MB\n",
    );
    std::fs::write(node.file(), format!("{edited}tags: {{noloadbalance: true}}\n")).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(node.daemon_pid()),
        nix::sys::signal::Signal::SIGHUP,
    )
    .unwrap();
    herd.until("the node's own work_mem and its tag", RETURN_S, async || {
        node.sql("SHOW work_mem").await.as_deref() == Ok("6MB")
            && node.patroni("/tags/noloadbalance").await.as_deref() == Some("true")
    })
    .await;
    std::fs::write(node.file(), "scope: [\n").unwrap();
    assert_eq!(
        asked(&herd, replica, "POST", "/reload", "").await,
        (202, "reload scheduled".to_owned())
    );
    assert_eq!(node.sql("SHOW work_mem").await.as_deref(), Ok("6MB"));

    let schedule = r#"{"schedule":"2099-01-01T00:00+00","postgres_version":"99.1"}"#;
    assert_eq!(asked(&herd, replica, "POST", "/restart", schedule).await.0, 202);
    assert_eq!(asked(&herd, replica, "POST", "/restart", schedule).await.0, 409);
    herd.until("the scheduled restart is shown", RETURN_S, async || {
        node.patroni("/scheduled_restart/schedule").await.as_deref() == Some("2099-01-01T00:00:00+00:00")
    })
    .await;
    assert_eq!(asked(&herd, replica, "DELETE", "/restart", "").await.0, 200);
    assert_eq!(asked(&herd, replica, "DELETE", "/restart", "").await.0, 404);

    assert_eq!(
        asked(&herd, primary, "POST", "/reinitialize", "").await,
        (503, "I am the leader, can not reinitialize".to_owned())
    );
    let before = Some(herd.told(replica, "/postmaster_start_time").await);
    assert_eq!(
        asked(&herd, replica, "POST", "/reinitialize", "").await,
        (200, "reinitialize started".to_owned())
    );
    herd.until("another postmaster that streams", FORM_S, async || {
        let now = node.patroni("/postmaster_start_time").await;
        now.is_some() && now != before && node.is_streaming().await
    })
    .await;
    assert!(node.log().contains("an operator asked for a new copy"));
}

/// Each through another node, at once and again and again: who is told 200 has changed it, who is told 409 has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_moment_are_all_made_or_refused() {
    let herd = Herd::grown(3, Options::calm()).await;
    herd.await_primary(20, |_| true).await;
    let (mut expected, mut unknown) = (BTreeMap::new(), Vec::new());
    for round in 0..10 {
        let change = |node: usize| format!(r#"{{"app": {{"round{round}-node{node}": 1}}}}"#);
        let bodies = [change(0), change(1), change(2)];
        let (a, b, c) = tokio::join!(
            asked(&herd, 0, "PATCH", "/config", &bodies[0]),
            asked(&herd, 1, "PATCH", "/config", &bodies[1]),
            asked(&herd, 2, "PATCH", "/config", &bodies[2]),
        );
        for (node, (status, text)) in [a, b, c].into_iter().enumerate() {
            match status {
                200 => {
                    expected.insert(format!("round{round}-node{node}"), 1);
                }
                409 => {}
                // Another leader was elected meanwhile: nobody knows what became of it.
                500.. => unknown.push(format!("round{round}-node{node}")),
                other => panic!("{other}: {text}"),
            }
        }
    }
    assert!(
        expected.len() + unknown.len() >= 10,
        "somebody wins in every round: {expected:?} {unknown:?}"
    );
    assert!(expected.len() >= 5, "hardly anything was changed: {unknown:?}");
    let mut config: serde_json::Value = serde_json::from_str(&herd.latest(0, "/config").await).unwrap();
    for change in unknown {
        config["app"].as_object_mut().unwrap().remove(&change);
    }
    assert_eq!(config["app"], serde_json::json!(expected));
}

/// Whoever asks for the latest is not shown a node's view of a heartbeat ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_through_one_node_is_read_through_the_others() {
    let herd = Herd::grown(3, Options::calm()).await;
    herd.await_primary(20, |_| true).await;
    for round in 0..30 {
        let change = format!(r#"{{"round": {round}}}"#);
        herd.until("the change", 20, async || {
            let (status, text) = asked(&herd, round % 3, "PATCH", "/config", &change).await;
            // While another leader is elected nobody can change anything.
            assert!(status == 200 || status >= 500, "{status} {text}");
            status == 200
        })
        .await;
        for node in 0..herd.nodes.len() {
            let shown = herd.find("what is the latest", 20, async || {
                let begun = matriarch::clock::boot_ns();
                let text = herd.latest(node, "/config").await;
                let config: serde_json::Value = serde_json::from_str(&text).unwrap();
                // A node that hears of no leader for so long shows what it has.
                let gave_up = matriarch::clock::boot_ns() - begun >= 1_000_000_000;
                (config["round"] == round || !gave_up).then(|| config["round"].clone())
            });
            assert_eq!(shown.await, round, "{}", herd.nodes[node].name);
        }
    }
}
