//! Where the log of a killed server ends, compared with where PostgreSQL's own recovery ends.

use super::site::{Server, Site, show, timed, until};
use matriarch::cluster::{Lsn, Timeline};
use matriarch::postgres::Probe;
use matriarch_chaos::processes;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const SEGMENT: u64 = 16 << 20;

/// Clients that commit rows of all sizes until the server is gone.
async fn load(server: &Server) -> Vec<tokio::task::JoinHandle<()>> {
    server
        .sql("CREATE TABLE load (t text); ALTER TABLE load ALTER t SET STORAGE EXTERNAL")
        .await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let client = server.client().await;
        tasks.push(tokio::spawn(async move {
            let row = "INSERT INTO load SELECT repeat('x', (random() * random() * 30000)::int)";
            while client.batch_execute(row).await.is_ok() {}
        }));
    }
    tasks
}

/// Runs PostgreSQL's own recovery as a standby of nobody, and asks it where the log ends.
async fn recovered(server: &mut Server) -> Lsn {
    server.configure(None).await;
    server.postgres.set_standby_signal(true).unwrap();
    server.start().await;
    let client = server.client().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' \
                 AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')";
    until("recovery has read all there is", 60, async || {
        client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let end = server.probed().await.replayed.unwrap();
    server.kill();
    end
}

fn segment(server: &Server, timeline: u32, lsn: Lsn) -> (PathBuf, u64) {
    let number = lsn.0 / SEGMENT;
    let name = format!("{timeline:08X}{:08X}{:08X}", number >> 8, number & 0xff);
    (server.data_dir().join("pg_wal").join(name), lsn.0 % SEGMENT)
}

fn scribble(server: &Server, at: Lsn, bytes: &[u8]) {
    let (path, offset) = segment(server, 1, at);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// A primary and a standby under load, both killed at once; the primary's last known position.
async fn crashed(site: &Site) -> (Server, Server, Probe) {
    let mut primary = site.primary(0).await;
    let mut standby = site.standby(1, &primary).await;
    let clients = load(&primary).await;
    let start = primary.probed().await.location.unwrap();
    let probe = primary
        .until("40 MB are written", 60, |probe| {
            probe.location.unwrap().0 > start.0 + (40 << 20)
        })
        .await;
    let streamed = |now: &Probe| now.received > probe.location;
    standby.until("the standby has it", 30, streamed).await;
    primary.kill();
    // Everything that was sent is written before the stream ends.
    let quiet = standby
        .until("its stream ends", 30, |probe| probe.wal_receiver.is_none())
        .await;
    standby.kill();
    for client in clients {
        client.await.unwrap();
    }
    assert!(quiet.received >= probe.location);
    (primary, standby, probe)
}

#[tokio::test]
async fn the_end_on_disk_is_where_recovery_ends() {
    let site = Site::new();
    let (mut primary, mut standby, probe) = crashed(&site).await;
    for (server, name) in [(&mut primary, "primary"), (&mut standby, "standby")] {
        let near = server.postgres.wal_end(probe.location).await.unwrap().unwrap();
        let far = server.postgres.wal_end(None).await.unwrap().unwrap();
        let absurd = server
            .postgres
            .wal_end(Some(Lsn(0x7_0000_0000)))
            .await
            .unwrap()
            .unwrap();
        assert!(
            near == far && near == absurd,
            "{name}: {near:?} {far:?} {absurd:?}"
        );
        assert!(near.lsn >= probe.location.unwrap());
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(timed(server.postgres.wal_end(probe.location)).await.0);
        }
        assert!(times.iter().all(|ms| *ms < 30_000.0));
        show(&format!("end of the {name}'s log, with a hint"), times);
        println!(
            "without one: {:.0} ms",
            timed(server.postgres.wal_end(None)).await.0
        );
        assert_eq!(recovered(server).await, near.lsn, "{name}");
    }
}

#[tokio::test]
async fn the_standby_of_a_killed_primary_has_what_the_primary_has_when_it_says_so() {
    let site = Site::new();
    let mut primary = site.primary(0).await;
    let standby = site.standby(1, &primary).await;
    let clients = load(&primary).await;
    let start = primary.probed().await.location.unwrap();
    primary
        .until("8 MB are written", 60, |probe| {
            probe.location.unwrap().0 > start.0 + (8 << 20)
        })
        .await;
    for client in clients {
        client.abort();
        let _ = client.await;
    }
    // A server ends what was begun, and logs what runs now and then.
    let client = primary.client().await;
    let count = async |what: &str| client.query_one(what, &[]).await.unwrap().get::<_, i64>(0);
    until("the end of the load", 20, async || {
        count("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO load%'").await == 0
    })
    .await;
    let writer = processes::of(primary.data_dir())
        .into_iter()
        .find(|process| process.title().contains("background writer"));
    processes::freeze(writer.unwrap().pid);
    // At the end of a page the next record begins behind the header of another.
    let unwritten = "SELECT (pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn() > 40)::int::bigint";
    // With the load ended and everything sent, both ends are the same to the byte.
    let mut last = None;
    until("both are level", 20, async || {
        let all_written = count(unwritten).await == 0;
        let (here, there) = (primary.probed().await.location, standby.probed().await.received);
        let level = all_written && here == there && here == last;
        last = here;
        level
    })
    .await;
    primary.kill();
    let end = primary.postgres.wal_end(last).await.unwrap().unwrap();
    let received = standby
        .until("its stream ends", 30, |probe| probe.wal_receiver.is_none())
        .await
        .received;
    assert_eq!((end.timeline, Some(end.lsn)), (Timeline(1), received));
}

#[tokio::test]
async fn a_torn_tail_is_not_counted() {
    let site = Site::new();
    // Not the standby: it does not start without what it had replayed when it wrote a page.
    let (mut primary, standby, probe) = crashed(&site).await;
    let end = primary.postgres.wal_end(probe.location).await.unwrap().unwrap();
    // Garbage behind the end changes nothing.
    let room = (8192 - end.lsn.0 % 8192).min(100);
    scribble(&primary, end.lsn, &vec![0xA5; usize::try_from(room).unwrap()]);
    assert_eq!(primary.postgres.wal_end(probe.location).await.unwrap(), Some(end));
    // The last record without its last bytes is none.
    let torn = Lsn(end.lsn.0 - 12);
    scribble(&primary, torn, &[0x5A; 8]);
    let shorter = primary.postgres.wal_end(probe.location).await.unwrap().unwrap();
    assert!(shorter.lsn < end.lsn, "{shorter:?} {end:?}");
    assert_eq!(recovered(&mut primary).await, shorter.lsn);
    drop(standby);
}

#[tokio::test]
async fn a_switch_of_the_segment_ends_where_the_server_says() {
    let site = Site::new();
    let mut primary = site.primary(0).await;
    primary.sql("CREATE TABLE rows (i int)").await;
    primary.sql("SELECT pg_switch_wal()").await;
    let says = primary.probed().await.location.unwrap();
    primary.kill();
    let end = primary.postgres.wal_end(Some(says)).await.unwrap().unwrap();
    assert!(end.lsn >= says && end.lsn.0 - says.0 < 4096, "{end:?} {says}");
    assert_eq!(recovered(&mut primary).await, end.lsn);
}

#[tokio::test]
async fn the_end_is_on_the_new_timeline_before_its_first_checkpoint() {
    let site = Site::new();
    let mut old = site.primary(0).await;
    let mut new = site.standby(1, &old).await;
    old.sql("CREATE TABLE rows (i int)").await;
    let written = old.probed().await.location;
    new.until("it has the table", 20, |probe| probe.received >= written)
        .await;
    old.kill();
    new.postgres.reserve_timelines(Timeline(1), Timeline(3)).unwrap();
    new.session.promote().await.unwrap();
    new.until("it is promoted", 20, |probe| !probe.in_recovery).await;
    new.sql("INSERT INTO rows SELECT generate_series(1, 1000)").await;
    let says = new.probed().await.location.unwrap();
    new.kill();
    let end = new.postgres.wal_end(None).await.unwrap().unwrap();
    assert_eq!(end.timeline, Timeline(3));
    assert!(end.lsn >= says);
    assert_eq!(recovered(&mut new).await, end.lsn);
}
