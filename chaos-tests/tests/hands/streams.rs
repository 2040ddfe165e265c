//! A primary, its standbys, promotion and what follows it.

use super::site::{PASSWORD, Server, Site, show, timed, until};
use matriarch::clock::boot_ns;
use matriarch::cluster::{Fork, Lsn, MemberName, Timeline};
use matriarch::postgres::PostgresError;
use matriarch_chaos::{plain, processes};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::watch;

#[tokio::test]
async fn a_new_cluster_answers() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let probe = primary.probed().await;
    assert!(!probe.in_recovery && !probe.is_streaming());
    assert_eq!(probe.timeline, Some(Timeline(1)));
    assert!(probe.location.is_some() && probe.received.is_none());
    assert_eq!(probe.server_version / 10_000, primary.postgres.version().major);
    assert!(
        probe.start_time.ends_with("+00:00") && probe.start_time.len() == 32,
        "{}",
        probe.start_time
    );
    for _ in 0..2 {
        primary
            .postgres
            .create_roles(&primary.session, true)
            .await
            .unwrap();
    }
    let right = "SELECT count(*) FROM pg_roles WHERE rolname IN ('replicator', 'rewinder') AND rolcanlogin";
    assert_eq!(primary.number(right).await, 2);
    let log = std::fs::read_to_string(primary.log()).unwrap();
    assert!(!log.contains(PASSWORD), "no password in the log");
    let mut times = Vec::new();
    for _ in 0..500 {
        times.push(timed(primary.session.probe()).await.0);
    }
    show("probe of a primary", times);
}

#[tokio::test]
async fn nobody_stands_in_for_a_function_of_the_system() {
    let site = Site::new();
    let primary = site.primary(0).await;
    primary
        .sql(
            "CREATE FUNCTION public.trap(state text, value json) RETURNS text LANGUAGE plpgsql AS \
              $$BEGIN CREATE TABLE public.trapped(); RETURN state; END$$; \
              CREATE AGGREGATE public.json_agg(json) (sfunc = public.trap, stype = text)",
        )
        .await;
    let _standby = site.standby(1, &primary).await;
    primary
        .until("it sees its standby", 10, |probe| probe.walsenders.len() == 1)
        .await;
    assert_eq!(
        primary
            .number("SELECT count(*) FROM pg_class WHERE relname = 'trapped'")
            .await,
        0
    );
}

#[tokio::test]
async fn what_waits_for_a_restart_is_told() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let mut conf = primary.conf(None);
    conf.parameters
        .insert("max_wal_senders".to_owned(), "7".to_owned());
    conf.parameters.insert("work_mem".to_owned(), "7MB".to_owned());
    assert!(primary.postgres.write_conf(&conf).await.unwrap());
    primary.session.reload().await.unwrap();
    let probe = primary
        .until("the change is seen", 10, |probe| {
            !probe.pending_restart.is_empty()
        })
        .await;
    let waiting = ("max_wal_senders".to_owned(), "10".to_owned(), "7".to_owned());
    assert_eq!(probe.pending_restart, [waiting]);
}

