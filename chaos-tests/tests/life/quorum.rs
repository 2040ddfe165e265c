//! Majorities are lost and found, and Raft leaders die.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_are_lost_and_the_primary_stops_accepting_writes_in_time() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    let lost = herd.others(primary);
    let since = matriarch::clock::boot_ns();
    for node in &lost {
        herd.nodes[*node].kill_whole();
    }
    let dead = matriarch::clock::boot_ns();
    herd.until("the end of PostgreSQL without a quorum", 20, async || {
        herd.nodes[primary].postgres_processes().is_empty()
    })
    .await;
    // A lease granted at the last moment of a majority ends one ttl later, and nothing may be acknowledged after it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = crowd.pinned[primary]
        .last_ack()
        .expect("the primary accepted writes before");
    assert!(last > since, "writes had stopped before the fault");
    let after_s = Duration::from_nanos(last.saturating_sub(dead)).as_secs_f64();
    assert!(
        after_s <= herd.options.ttl,
        "a row was acknowledged {after_s:.2} s after the majority was gone"
    );
    for node in &lost {
        herd.nodes[*node].start();
    }
    crowd.await_flow(&herd).await;
    herd.await_whole(RETURN_S).await;
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_are_killed_and_return_with_every_row() {
    // Long enough for the former primary to be back, on a busy machine too, before its lease has surely ended.
    let options = Options {
        ttl: 30.0,
        ..Options::default()
    };
    let mut herd = Herd::grown(3, options).await;
    let primary = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    // The primary last: the others would elect one of themselves in the time that it takes to kill the next.
    for node in herd.others(primary).into_iter().chain([primary]) {
        herd.nodes[node].kill_whole();
    }
    // The former primary last: the others must wait for it, since only it has every row.
    for node in herd.others(primary) {
        herd.nodes[node].start();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    herd.nodes[primary].start();
    crowd.await_flow(&herd).await;
    assert_eq!(
        herd.await_whole(RETURN_S).await,
        primary,
        "somebody else took over a cluster that was only asleep"
    );
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raft_leader_dies_beside_a_replica_and_postgresql_notices_nothing() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let (primary, leader) = herd.await_leader_elsewhere(30).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[primary].postmaster_pid();
    herd.nodes[leader].kill_daemon();
    let killed = matriarch::clock::boot_ns();
    herd.until("another Raft leader", FAILOVER_S, async || {
        herd.nodes[primary]
            .explain("/raft/leader")
            .await
            .is_some_and(|name| name != herd.nodes[leader].name)
    })
    .await;
    // When no lease of the dead one's can stand any more, the primary still writes on the same connection.
    let lease = Duration::from_secs_f64(herd.options.ttl);
    let over = killed + u64::try_from(lease.as_nanos()).unwrap();
    herd.until("a lease later", 20, async || matriarch::clock::boot_ns() > over)
        .await;
    crowd.await_flow(&herd).await;
    assert_eq!(crowd.writer.connections(), 1, "the writing client noticed");
    assert_eq!(herd.nodes[primary].postmaster_pid(), postmaster);
    herd.nodes[leader].start();
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_and_the_raft_leader_die_together_and_another_takes_over() {
    let mut herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    // Raft's lead is moved away from the primary, so both at once is made: the primary's node and the leader's daemon.
    let leader = herd.find("a Raft leader", 20, async || herd.raft_leader().await);
    let leader = leader.await;
    herd.nodes[primary].kill_whole();
    if leader != primary {
        herd.nodes[leader].kill_daemon();
        herd.nodes[leader].start();
    }
    crowd.await_flow(&herd).await;
    herd.await_primary(FAILOVER_S, |i| i != primary).await;
    crowd.judge(&herd).await.0.demand_sound();
}
