//! Clusters without Matriarch, in which the judge must find what Matriarch prevents: a judge that never frowns is none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::{Herd, Options, Pinned, Writer, oracle, plain, processes, writer};

/// A primary and a standby that nobody looks after, in the places of two nodes.
async fn orphans() -> Herd {
    let herd = Herd::new(2, Options::default());
    let (primary, standby) = (&herd.nodes[0], &herd.nodes[1]);
    plain::initdb(&primary.data_dir());
    let hba = "local all all trust\nhost all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
    std::fs::write(primary.data_dir().join("pg_hba.conf"), hba).unwrap();
    plain::start(&primary.data_dir(), &options(&herd, 0));
    let source = format!("host={} port={POSTGRES_PORT} user=postgres", primary.ip);
    let target = standby.data_dir().display().to_string();
    plain::run(
        "pg_basebackup",
        &["-D", &target, "-d", &source, "-R", "-c", "fast", "-X", "stream"],
    );
    plain::start(&standby.data_dir(), &options(&herd, 1));
    writer::prepare_on(&herd.nodes[0]).await.unwrap();
    herd.until("the table on the standby", 20, async || {
        standby.sql("SELECT count(*) FROM judge").await.is_ok()
    })
    .await;
    herd
}

fn options(herd: &Herd, node: usize) -> String {
    let node = &herd.nodes[node];
    let sockets = node.dir.join("socket");
    format!(
        "-c listen_addresses={} -p {POSTGRES_PORT} -c unix_socket_directories={} -c shared_buffers=16MB",
        node.ip,
        sockets.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_promoted_beside_a_living_primary_is_seen_as_two_writers_and_lost_rows() {
    let herd = orphans().await;
    let pinned = Pinned::start_all(&herd);
    herd.until("rows on the old primary", 20, async || {
        pinned[0].last_ack().is_some()
    })
    .await;
    assert!(pinned[1].last_ack().is_none(), "a standby acknowledged a row");
    plain::promote(&herd.nodes[1].data_dir());
    herd.until("rows on the new primary", 20, async || {
        pinned[1].last_ack().is_some()
    })
    .await;
    let since = pinned[1].last_ack().unwrap();
    herd.until("more rows on the old primary", 20, async || {
        pinned[0].last_ack().is_some_and(|at| at > since + 500_000_000)
    })
    .await;
    let writes = Pinned::stop_all(pinned).await;
    let verdict = oracle::judge(&herd, 1, &writes).await;
    assert!(!verdict.overlaps.is_empty(), "the judge saw nothing: {verdict:?}");
    assert!(!verdict.lost.is_empty(), "the judge missed the lost rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_vanishes_and_a_row_that_doubles_are_found() {
    let herd = orphans().await;
    let client = Writer::start(&herd);
    client.await_flow(&herd, 50, 20).await;
    let writes = client.stop().await;
    oracle::judge(&herd, 0, &writes).await.demand_nothing_lost();
    let spoil = "DELETE FROM judge WHERE seq = 10; INSERT INTO judge VALUES (0, 20)";
    herd.nodes[0].sql(spoil).await.unwrap();
    let verdict = oracle::judge(&herd, 0, &writes).await;
    assert_eq!((verdict.lost.len(), verdict.holes.len()), (1, 1));
    assert_eq!(verdict.repeated, vec![(0, 20)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faults_hit_what_they_aim_at() {
    let mut herd = orphans().await;
    let receiver = herd.nodes[1].freeze_receiver();
    herd.nodes[0]
        .sql("INSERT INTO judge SELECT 7, n FROM generate_series(1, 100) AS n")
        .await
        .unwrap();
    let postmaster = herd.nodes[0].postmaster_pid().unwrap();
    herd.nodes[0].kill_postmaster();
    assert!(!processes::is_alive(postmaster));
    herd.until("the end of its children", 20, async || {
        herd.nodes[0].postgres_processes().is_empty()
    })
    .await;
    herd.nodes[1].discard_receiver(receiver);
    herd.until("the receiver's end", 20, async || !processes::is_alive(receiver))
        .await;
    let arrived = herd.nodes[1]
        .sql("SELECT count(*) FROM judge WHERE writer = 7")
        .await
        .unwrap();
    assert_eq!(
        arrived, "0",
        "rows written while the receiver was frozen have arrived"
    );
    herd.nodes[1].kill_whole();
    assert!(processes::of(&herd.nodes[1].dir).is_empty());
}
