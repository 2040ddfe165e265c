//! Copies and rewinds that are interrupted: what they leave behind must never start, and never block.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::{FORM_S, Herd, Options, processes, writer};

/// Looks for a running tool of a node without pause, since it may live for a moment only, and freezes it.
async fn catch(herd: &Herd, node: usize, program: &str) -> i32 {
    let deadline = matriarch::clock::boot_ns() + 60_000_000_000;
    loop {
        let found = processes::of(&herd.nodes[node].dir)
            .into_iter()
            .find(|p| p.program() == program);
        if let Some(process) = found {
            processes::freeze(process.pid);
            return process.pid;
        }
        assert!(
            matriarch::clock::boot_ns() < deadline,
            "no {program} was seen\n{}",
            herd.portrait().await
        );
        tokio::task::yield_now().await;
    }
}

/// A cluster of two of three nodes with enough rows that a copy takes some seconds; the third has never run.
async fn two_of_three() -> (Herd, usize) {
    let options = Options {
        postgresql: "  basebackup:\n  - max-rate: '10M'\n".to_owned(),
        ..Options::default()
    };
    let mut herd = Herd::new(3, options);
    herd.nodes[0].start();
    herd.nodes[1].start();
    let primary = herd.await_primary(FORM_S, |_| true).await;
    herd.await_streaming(1 - primary, FORM_S).await;
    writer::prepare(&herd).await;
    herd.nodes[primary]
        .sql("INSERT INTO judge SELECT 9, n FROM generate_series(1, 400000) AS n")
        .await
        .unwrap();
    // Whoever lacks more than `maximum_lag_on_failover` is not promoted.
    herd.await_streaming(1 - primary, FORM_S).await;
    (herd, primary)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_in_its_base_backup_and_starts_over() {
    let (mut herd, _) = two_of_three().await;
    for _ in 0..3 {
        herd.nodes[2].start();
        catch(&herd, 2, "pg_basebackup").await;
        herd.nodes[2].kill_whole();
        assert!(herd.nodes[2].postgres_processes().is_empty());
    }
    herd.nodes[2].start();
    herd.await_streaming(2, RETURN_S).await;
    let rows = herd.nodes[2]
        .sql("SELECT count(*) FROM judge WHERE writer = 9")
        .await
        .unwrap();
    assert_eq!(rows, "400000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_dies_in_its_base_backup_and_the_old_one_does_not_disturb_the_new() {
    let (mut herd, _) = two_of_three().await;
    herd.nodes[2].start();
    let tool = catch(&herd, 2, "pg_basebackup").await;
    herd.nodes[2].kill_daemon();
    herd.nodes[2].start();
    // The old one wakes up beside the new daemon's, if that has not ended it already.
    herd.until("the next copy", 30, async || {
        let is_another = |p: &processes::Process| p.program() == "pg_basebackup" && p.pid != tool;
        !processes::is_alive(tool) || processes::of(&herd.nodes[2].dir).iter().any(is_another)
    })
    .await;
    if processes::is_alive(tool) {
        processes::thaw(tool);
    }
    herd.await_streaming(2, RETURN_S).await;
    let rows = herd.nodes[2]
        .sql("SELECT count(*) FROM judge WHERE writer = 9")
        .await
        .unwrap();
    assert_eq!(rows, "400000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_of_a_base_backup_dies_and_the_node_finds_another() {
    let (mut herd, primary) = two_of_three().await;
    herd.nodes[2].start();
    let tool = catch(&herd, 2, "pg_basebackup").await;
    // The newcomer must be a voter: until then the primary is one of the two that are a majority.
    herd.until("the newcomer among the voters", 20, async || {
        let voters = herd.nodes[1 - primary].voters().await;
        voters.is_some_and(|all| all.contains_key("node3"))
    })
    .await;
    herd.nodes[primary].kill_whole();
    if processes::is_alive(tool) {
        processes::thaw(tool);
    }
    herd.await_primary(FAILOVER_S, |i| i == 1 - primary).await;
    herd.await_streaming(2, RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_in_its_rewind_and_still_becomes_a_sound_replica() {
    // The leader may or may not have heard of the rows that only the lost primary has.
    let options = Options::default().with("maximum_lag_on_failover: 1073741824");
    let mut herd = Herd::grown(3, options).await;
    let old = herd.await_primary(20, |_| true).await;
    writer::prepare(&herd).await;
    for node in herd.others(old) {
        herd.nodes[node].cut_stream().await;
    }
    herd.nodes[old]
        .sql("INSERT INTO judge SELECT -1, n FROM generate_series(1, 400000) AS n")
        .await
        .unwrap();
    herd.nodes[old].kill_whole();
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    herd.nodes[old].start();
    catch(&herd, old, "pg_rewind").await;
    herd.nodes[old].kill_whole();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
    let ghosts = herd.nodes[old]
        .sql("SELECT count(*) FROM judge WHERE writer = -1")
        .await
        .unwrap();
    assert_eq!(ghosts, "0", "rows of the dead timeline are still there");
    herd.nodes[old]
        .sql("SELECT count(*) FROM pg_class")
        .await
        .expect("the replica reads its catalogue");
}
