//! Rewinds and base backups, also interrupted ones: nothing that is half done starts.

use super::site::{Server, Site, timed, until};
use matriarch::cluster::Timeline;
use matriarch::postgres::{DataDir, Postgres, Probe};
use matriarch_chaos::processes;
use std::path::Path;

/// A primary that wrote on after its standby was promoted without it; it is down, the new one serves on timeline 3.
async fn diverged(site: &Site) -> (Server, Server) {
    diverged_by(site, &[]).await
}

/// The same where the old one did all this before it was lost.
async fn diverged_by(site: &Site, deeds: &[&str]) -> (Server, Server) {
    let mut old = site.primary(0).await;
    old.sql("CREATE TABLE rows (i int); INSERT INTO rows SELECT generate_series(1, 1000)")
        .await;
    let mut new = site.standby(1, &old).await;
    let target = old.probed().await.location;
    new.until("it has replayed everything", 10, |probe| probe.replayed >= target)
        .await;
    new.kill();
    old.sql("UPDATE rows SET i = -i; INSERT INTO rows SELECT generate_series(5001, 6000)")
        .await;
    for deed in deeds {
        old.sql(deed).await;
    }
    old.kill();
    new.start().await;
    new.postgres.reserve_timelines(Timeline(1), Timeline(3)).unwrap();
    new.session.promote().await.unwrap();
    new.until("it is promoted", 20, |probe| !probe.in_recovery).await;
    new.postgres.set_standby_signal(true).unwrap();
    new.session.checkpoint().await.unwrap();
    new.sql("INSERT INTO rows SELECT generate_series(2001, 2500)")
        .await;
    (old, new)
}

async fn assert_same_rows(left: &Server, right: &Server) {
    let target = left.probed().await.location;
    let there = |probe: &Probe| probe.replayed >= target && probe.timeline == Some(Timeline(3));
    right.until("it has everything", 20, there).await;
    let sum = "SELECT sum(i)::bigint * 1000000 + count(*) FROM rows";
    assert_eq!(left.number(sum).await, right.number(sum).await);
}

/// Nothing of that name can be started, not even by hand.
fn assert_nothing_starts(dir: &Path) {
    let pg_ctl = matriarch_chaos::plain::bin_dir().join("pg_ctl");
    let mut command = std::process::Command::new(pg_ctl);
    command
        .args(["-D", dir.to_str().unwrap(), "-t", "5", "-W", "start"])
        .current_dir("/");
    if let Some((uid, gid)) = matriarch_chaos::herd::postgres_ids() {
        use std::os::unix::process::CommandExt;
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    assert!(
        !command.output().unwrap().status.success(),
        "{} starts",
        dir.display()
    );
}

/// Runs `work` until `program` is seen at work, then stops it there and abandons it.
async fn abandon<T: Send + 'static>(
    site: &Site,
    program: &str,
    work: impl Future<Output = T> + Send + 'static,
) {
    let mut task = tokio::spawn(work);
    let mut pid = None;
    until(program, 30, async || {
        assert!(!task.is_finished(), "{program} was not interrupted: it had ended");
        pid = processes::of(site.path())
            .iter()
            .find(|process| process.program() == program)
            .map(|found| found.pid);
        pid.is_some()
    })
    .await;
    processes::freeze(pid.unwrap());
    task.abort();
    let _ = (&mut task).await;
    until("its processes to end", 10, async || {
        processes::of(site.path()).iter().all(|p| p.program() != program)
    })
    .await;
}

#[tokio::test]
async fn a_diverged_primary_is_rewound_and_follows() {
    let site = Site::new();
    let (mut old, new) = diverged(&site).await;
    let (took, result) = timed(old.postgres.rewind(&new.endpoint())).await;
    result.unwrap();
    println!("pg_rewind with crash recovery: {took:.0} ms");
    assert!(old.data_dir().join("standby.signal").exists());
    old.follow(&new).await;
    assert_same_rows(&new, &old).await;
}

/// What the rewind removes is archived first, and what it needs and the server has no more it takes from there.
#[tokio::test]
async fn a_rewind_gives_to_the_archive_and_takes_from_it() {
    let site = Site::new();
    let archive = site.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    if let Some((uid, gid)) = matriarch_chaos::herd::postgres_ids() {
        nix::unistd::chown(&archive, Some(uid), Some(gid)).unwrap();
    }
    let switch = "SELECT pg_switch_wal()";
    let more = "INSERT INTO rows VALUES (1)";
    let (mut old, new) = diverged_by(&site, &[switch, more, "CHECKPOINT", switch, more, "CHECKPOINT"]).await;
    let log = old.data_dir().join("pg_wal");
    let mut segments: Vec<String> = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24)
        .collect();
    segments.sort();
    // The last two lie behind the fork; the others, with the fork, the server has removed.
    let left = segments.split_off(segments.len() - 2);
    for name in &segments {
        std::fs::rename(log.join(name), archive.join(name)).unwrap();
    }
    let waiting = &left[0];
    std::fs::write(log.join(format!("archive_status/{waiting}.ready")), "").unwrap();
    old.postgres.rewind(&new.endpoint()).await.unwrap_err();
    let mut conf = old.conf(None);
    let dir = archive.display();
    conf.parameters.insert("archive_mode".to_owned(), "on".to_owned());
    conf.parameters
        .insert("archive_command".to_owned(), format!("cp %p {dir}/%f"));
    conf.recovery
        .insert("restore_command".to_owned(), format!("cp {dir}/%f %p"));
    old.postgres.write_conf(&conf).await.unwrap();
    old.postgres.rewind(&new.endpoint()).await.unwrap();
    assert!(archive.join(waiting).exists(), "{waiting} was archived");
    old.follow(&new).await;
    assert_same_rows(&new, &old).await;
}

