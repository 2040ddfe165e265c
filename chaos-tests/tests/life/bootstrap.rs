//! Empty nodes become one cluster, whatever the order in which they are started.

use crate::{Crowd, FAILOVER_S};
use matriarch_chaos::{FORM_S, Herd, Options};
use std::time::Duration;

/// Starts the nodes in this order with this pause, and checks that they are one cluster with one primary.
async fn forms(order: [usize; 3], pause: Duration) {
    let mut herd = Herd::new(3, Options::default());
    for node in order {
        herd.nodes[node].start();
        tokio::time::sleep(pause).await;
    }
    let primary = herd.await_whole(FORM_S).await;
    demand_one_cluster(&herd, primary).await;
}

/// Exactly one PostgreSQL accepts writes, and all are copies of one database.
async fn demand_one_cluster(herd: &Herd, primary: usize) {
    let mut identifiers = Vec::new();
    for (i, node) in herd.nodes.iter().enumerate() {
        let in_recovery = node.sql("SELECT pg_is_in_recovery()").await.unwrap();
        assert_eq!(
            in_recovery == "f",
            i == primary,
            "{} in recovery: {in_recovery}",
            node.name
        );
        identifiers.push(
            node.sql("SELECT system_identifier FROM pg_control_system()")
                .await
                .unwrap(),
        );
    }
    identifiers.dedup();
    assert_eq!(identifiers.len(), 1, "different databases: {identifiers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_empty_nodes_started_at_once_make_one_primary() {
    forms([0, 1, 2], Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_empty_nodes_started_backwards_and_apart_make_one_primary() {
    forms([2, 1, 0], Duration::from_millis(1500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_alone_forms_nothing_and_two_of_three_form_a_cluster_the_third_joins() {
    let mut herd = Herd::new(3, Options::default());
    herd.nodes[1].start();
    // Long enough for a node to do something wrong: three leases.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(
        herd.nodes[1].postmaster_pid().is_none(),
        "a minority has started PostgreSQL"
    );
    assert!(
        !herd.nodes[1].data_dir().join("PG_VERSION").exists(),
        "a minority has made a database"
    );
    herd.nodes[2].start();
    let first = herd.await_primary(FORM_S, |_| true).await;
    herd.nodes[0].start();
    let primary = herd.await_whole(FORM_S).await;
    assert_eq!(primary, first, "the newcomer moved the primary");
    demand_one_cluster(&herd, primary).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_clone_and_stream_and_every_row_reaches_them() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    crowd.await_flow(&herd).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
    for replica in herd.others(primary) {
        herd.await_streaming(replica, 20).await;
        matriarch_chaos::oracle::judge(&herd, replica, &writes)
            .await
            .demand_nothing_lost();
    }
    herd.until("each replica streams from a slot of its own", 20, async || {
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE active";
        herd.nodes[primary].sql(slots).await.as_deref() == Ok("2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_holds_no_data_and_its_vote_lets_the_other_take_over() {
    let options = Options {
        witness: Some(2),
        ..Options::default()
    };
    let mut herd = Herd::grown(3, options).await;
    let old = herd.await_primary(20, |_| true).await;
    assert!(
        herd.nodes[2].postgres_processes().is_empty(),
        "a witness runs PostgreSQL"
    );
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[old].kill_whole();
    crowd.await_flow(&herd).await;
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert_ne!(new, 2, "a witness became primary");
    crowd.judge(&herd).await.0.demand_sound();
    herd.nodes[2].terminate();
    let deadline = matriarch::clock::boot_ns() + 30_000_000_000;
    while herd.nodes[2].exit().is_none() {
        assert!(
            matriarch::clock::boot_ns() < deadline,
            "SIGTERM did not end a witness\n{}",
            herd.portrait().await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