#[tokio::test]
async fn a_way_that_is_closed_to_us_is_not_the_only_one() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let mut conf = primary.conf(None);
    let rules = [
        "local all all peer map=nobody",
        "host all all 127.0.0.0/8 scram-sha-256",
    ];
    conf.hba = Some(rules.map(str::to_owned).into());
    primary.postgres.write_conf(&conf).await.unwrap();
    primary.session.reload().await.unwrap();
    let fresh = matriarch::postgres::Session::new(&primary.postgres);
    until("the new rules hold", 10, async || {
        let rules = "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'peer'";
        primary.number(rules).await == 1
    })
    .await;
    until("an answer by the other way", 20, async || {
        fresh.probe().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_copy_streams() {
    let site = Site::new();
    let primary = site.primary(0).await;
    primary
        .sql("CREATE TABLE bulk AS SELECT repeat(i::text, 100) FROM generate_series(1, 20000) i")
        .await;
    let mut standby = site.server(1);
    let (progress, mut seen) = watch::channel(None);
    let watcher = tokio::spawn(async move {
        let mut all = Vec::new();
        while seen.changed().await.is_ok() {
            all.extend(seen.borrow_and_update().clone());
        }
        all
    });
    standby
        .postgres
        .base_backup(&primary.endpoint(), progress)
        .await
        .unwrap();
    let shown = watcher.await.unwrap();
    assert!(shown.last().is_some_and(|last| last.ends_with('%')), "{shown:?}");
    standby.follow(&primary).await;
    let probe = standby.probed().await;
    assert!(probe.in_recovery && probe.received.is_some() && probe.replayed.is_some());
    assert_eq!(probe.timeline, Some(Timeline(1)));
    assert_eq!(
        probe.sender_host.as_deref(),
        Some(primary.setup.listen_addresses.as_str())
    );
    let seen = primary
        .until(
            "it sees its standby stream",
            10,
            |probe| matches!(&probe.walsenders[..], [one] if one.state == "streaming"),
        )
        .await;
    let walsender = &seen.walsenders[0];
    assert_eq!(
        (walsender.application_name.as_str(), walsender.usename.as_str()),
        ("node-1", "replicator")
    );
    let mut times = Vec::new();
    for _ in 0..500 {
        times.push(timed(standby.session.probe()).await.0);
    }
    show("probe of a standby", times);
}

/// A connection for replication in this name that does not stream; ended when dropped.
fn idle_sender(primary: &Server, name: &str) -> tokio::process::Child {
    let url = format!(
        "host={} port={} user=replicator replication=true application_name={name}",
        primary.setup.listen_addresses, primary.setup.port
    );
    let mut psql = Command::new(plain::bin_dir().join("psql"));
    psql.arg(url).env("PGPASSWORD", PASSWORD).kill_on_drop(true);
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn who_is_to_be_primary_next_is_waited_for_until_it_streams() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let standby = site.standby(1, &primary).await;
    let (next, session) = (MemberName::from("Node-1"), primary.session.clone());
    until("its stream", 20, async || {
        session.await_stream(&next).await.is_ok()
    })
    .await;

    // Neither another one's stream nor a connection that does not stream is what it waits for.
    let _idle = idle_sender(&primary, "node-2");
    let client = primary.client().await;
    let count = async |what: &str| {
        let row = client
            .query_one(&format!("SELECT count(*) FROM {what}"), &[])
            .await;
        row.unwrap().get::<_, i64>(0)
    };
    let connected = "pg_stat_replication WHERE application_name = 'node-2' AND state = 'startup'";
    until("the connection", 10, async || count(connected).await == 1).await;
    let (ms, missing) = timed(session.await_stream(&"node-2".into())).await;
    assert!(matches!(missing, Err(PostgresError::Late { .. })), "{missing:?}");
    assert!((900.0..10_000.0).contains(&ms), "it gave up after {ms:.0} ms");

    // A stream that comes back meanwhile is seen. A machine that is too slow for it within the second may try again.
    let ours =
        "pg_stat_activity WHERE application_name = 'matriarch' AND query LIKE '%lower(application_name)%'";
    let has_looked = format!("{ours} AND state = 'idle'");
    let mut outcomes = Vec::new();
    while outcomes.len() < 5 && !matches!(outcomes.last(), Some(Ok(()))) {
        let before =
            || count("pg_stat_replication WHERE application_name = 'node-1' AND state = 'streaming'");
        until("the stream", 20, async || before().await == 1).await;
        until("the end of earlier looks", 10, async || count(ours).await == 0).await;
        let receives = |process: &processes::Process| process.title().contains("walreceiver");
        let of_standby = processes::of(standby.data_dir());
        let postmaster = of_standby.into_iter().find(receives).unwrap().parent;
        processes::freeze(postmaster);
        // Materialized: else the server may end sessions before it looks whose they are.
        let end = "WITH its AS MATERIALIZED (SELECT pid FROM pg_stat_replication WHERE application_name = 'node-1') \
             SELECT pg_terminate_backend(pid, 10000) FROM its";
        assert!(
            client.query_one(end, &[]).await.unwrap().get::<_, bool>(0),
            "its stream was ended"
        );
        let (session, next) = (session.clone(), next.clone());
        let waiting = tokio::spawn(async move { session.await_stream(&next).await });
        until("a look in vain", 10, async || {
            waiting.is_finished() || count(&has_looked).await == 1
        })
        .await;
        let early = waiting.is_finished();
        processes::thaw(postmaster);
        let outcome = waiting.await.unwrap();
        assert!(!early || outcome.is_err(), "there is nothing to be seen yet");
        outcomes.push(outcome);
    }
    let late = |outcome: &Result<(), PostgresError>| matches!(outcome, Err(PostgresError::Late { .. }));
    let last = outcomes.pop();
    assert!(
        matches!(last, Some(Ok(()))) && outcomes.iter().all(late),
        "{outcomes:?}, then {last:?}"
    );
}

#[tokio::test]
async fn slots_come_and_go() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let members = [MemberName::from("node-1"), MemberName::from("Node.2")];
    for _ in 0..2 {
        primary.session.ensure_slots(&members).await.unwrap();
    }
    let count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name IN ('node_1', 'node_2') AND restart_lsn IS NOT NULL";
    assert_eq!(primary.number(count).await, 2);
    let mut standby = site.server(1);
    standby.copy(&primary).await.unwrap();
    let mut conf = standby.conf(Some(&primary));
    conf.upstream.as_mut().unwrap().slot = Some("node_1".to_owned());
    standby.postgres.write_conf(&conf).await.unwrap();
    standby.start().await;
    let active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'node_1' AND active";
    until("the slot is used", 10, async || primary.number(active).await == 1).await;
    primary.session.drop_slots(&members, &[]).await.unwrap();
    assert_eq!(primary.number(count).await, 1, "a slot in use stays");

    // A standby's slot for another is taken along as far as it has replayed, and never back.
    let other = [MemberName::from("node-3")];
    standby.session.ensure_spare_slots(&other).await.unwrap();
    let place = "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = 'node_3'";
    let at = async || Lsn(standby.number(place).await.cast_unsigned());
    let made = at().await;
    primary.sql("CREATE TABLE more (i int)").await;
    let location = primary.probed().await.location.unwrap();
    standby
        .until("it has replayed everything", 10, |probe| {
            probe.replayed >= Some(location)
        })
        .await;
    let advance = async |to: Lsn| {
        let reached = [(other[0].clone(), to), (MemberName::from("nobody"), to)];
        standby.session.advance_slots(&reached).await.unwrap();
    };
    advance(location).await;
    assert_eq!(at().await, location);
    advance(made).await;
    assert_eq!(at().await, location, "back it does not go");
    advance(Lsn(location.0 + (1 << 40))).await;
    assert!(
        at().await.0 < location.0 + (1 << 20),
        "nor past what was replayed"
    );
    // One whose member has the same slot by another name stays.
    let twin = [MemberName::from("node.3")];
    standby.session.drop_slots(&other, &twin).await.unwrap();
    assert!(at().await >= location);
    standby.session.drop_slots(&other, &[]).await.unwrap();
    let left = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'node_3'";
    assert_eq!(standby.number(left).await, 0);
}

/// Kills the primary, promotes the first standby to timeline 3, re-points the second one.
async fn fail_over(times: &mut [Vec<f64>; 3]) {
    let site = Site::new();
    let mut old = site.primary(0).await;
    let (new, other) = (site.standby(1, &old).await, site.standby(2, &old).await);
    old.sql("CREATE TABLE rows (i int); INSERT INTO rows VALUES (1)")
        .await;
    let target = old.probed().await.location;
    for standby in [&new, &other] {
        standby
            .until("it has replayed everything", 10, |probe| probe.replayed >= target)
            .await;
    }
    let client = new.client().await;
    old.kill();
    let promotion = async {
        new.postgres.reserve_timelines(Timeline(1), Timeline(3)).unwrap();
        new.session.promote().await.unwrap();
        until("the first row", 10, async || {
            client.batch_execute("INSERT INTO rows VALUES (2)").await.is_ok()
        })
        .await;
    };
    times[0].push(timed(promotion).await.0);
    let probe = new.probed().await;
    assert_eq!((probe.in_recovery, probe.timeline), (false, Some(Timeline(3))));
    let fork = new.postgres.fork_of(Timeline(3)).unwrap();
    assert_eq!((fork.timeline, fork.parent), (Timeline(3), Timeline(1)));
    assert!(new.postgres.fork_of(Timeline(2)).is_none());
    let started = other.probed().await.start_time;
    let repointing = async {
        other.configure(Some(&new)).await;
        other.session.reload().await.unwrap();
        let here = new.setup.listen_addresses.as_str();
        other
            .until("it streams from the new primary", 20, |probe| {
                probe.is_streaming() && probe.sender_host.as_deref() == Some(here)
            })
            .await
    };
    let (took, probe) = timed(repointing).await;
    times[1].push(took);
    assert_eq!(probe.start_time, started, "no restart");
    let target = new.probed().await.location;
    let follows =
        |probe: &matriarch::postgres::Probe| probe.timeline == Some(Timeline(3)) && probe.replayed >= target;
    other.until("it has what was written since", 10, follows).await;
    times[2].push(timed(new.session.checkpoint()).await.0);
    assert_eq!(other.number("SELECT count(*) FROM rows").await, 2);
    let learned: Option<Fork> = other.postgres.fork_of(Timeline(3));
    assert_eq!(learned, Some(fork));
}

#[tokio::test]
async fn a_promotion_to_a_reserved_timeline_is_followed_by_reload() {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..5 {
        fail_over(&mut times).await;
    }
    let [promotion, repointing, checkpoint] = times;
    show("promotion until the first row", promotion);
    let usual = show("re-pointing until the stream", repointing);
    show("checkpoint after it", checkpoint);
    assert!(
        usual < 4_000.0,
        "PostgreSQL's own five seconds were waited for: {usual:.0} ms"
    );
}

#[tokio::test]
async fn a_reservation_that_was_not_used_is_taken_back() {
    let site = Site::new();
    let primary = site.primary(0).await;
    let mut standby = site.standby(1, &primary).await;
    standby
        .postgres
        .reserve_timelines(Timeline(1), Timeline(4))
        .unwrap();
    let reserved = standby.data_dir().join("pg_wal/00000003.history");
    assert!(reserved.exists());
    standby.configure(Some(&primary)).await;
    assert!(reserved.exists(), "the running server may be using it");
    standby.stop().await;
    // The reason for all this: PostgreSQL takes the reserved number for the timeline to follow, and then finds
    // nothing of its own on it.
    standby.spawn();
    let confused =
        |log: &str| log.contains("unexpected timeline ID 1") || log.contains("is not a child of this");
    until("the server is confused", 20, async || {
        confused(&std::fs::read_to_string(standby.log()).unwrap())
    })
    .await;
    assert!(standby.session.probe().await.is_err());
    standby.kill();
    standby.follow(&primary).await;
    assert!(!reserved.exists());
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_comes_back() {
    let site = Site::new();
    let server = site.primary(0).await;
    server.probed().await;
    // The postmaster and our own backend; the others end by themselves.
    let mut backends = Vec::new();
    until("the end of earlier sessions", 20, async || {
        backends = processes::of(server.data_dir());
        backends.retain(|process| process.title().ends_with(" idle"));
        backends.len() == 1
    })
    .await;
    let pids = [backends[0].parent, backends[0].pid];
    for pid in &pids {
        processes::freeze(*pid);
    }
    let from = boot_ns();
    let answer = server.session.probe().await;
    assert!(matches!(answer, Err(PostgresError::Late { .. })), "{answer:?}");
    assert!(Duration::from_nanos(boot_ns() - from) < Duration::from_secs(10));
    for pid in &pids {
        processes::thaw(*pid);
    }
    server.until("it answers again", 10, |_| true).await;
}

#[tokio::test]
async fn lines_for_a_new_cluster_come_behind_initdbs_own() {
    let site = Site::new();
    let mut server: Server = site.server(0);
    server
        .postgres
        .initdb(&["--auth-local=trust".to_owned()])
        .await
        .unwrap();
    let mut conf = server.conf(None);
    conf.hba = None;
    server.postgres.write_conf(&conf).await.unwrap();
    server
        .postgres
        .append_hba(&["host all all 127.0.0.0/8 scram-sha-256".to_owned()])
        .unwrap();
    server.start().await;
    server.client().await;
}