#[tokio::test]
async fn an_interrupted_rewind_leaves_nothing_that_starts() {
    let site = Site::new();
    // Enough to read that pg_rewind is seen at work.
    let much = "INSERT INTO rows SELECT generate_series(10001, 400000)";
    let (mut old, new) = diverged_by(&site, &[much]).await;
    let (postgres, from) = (old.postgres.clone(), new.endpoint());
    abandon(&site, "pg_rewind", async move { postgres.rewind(&from).await }).await;
    let dir = old.data_dir().to_owned();
    let inside = dir.with_file_name("data0.rewinding");
    assert!(!dir.exists() && inside.exists());
    until("the server that recovers to go with pg_rewind", 10, async || {
        processes::of(&inside).is_empty()
    })
    .await;
    assert_nothing_starts(&dir);
    assert!(matches!(old.postgres.inspect().unwrap(), DataDir::Incomplete(_)));
    let aside = old.postgres.move_aside().unwrap().unwrap();
    assert!(aside.exists() && !inside.exists());
    old.copy(&new).await.unwrap();
    assert!(old.data_dir().join("standby.signal").exists());
    old.postgres.discard_aside(&aside).unwrap();
    old.follow(&new).await;
    assert_same_rows(&new, &old).await;
    assert!(
        old.postgres.discard_aside(&dir).is_err(),
        "what was not put aside is not removed"
    );
}

#[tokio::test]
async fn a_rewind_that_changed_nothing_puts_the_data_back() {
    let site = Site::new();
    let (mut old, mut new) = diverged(&site).await;
    new.stop().await;
    let why = old
        .postgres
        .rewind(&new.endpoint())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("pg_rewind failed") && why.contains("Connection refused"),
        "{why}"
    );
    assert!(matches!(old.postgres.inspect().unwrap(), DataDir::Present(_)));
    new.start().await;
    assert!(
        new.probed().await.in_recovery,
        "the signal file makes a start by hand harmless"
    );
    new.postgres.set_standby_signal(false).unwrap();
    new.stop().await;
    new.start().await;
    old.postgres.rewind(&new.endpoint()).await.unwrap();
    old.follow(&new).await;
    assert_same_rows(&new, &old).await;
}

#[tokio::test]
async fn an_interrupted_base_backup_is_retried_cleanly() {
    let site = Site::new();
    let primary = site.primary(0).await;
    primary
        .sql("CREATE TABLE rows AS SELECT i, repeat('x', 200) FROM generate_series(1, 50000) i")
        .await;
    let mut standby = site.server(1);
    // Slow enough to be seen at work.
    let mut slow = standby.setup.clone();
    slow.basebackup_options = vec!["--max-rate=10M".to_owned()];
    let (postgres, from) = (Postgres::new(slow).unwrap(), primary.endpoint());
    let (progress, _) = tokio::sync::watch::channel(None);
    abandon(&site, "pg_basebackup", async move {
        postgres.base_backup(&from, progress).await
    })
    .await;
    let dir = standby.data_dir().to_owned();
    let half = dir.with_file_name("data1.matriarch-new");
    assert!(half.exists() && !dir.exists());
    assert_nothing_starts(&dir);
    assert_eq!(standby.postgres.inspect().unwrap(), DataDir::Absent);
    standby.copy(&primary).await.unwrap();
    assert!(!half.exists());
    standby.follow(&primary).await;
}

#[tokio::test]
async fn data_in_the_way_is_kept_until_told_otherwise() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let server = site.server(1);
    server.postgres.initdb(&[]).await.unwrap();
    let why = server.copy(&primary).await.unwrap_err().to_string();
    assert!(why.contains("not empty"), "{why}");
    let first = server.postgres.move_aside().unwrap().unwrap();
    assert!(first.join("PG_VERSION").exists());
    assert_eq!(
        server.postgres.move_aside().unwrap(),
        Some(first),
        "what waits is told again"
    );
    server.copy(&primary).await.unwrap();
    let second = server.postgres.move_aside().unwrap().unwrap();
    assert!(second.ends_with("data1.moved-2"));
}
