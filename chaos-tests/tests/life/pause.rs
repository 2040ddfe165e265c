//! Maintenance mode: hands off, whatever happens to PostgreSQL and to the daemons, until the resume.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::Herd;
use std::time::Duration;

async fn pause(herd: &Herd, node: usize, value: &str) {
    let body = format!(r#"{{"pause": {value}}}"#);
    let (status, text) = herd.nodes[node].order("PATCH", "/config", &body).await;
    assert_eq!(status, 200, "{text}");
}

async fn await_flag(herd: &Herd, wanted: bool) {
    herd.until("every node's flag", 20, async || {
        for node in &herd.nodes {
            if (node.patroni("/pause").await.as_deref() == Some("true")) != wanted {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postmaster_that_is_killed_in_a_pause_stays_down_until_the_resume() {
    let herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let standby = herd.others(old)[0];
    pause(&herd, standby, "true").await;
    await_flag(&herd, true).await;
    herd.nodes[old].kill_postmaster();
    herd.nodes[standby].kill_postmaster();
    // Longer than a lease, and than any restart would have taken.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for node in [old, standby] {
        assert_eq!(
            herd.nodes[node].postmaster_pid(),
            None,
            "it was started in a pause"
        );
    }
    assert_eq!(herd.primary().await, None, "another one was promoted in a pause");
    pause(&herd, standby, "null").await;
    await_flag(&herd, false).await;
    herd.await_primary(FAILOVER_S, |_| true).await;
    herd.await_whole(RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_come_and_go_in_a_pause_and_sessions_stay() {
    let mut herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    pause(&herd, primary, "true").await;
    await_flag(&herd, true).await;
    let before: Vec<Option<i32>> = herd.nodes.iter().map(|node| node.postmaster_pid()).collect();
    for node in &herd.nodes {
        node.terminate();
    }
    for node in &mut herd.nodes {
        herd_exit(node).await;
    }
    // No daemon, no quorum, no lease: the primary goes on, for nobody fences it.
    let since = matriarch::clock::boot_ns();
    herd.until("rows long after every lease", 20, async || {
        let last = crowd.pinned[primary].last_ack();
        last.is_some_and(|last| last > since + 3_000_000_000)
    })
    .await;
    for node in &mut herd.nodes {
        node.start();
    }
    await_flag(&herd, true).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    pause(&herd, primary, "null").await;
    await_flag(&herd, false).await;
    herd.until("the deadline", 20, async || {
        herd.nodes[primary].log().contains("has a deadline again")
    })
    .await;
    let after: Vec<Option<i32>> = herd.nodes.iter().map(|node| node.postmaster_pid()).collect();
    assert_eq!(before, after, "PostgreSQL was restarted");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

async fn herd_exit(node: &mut matriarch_chaos::node::Node) {
    let until = matriarch::clock::boot_ns() + 20_000_000_000;
    while node.exit().is_none() {
        assert!(matriarch::clock::boot_ns() < until, "{} does not end", node.name);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_moves_primacy_in_a_pause_to_a_named_candidate_only() {
    let herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let to = herd.others(old)[1];
    pause(&herd, old, "true").await;
    await_flag(&herd, true).await;
    let name = |node: usize| herd.nodes[node].name.clone();
    let body = format!(r#"{{"leader": "{}"}}"#, name(old));
    let answer = herd.nodes[old].order("POST", "/switchover", &body).await;
    let text = "Switchover is possible only to a specific candidate in a paused state";
    assert_eq!(answer, (400, text.to_owned()));
    let body = format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, name(old), name(to));
    let answer = herd.nodes[old].order("POST", "/switchover", &body).await;
    assert_eq!(
        answer,
        (200, format!("Successfully switched over to \"{}\"", name(to)))
    );
    assert_eq!(herd.await_whole(RETURN_S).await, to);
    pause(&herd, old, "null").await;
    await_flag(&herd, false).await;
    assert_eq!(herd.await_whole(RETURN_S).await, to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_or_a_new_copy_that_an_operator_asks_for_in_a_pause_ends_with_a_standby_that_runs() {
    let herd = Herd::three().await;
    let primary = herd.await_whole(RETURN_S).await;
    let standby = herd.others(primary)[0];
    pause(&herd, primary, "true").await;
    await_flag(&herd, true).await;
    herd.nodes[standby].kill_postmaster();
    herd.until("the standby says that it is down", 20, async || {
        herd.nodes[standby].patroni("/state").await.as_deref() == Some("stopped")
    })
    .await;
    let (status, text) = herd.nodes[standby].order("POST", "/restart", "{}").await;
    assert_eq!((status, text.as_str()), (200, "restarted successfully"));
    herd.await_streaming(standby, RETURN_S).await;
    let mark = herd.nodes[standby].log().len();
    let (status, text) = herd.nodes[standby].order("POST", "/reinitialize", "{}").await;
    assert_eq!((status, text.as_str()), (200, "reinitialize started"));
    herd.until("the new copy begins", 20, async || {
        herd.nodes[standby].log_since(mark).contains("copying the data")
    })
    .await;
    herd.await_streaming(standby, RETURN_S).await;
    await_flag(&herd, true).await;
}

/// No time proves that a primary without a deadline does not write: only somebody who knows can say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_pause_the_primarys_machine_is_lost_and_an_operator_says_so() {
    let mut herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let to = herd.others(old)[0];
    pause(&herd, to, "true").await;
    await_flag(&herd, true).await;
    herd.nodes[old].kill_whole();
    let line = format!(
        "{} is not serving, and the cluster is paused",
        herd.nodes[old].name
    );
    herd.until(&line, 20, async || {
        herd.others(old)
            .iter()
            .any(|i| herd.nodes[*i].log().contains(&line))
    })
    .await;
    let name = herd.nodes[to].name.clone();
    let body = format!(r#"{{"candidate": "{name}"}}"#);
    let (status, text) = herd.nodes[to].order("POST", "/failover", &body).await;
    assert_eq!(status, 412, "{text}");
    assert!(
        text.contains("it may still be writing") && text.contains("accept_data_loss"),
        "{text}"
    );
    let body = format!(r#"{{"candidate": "{name}", "accept_data_loss": true}}"#);
    let answer = herd.nodes[to].order("POST", "/failover", &body).await;
    assert_eq!(answer, (200, format!("Successfully failed over to \"{name}\"")));
    assert_eq!(herd.await_primary(20, |i| i != old).await, to);
    herd.nodes[old].start();
    pause(&herd, to, "null").await;
    await_flag(&herd, false).await;
    let primary = herd.await_whole(RETURN_S).await;
    assert_eq!(primary, to, "primacy moved: {}", herd.portrait().await);
}
