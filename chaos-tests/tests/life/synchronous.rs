//! Commits wait for standbys: nothing acknowledged is lost, and a failover waits for no lease.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, oracle};

/// With a lease that outlasts the whole test: whoever waits for its end is late.
fn options(mode: &'static str) -> Options {
    Options {
        ttl: 60.0,
        ..Options::synchronous(mode)
    }
}

async fn herd(mode: &'static str) -> Herd {
    Herd::grown(3, options(mode)).await
}

/// Waits until the primary's names are those of a settled set of `members` standbys.
async fn await_names(herd: &Herd, primary: usize, wanted: &str) {
    let what = format!("synchronous_standby_names is {wanted}");
    herd.until(&what, RETURN_S, async || {
        herd.nodes[primary]
            .sql("SHOW synchronous_standby_names")
            .await
            .as_deref()
            == Ok(wanted)
    })
    .await;
}

fn names(herd: &Herd, mode: &str, standbys: &[usize]) -> String {
    let mut names: Vec<String> = standbys
        .iter()
        .map(|i| format!("\"{}\"", herd.nodes[*i].name))
        .collect();
    names.sort();
    match mode {
        "quorum" => format!("ANY 1 ({})", names.join(",")),
        _ => names.join(","),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quorum_mode_the_node_is_killed_and_no_lease_is_waited_for() {
    let mut herd = herd("quorum").await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    await_names(&herd, old, &names(&herd, "quorum", &herd.others(old))).await;
    let crowd = Crowd::gather(&herd).await;
    let killed = matriarch::clock::boot_ns();
    herd.nodes[old].kill_whole();
    crowd.await_flow(&herd).await;
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    let gap_s = oracle::gap_s(&writes, killed);
    eprintln!("gap {gap_s:.2} s of a lease of 60 s");
    verdict.demand_nothing_lost();
    assert!(
        gap_s < 25.0,
        "the gap of {gap_s:.2} s is more than ten times what it may be"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_synchronous_standby_that_one_takes_over() {
    // Nobody else is chosen between the look and the fault.
    let mut herd = Herd::grown(3, options("on").with("synchronous_standby_timeout: 30")).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let each: Vec<String> = herd
        .others(old)
        .iter()
        .map(|i| names(&herd, "on", &[*i]))
        .collect();
    let chosen = herd.find("one synchronous standby", RETURN_S, async || {
        let shown = herd.nodes[old].sql("SHOW synchronous_standby_names").await;
        shown.ok().filter(|shown| each.contains(shown))
    });
    let chosen = chosen.await;
    herd.nodes[old].kill_whole();
    crowd.await_flow(&herd).await;
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert_eq!(
        names(&herd, "on", &[new]),
        chosen,
        "somebody else was promoted than who had everything"
    );
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_that_are_gone_are_dropped_and_counted_again_when_they_are_back() {
    let mut herd = herd("quorum").await;
    let primary = herd.await_whole(RETURN_S).await;
    let both = herd.others(primary);
    await_names(&herd, primary, &names(&herd, "quorum", &both)).await;
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[both[0]].kill_whole();
    await_names(&herd, primary, &names(&herd, "quorum", &both[1..])).await;
    crowd.await_flow(&herd).await;
    herd.nodes[both[0]].start();
    await_names(&herd, primary, &names(&herd, "quorum", &both)).await;
    crowd.await_flow(&herd).await;
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quorum_mode_a_daemon_may_be_away_within_its_lease_and_nobody_notices() {
    let mut herd = herd("quorum").await;
    let (primary, _) = herd.await_leader_elsewhere(20).await;
    await_names(&herd, primary, &names(&herd, "quorum", &herd.others(primary))).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[primary].postmaster_pid();
    let other = herd.others(primary)[0];
    herd.nodes[primary].kill_daemon();
    // The fault's witness: the others know that the primary's daemon is silent, for longer than they would need.
    herd.until("the leader notices the silence", 20, async || {
        let explained = herd.nodes[other].get("/explain").await;
        explained.is_some_and(|(_, text)| text.contains("is silent"))
    })
    .await;
    crowd.writer.await_flow(&herd, 100, 20).await;
    herd.nodes[primary].start();
    herd.until("the daemon back", 20, async || {
        herd.nodes[primary].is_primary().await
    })
    .await;
    crowd.await_flow(&herd).await;
    assert_eq!(
        herd.nodes[primary].postmaster_pid(),
        postmaster,
        "PostgreSQL was restarted"
    );
    assert_eq!(crowd.writer.connections(), 1, "the client noticed");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_balancers_find_the_synchronous_standbys_by_patronis_probes() {
    for (mode, count) in [("on", 1), ("quorum", 2)] {
        let herd = herd(mode).await;
        let primary = herd.await_primary(20, |_| true).await;
        let (probe, flag) = match mode {
            "on" => ("/sync", "/sync_standby"),
            _ => ("/quorum", "/quorum_standby"),
        };
        let found = async |path: &str| {
            let mut found = 0;
            for node in &herd.nodes {
                found += usize::from(matches!(node.get(path).await, Some((200, _))));
            }
            found
        };
        herd.until("the standbys that acknowledge", RETURN_S, async || {
            found(probe).await == count && found("/async").await == 2 - count
        })
        .await;
        let readers = format!("/read-only{}", probe.replace('/', "-"));
        herd.until("the same and the primary for readers", RETURN_S, async || {
            found(&readers).await == count + 1
        })
        .await;
        herd.until("nobody contradicts himself", RETURN_S, async || {
            let mut said = 0;
            for node in herd.others(primary) {
                let counts = herd.nodes[node].patroni(flag).await.as_deref() == Some("true");
                let probed = matches!(herd.nodes[node].get(probe).await, Some((200, _)));
                if counts != probed {
                    return false;
                }
                said += usize::from(counts);
            }
            said == count
        })
        .await;
        assert_eq!(herd.nodes[primary].patroni(flag).await, None);
    }
}
