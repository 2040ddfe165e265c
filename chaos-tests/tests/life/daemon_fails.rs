//! The daemon dies or hangs while its PostgreSQL is well: the guard has the last word.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, processes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_killed_and_the_guard_ends_postgresql_before_another_writes() {
    let mut herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[old].postmaster_pid().unwrap();
    herd.nodes[old].kill_daemon();
    crowd.await_flow(&herd).await;
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert!(!processes::is_alive(postmaster), "the guard let PostgreSQL live");
    assert!(
        herd.nodes[old].postgres_processes().is_empty(),
        "PostgreSQL left orphans"
    );
    crowd.judge(&herd).await.0.demand_sound();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_restarted_within_the_lease_and_nobody_notices() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let (primary, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[primary].postmaster_pid();
    let guard = herd.nodes[primary].guard_pid();
    for _ in 0..3 {
        herd.nodes[primary].kill_daemon();
        herd.nodes[primary].start();
        herd.until("the daemon back", 20, async || {
            herd.nodes[primary].is_primary().await
        })
        .await;
        crowd.await_flow(&herd).await;
    }
    assert_eq!(
        herd.nodes[primary].postmaster_pid(),
        postmaster,
        "PostgreSQL was restarted"
    );
    assert_eq!(herd.nodes[primary].guard_pid(), guard, "the guard was restarted");
    assert_eq!(crowd.writer.connections(), 1, "the client noticed");
    assert_eq!(herd.await_whole(RETURN_S).await, primary, "the primary moved");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_stopped_and_wakes_up_to_find_another_primary() {
    let herd = Herd::grown(3, Options::calm()).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let since = matriarch::clock::boot_ns();
    herd.nodes[old].freeze_daemon();
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert!(
        herd.nodes[old].postgres_processes().is_empty(),
        "the guard left PostgreSQL alive"
    );
    crowd.await_flow(&herd).await;
    herd.nodes[old].thaw_daemon();
    herd.await_streaming(old, RETURN_S).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_sound();
    let moved = writes
        .iter()
        .filter(|write| write.node != old && write.is_acked())
        .map(|write| write.ended)
        .min();
    let after_s = moved
        .expect("another node has acknowledged")
        .saturating_sub(since) as f64
        / 1e9;
    // It may have been renewed a while before, and ends a margin early: half of it was surely left.
    assert!(
        after_s > herd.options.ttl / 2.0,
        "another node wrote after {after_s:.2} s: the lease was not waited for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_is_killed_and_postgresql_does_not_outlive_it() {
    let herd = Herd::three().await;
    let old = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[old].postmaster_pid().unwrap();
    herd.nodes[old].kill_guard();
    herd.until("the end of the postmaster", 20, async || {
        !processes::is_alive(postmaster)
    })
    .await;
    crowd.await_flow(&herd).await;
    herd.await_whole(RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicas_daemon_is_killed_and_its_readers_notice_nothing() {
    // It may be the one that leads the Raft group: another is elected long before the primary's lease ends.
    let mut herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let replica = herd.others(primary)[0];
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[replica].postmaster_pid();
    herd.nodes[replica].kill_daemon();
    // A standby has no deadline: far beyond the lease its PostgreSQL still runs.
    tokio::time::sleep(std::time::Duration::from_secs_f64(herd.options.ttl + 1.0)).await;
    assert_eq!(
        herd.nodes[replica].postmaster_pid(),
        postmaster,
        "a standby was fenced"
    );
    herd.nodes[replica].start();
    herd.await_streaming(replica, RETURN_S).await;
    assert_eq!(
        herd.nodes[replica].postmaster_pid(),
        postmaster,
        "a standby was restarted"
    );
    assert_eq!(crowd.writer.connections(), 1, "the writing client noticed");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_asked_to_end_stops_postgresql_and_leaves_nothing() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[old].terminate();
    crowd.await_flow(&herd).await;
    let deadline = matriarch::clock::boot_ns() + 30_000_000_000;
    let status = loop {
        if let Some(status) = herd.nodes[old].exit() {
            break status;
        }
        assert!(
            matriarch::clock::boot_ns() < deadline,
            "SIGTERM did not end it\n{}",
            herd.portrait().await
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(status.success(), "a daemon that was asked to end says {status}");
    herd.until("nothing of it remains", 20, async || {
        processes::of(&herd.nodes[old].dir).is_empty()
    })
    .await;
    crowd.judge(&herd).await.0.demand_nothing_lost();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_stands_still_and_its_daemon_ends_postgresql_past_it() {
    let herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let guard = herd.nodes[old].guard_pid().expect("a guard runs");
    processes::freeze(guard);
    herd.until("the end of PostgreSQL", 20, async || {
        herd.nodes[old].postgres_processes().is_empty()
    })
    .await;
    crowd.await_flow(&herd).await;
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert!(herd.nodes[old].log().contains("the guard stands still"));
    processes::thaw(guard);
    herd.await_streaming(old, RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}
