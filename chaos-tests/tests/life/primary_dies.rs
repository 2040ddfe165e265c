//! The primary's PostgreSQL dies, alone or with its whole node.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, oracle, processes, writer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postmaster_is_killed_and_no_acknowledged_row_is_lost() {
    let herd = Herd::grown(3, Options::calm()).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let since = matriarch::clock::boot_ns();
    herd.nodes[old].kill_postmaster();
    crowd.await_flow(&herd).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
    let gap = oracle::gap_s(&writes, since);
    assert!(gap < 10.0, "writes stood still for {gap:.2} s");
    herd.await_whole(RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_busy_when_its_postmaster_dies_blocks_nothing() {
    let herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_primary(20, |_| true).await;
    let config = herd.nodes[old].client_config();
    let busy = tokio::spawn(async move {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // PL/pgSQL that never waits never notices that the postmaster is gone.
        client
            .batch_execute("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
            .await
    });
    let find =
        "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'";
    herd.until("a busy backend", 20, async || {
        herd.nodes[old].sql(find).await.is_ok_and(|pid| pid != "0")
    })
    .await;
    let backend: i32 = herd.nodes[old].sql(find).await.unwrap().parse().unwrap();
    assert!(processes::is_alive(backend));
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[old].kill_postmaster();
    crowd.await_flow(&herd).await;
    herd.until("the orphan's end", 20, async || !processes::is_alive(backend))
        .await;
    assert!(
        busy.await.unwrap().is_err(),
        "the busy session survived its postmaster"
    );
    crowd.judge(&herd).await.0.demand_nothing_lost();
    herd.await_whole(RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postmaster_is_killed_when_no_standby_has_every_row_and_restarts_in_place() {
    let herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_primary(20, |_| true).await;
    let receivers: Vec<(usize, i32)> = herd
        .others(old)
        .into_iter()
        .map(|i| (i, herd.nodes[i].freeze_receiver()))
        .collect();
    // Rows from here on are on the primary alone.
    let crowd = Crowd::gather(&herd).await;
    let before = herd.nodes[old].postmaster_pid();
    herd.nodes[old].kill_postmaster();
    crowd.await_flow(&herd).await;
    for (node, pid) in receivers {
        herd.nodes[node].discard_receiver(pid);
    }
    let now = herd.await_primary(FAILOVER_S, |_| true).await;
    assert_eq!(now, old, "a standby that lacked rows was promoted");
    assert_ne!(
        herd.nodes[old].postmaster_pid(),
        before,
        "the same postmaster cannot live"
    );
    crowd.judge(&herd).await.0.demand_nothing_lost();
    herd.await_whole(RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_node_is_killed_another_takes_over_and_the_third_follows_without_a_restart() {
    let mut herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let mut started = Vec::new();
    for node in &herd.nodes {
        started.push(node.sql("SELECT pg_postmaster_start_time()").await.unwrap());
    }
    herd.nodes[old].kill_whole();
    crowd.await_flow(&herd).await;
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    let third = herd.others(old).into_iter().find(|i| *i != new).unwrap();
    herd.await_streaming(third, RETURN_S).await;
    let after = herd.nodes[third]
        .sql("SELECT pg_postmaster_start_time()")
        .await
        .unwrap();
    assert_eq!(
        after, started[third],
        "the replica was restarted to follow the new primary"
    );
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_dies_again_and_again_and_writes_always_come_back() {
    let mut herd = Herd::grown(3, Options::default()).await;
    let crowd = Crowd::gather(&herd).await;
    for _ in 0..3 {
        let old = herd.await_whole(RETURN_S).await;
        herd.nodes[old].kill_whole();
        crowd.await_flow(&herd).await;
        herd.await_primary(FAILOVER_S, |i| i != old).await;
        herd.nodes[old].start();
    }
    herd.await_whole(RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_ends_by_itself_three_times_in_a_row_is_replaced_although_it_has_more() {
    let herd = Herd::three().await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    writer::prepare(&herd).await;
    for node in herd.others(old) {
        herd.await_streaming(node, 20).await;
        herd.nodes[node].cut_stream().await;
    }
    let row = "INSERT INTO judge VALUES (-1, 1)";
    herd.nodes[old].sql(row).await.unwrap();
    for _ in 0..2 {
        let before = herd.nodes[old].postmaster_pid().unwrap();
        herd.nodes[old].kill_postmaster();
        // Only it has the row: twice that is reason enough to start it again.
        herd.until("the same primary again", FAILOVER_S, async || {
            let now = herd.nodes[old].postmaster_pid();
            now.is_some_and(|pid| pid != before) && herd.nodes[old].is_primary().await
        })
        .await;
    }
    herd.nodes[old].kill_postmaster();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    let kept = herd.nodes[new].sql("SELECT count(*) FROM judge").await.unwrap();
    assert_eq!(
        kept, "0",
        "the standby had the row: the primary was replaced for another reason"
    );
    herd.until("everybody is told why", 20, async || {
        let cluster = herd.nodes[new].get("/cluster").await;
        cluster.is_some_and(|(_, text)| text.contains("has ended by itself 3 times within a minute"))
    })
    .await;
    // It is left alone for a while first.
    herd.await_streaming(old, 2 * RETURN_S).await;
}
