//! A disk that takes no more: another node serves, and the node comes back by itself once there is room.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, disk};

/// The promise: within this time another node accepts rows.
const GIVE_WAY_S: f64 = 30.0;
/// Room for a database cluster, its log and one copy of it.
const DISK_MIB: u64 = 512;

async fn with_disks(mode: Option<&'static str>) -> Option<Herd> {
    if let Some(why) = disk::unavailable() {
        eprintln!("skipped: {why}");
        return None;
    }
    let options = Options {
        disk_mib: Some(DISK_MIB),
        ..mode.map_or_else(Options::default, Options::synchronous)
    };
    Some(Herd::grown(3, options).await)
}

async fn trouble_of(herd: &Herd, node: usize, asked: usize) -> Option<String> {
    let cluster = herd.nodes[asked].get_json("/cluster").await?;
    let members = cluster.get("members")?.as_array()?.iter();
    let name = &herd.nodes[node].name;
    let member = members.clone().find(|member| member["name"] == name.as_str())?;
    member.get("trouble")?.as_str().map(str::to_owned)
}

/// Everybody says why the node is out, and it starts nothing meanwhile.
async fn await_trouble(herd: &Herd, node: usize, asked: usize, word: &str) {
    let what = format!("{} says that its disk {word}", herd.nodes[node].name);
    herd.until(&what, 20, async || {
        trouble_of(herd, node, asked)
            .await
            .is_some_and(|why| why.contains(word))
    })
    .await;
    let why_not = async || {
        let explain = herd.nodes[asked].get_json("/explain").await?;
        let mut members = explain["members"].as_array()?.iter();
        let member = members.find(|member| member["name"] == herd.nodes[node].name.as_str())?;
        Some(member["why_not"].as_str()?.to_owned())
    };
    herd.until(&what, 20, async || {
        why_not().await.is_some_and(|why| why.contains(word))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primarys_disk_is_full_another_serves_and_it_returns_when_there_is_room() {
    a_full_disk_of_the_primary(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quorum_mode_the_primarys_disk_is_full_and_another_serves() {
    a_full_disk_of_the_primary(Some("quorum")).await;
}

async fn a_full_disk_of_the_primary(mode: Option<&'static str>) {
    let Some(herd) = with_disks(mode).await else {
        return;
    };
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    // With a whole file of the log ahead: at its end PostgreSQL would panic, with rows that no standby has.
    herd.nodes[old].sql("SELECT pg_switch_wal()").await.unwrap();
    crowd.await_flow(&herd).await;
    let since = matriarch::clock::boot_ns();
    herd.disks[old].fill();
    let new = herd.await_primary(30, |i| i != old).await;
    crowd.await_flow(&herd).await;
    await_trouble(&herd, old, new, "is full").await;
    let (pids, data) = (herd.nodes[old].postmaster_pid(), herd.nodes[old].data_dir());
    assert_eq!(pids, None, "PostgreSQL was started on a full disk");
    assert!(data.join("global/pg_control").is_file(), "the data is as it was");
    herd.disks[old].free();
    herd.await_streaming(old, RETURN_S).await;
    herd.until("nobody speaks of trouble any more", 20, async || {
        trouble_of(&herd, old, new).await.is_none()
    })
    .await;
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
    let gap = matriarch_chaos::oracle::gap_s(&writes, since);
    eprintln!("rows stood still for {gap:.2} s");
    assert!(gap < GIVE_WAY_S, "rows stood still for {gap:.2} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_panics_on_a_full_disk_and_is_not_started_there_again_and_again() {
    let Some(herd) = with_disks(None).await else {
        return;
    };
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let piece = "SELECT pg_logical_emit_message(false, 'judge', repeat('a', 700000))";
    // To the end of the last log file that there is: PostgreSQL has to need the next one before the node gives way for
    // the lack of room alone.
    let at_the_end = "SELECT NOT EXISTS (SELECT FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' \
         AND name > pg_walfile_name(pg_current_wal_insert_lsn())) \
         AND 16777216 - mod(pg_current_wal_insert_lsn() - '0/0', 16777216) < 1500000";
    herd.until("the end of the last log file", 60, async || {
        let there = herd.nodes[old].sql(at_the_end).await;
        if there.as_deref() != Ok("t") {
            let _ = herd.nodes[old].sql(piece).await;
        }
        there.as_deref() == Ok("t")
    })
    .await;
    for standby in herd.others(old) {
        herd.await_streaming(standby, 20).await;
    }
    herd.disks[old].fill();
    // The next log file cannot be made: PostgreSQL panics. Piece by piece, so that the standbys keep up.
    for _ in 0..100 {
        if herd.nodes[old].sql(piece).await.is_err() {
            break;
        }
    }
    herd.until("a panic in the log", 10, async || {
        let log = herd.nodes[old].log();
        log.contains("PANIC:") && log.contains("No space left on device")
    })
    .await;
    let new = herd.await_primary(30, |i| i != old).await;
    let crowd = Crowd::gather(&herd).await;
    await_trouble(&herd, old, new, "is full").await;
    herd.disks[old].free();
    herd.await_streaming(old, RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_became_read_only_keeps_its_node_out_until_it_is_writable() {
    let Some(herd) = with_disks(None).await else {
        return;
    };
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    // The kernel remounts only what nobody writes: right after a crash, before anything is started there again.
    herd.nodes[old].freeze_daemon();
    herd.until("PostgreSQL ended by its guard", 20, async || {
        herd.nodes[old].postgres_processes().is_empty()
    })
    .await;
    herd.disks[old].set_read_only(true);
    herd.nodes[old].thaw_daemon();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    await_trouble(&herd, old, new, "is read-only").await;
    herd.disks[old].set_read_only(false);
    herd.await_streaming(old, RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standbys_disk_is_full_nobody_notices_and_it_returns_when_there_is_room() {
    let Some(herd) = with_disks(None).await else {
        return;
    };
    let (primary, _) = herd.await_leader_elsewhere(20).await;
    let standby = herd.others(primary)[0];
    let crowd = Crowd::gather(&herd).await;
    let piece = "SELECT pg_logical_emit_message(false, 'judge', repeat('a', 700000))";
    herd.disks[standby].fill();
    herd.until("the standby's end", 30, async || {
        // Until it needs another log file.
        let _ = herd.nodes[primary].sql(piece).await;
        herd.nodes[standby].postmaster_pid().is_none()
    })
    .await;
    await_trouble(&herd, standby, primary, "is full").await;
    crowd.await_flow(&herd).await;
    herd.disks[standby].free();
    herd.await_streaming(standby, RETURN_S).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary, "the primary moved");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}
