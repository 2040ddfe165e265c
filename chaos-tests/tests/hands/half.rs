//! A standby that lost its primary when it had just begun to receive a new timeline: PostgreSQL neither promotes nor
//! starts it, and does both once the half segment is gone.

use super::site::{Server, Site, until};
use matriarch::cluster::Timeline;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

const SEGMENT: u64 = 16 << 20;
/// What a receiver had written of the segment.
const BEGUN: usize = 128 * 1024;

/// A dead primary, and its standby, which has replayed a few hundred kilobytes of a segment on timeline 1 and begun to
/// receive it again on timeline 2; and the half segment.
async fn caught(site: &Site) -> (Server, Server, PathBuf) {
    let mut primary = site.primary(0).await;
    let standby = site.standby(1, &primary).await;
    primary
        .sql(
            "SELECT pg_switch_wal(); CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 5000)",
        )
        .await;
    let end = primary.probed().await.location.unwrap();
    standby
        .until("it has everything", 20, |probe| probe.replayed >= Some(end))
        .await;
    primary.kill();
    // Where the timeline is left: what the standby has, which is a little more than was asked.
    let fork = standby
        .until("its stream has ended", 20, |probe| {
            probe.wal_receiver.is_none() && probe.replayed >= probe.received
        })
        .await
        .replayed
        .unwrap();
    let wal = standby.data_dir().join("pg_wal");
    let of = |timeline: u32| {
        let number = fork.0 / SEGMENT;
        wal.join(format!("{timeline:08X}{:08X}{:08X}", number >> 8, number & 0xff))
    };
    assert!(fork.0 % SEGMENT > BEGUN as u64, "{fork}");
    let whole = std::fs::read(of(1)).unwrap();
    let mut half = vec![0; whole.len()];
    half[..BEGUN].copy_from_slice(&whole[..BEGUN]);
    place(&of(2), &of(1), &half);
    let history = format!("1\t{fork}\tno recovery target specified\n");
    place(&wal.join("00000002.history"), &of(1), history.as_bytes());
    until("it follows the new timeline", 20, async || {
        std::fs::read_to_string(standby.log())
            .unwrap()
            .contains("new target timeline is 2")
    })
    .await;
    (primary, standby, of(2))
}

/// Writes a file for the owner of another one, in one step: the server reads what appears.
fn place(path: &std::path::Path, like: &std::path::Path, bytes: &[u8]) {
    let owner = std::fs::metadata(like).unwrap();
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, bytes).unwrap();
    chown(&fresh, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

fn said(server: &Server, words: &str) -> bool {
    std::fs::read_to_string(server.log()).unwrap().contains(words)
}

#[tokio::test]
async fn a_standby_with_half_a_segment_is_promoted_when_that_is_gone() {
    let site = Site::new();
    let (_, standby, half) = caught(&site).await;
    assert_eq!(standby.postgres.half_segments().unwrap(), [half]);
    standby.postgres.remove_half_segments().unwrap();
    assert!(standby.postgres.half_segments().unwrap().is_empty());
    standby
        .postgres
        .reserve_timelines(Timeline(2), Timeline(3))
        .unwrap();
    standby.session.promote().await.unwrap();
    let probe = standby
        .until("it accepts writes", 20, |probe| !probe.in_recovery)
        .await;
    assert_eq!(probe.timeline, Some(Timeline(3)));
    assert_eq!(standby.number("SELECT count(*) FROM t").await, 5_000);
}

#[tokio::test]
async fn postgresql_neither_promotes_nor_starts_it_with_that() {
    let site = Site::new();
    let (primary, mut standby, half) = caught(&site).await;
    // It may die of that before it answers.
    let _ = standby.session.promote().await;
    standby.ended("its promotion fails").await;
    assert!(
        said(&standby, "PANIC:  invalid magic number 0000 in log segment"),
        "{}",
        std::fs::read_to_string(standby.log()).unwrap()
    );
    // Looking for a primary to stream from, it notices that it read the wrong file.
    standby.configure(Some(&primary)).await;
    standby.postgres.set_standby_signal(true).unwrap();
    standby.spawn();
    standby.ended("its start fails").await;
    assert!(said(&standby, "according to history file"));
    assert_eq!(standby.postgres.half_segments().unwrap(), [half]);
    standby.postgres.remove_half_segments().unwrap();
    standby.start().await;
    let all = "SELECT count(*) FROM t";
    until("it has everything again", 20, async || {
        match standby.try_client().await {
            Ok(client) => client
                .query_one(all, &[])
                .await
                .is_ok_and(|row| row.get::<_, i64>(0) == 5_000),
            Err(_) => false,
        }
    })
    .await;
}
