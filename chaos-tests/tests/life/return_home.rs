//! Nodes that were away come back: by streaming, by pg_rewind, or by a new copy.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, Writer, plain, processes, writer};
use std::os::unix::process::CommandExt;

/// What the daemon says when it rewinds its data.
const REWOUND: &str = "rewinding:";
/// What it says when it takes a new copy.
const COPIED: &str = "copying the data";

/// Kills the primary's node after rows that no standby has, and waits for its successor. Returns both.
async fn diverge(herd: &mut Herd) -> (usize, usize) {
    let old = herd.await_whole(RETURN_S).await;
    writer::prepare(herd).await;
    for node in herd.others(old) {
        herd.nodes[node].cut_stream().await;
    }
    herd.nodes[old]
        .sql("INSERT INTO judge SELECT -1, n FROM generate_series(1, 100) AS n")
        .await
        .unwrap();
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert_eq!(
        ghosts(herd, new).await,
        "0",
        "the fault did not happen: the rows reached a standby"
    );
    (old, new)
}

/// Rows that only the dead primary had.
async fn ghosts(herd: &Herd, node: usize) -> String {
    herd.nodes[node]
        .sql("SELECT count(*) FROM judge WHERE writer = -1")
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_primary_returns_with_rows_nobody_has_and_is_rewound() {
    let mut herd = Herd::three().await;
    let (old, new) = diverge(&mut herd).await;
    let logged = herd.nodes[old].log().len();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
    assert_eq!(
        ghosts(&herd, old).await,
        "0",
        "rows of the dead timeline are still there"
    );
    let said = herd.nodes[old].log_since(logged);
    assert!(said.contains(REWOUND), "it came back without pg_rewind:\n{said}");
    assert!(
        !said.contains(COPIED),
        "it was copied although a rewind is enough:\n{said}"
    );
    assert_eq!(
        herd.await_whole(RETURN_S).await,
        new,
        "the return moved the primary"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_primary_returns_at_once_and_streams() {
    let mut herd = Herd::three().await;
    let old = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[old].kill_whole();
    crowd.await_flow(&herd).await;
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
    herd.await_whole(RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_promoted_by_hand_on_a_timeline_nobody_agreed_on_is_copied_anew() {
    let mut herd = Herd::three().await;
    let (old, new) = diverge(&mut herd).await;
    let data_dir = herd.nodes[old].data_dir();
    // An operator starts it by hand: standby.signal lies there, so it is read-only until he insists.
    let options = "-c listen_addresses='' -c primary_conninfo=''";
    plain::start(&data_dir, options);
    plain::promote(&data_dir);
    let socket = herd.nodes[old].dir.join("socket").display().to_string();
    let port = matriarch_chaos::addresses::POSTGRES_PORT.to_string();
    let insert = "INSERT INTO judge SELECT -2, n FROM generate_series(1, 100) AS n";
    // The Debian package keeps psql with the server's programs.
    plain::run(
        "psql",
        &[
            "-h", &socket, "-p", &port, "-U", "postgres", "-d", "postgres", "-c", insert,
        ],
    );
    plain::stop(&data_dir);
    let logged = herd.nodes[old].log().len();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
    let foreign = herd.nodes[old]
        .sql("SELECT count(*) FROM judge WHERE writer < 0")
        .await
        .unwrap();
    assert_eq!(
        foreign, "0",
        "rows of a timeline nobody agreed on are still there"
    );
    let said = herd.nodes[old].log_since(logged);
    assert!(said.contains(COPIED), "it came back without a new copy:\n{said}");
    assert_eq!(herd.await_whole(RETURN_S).await, new);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_killed_and_returns_and_no_client_notices() {
    // It may be the one that leads the Raft group: another is elected long before the primary's lease ends.
    let mut herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let replica = herd.others(primary)[1];
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[replica].kill_whole();
    crowd.await_flow(&herd).await;
    herd.nodes[replica].start();
    herd.await_streaming(replica, RETURN_S).await;
    assert_eq!(crowd.writer.connections(), 1, "the writing client noticed");
    assert_eq!(herd.await_whole(RETURN_S).await, primary, "the primary moved");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicas_postmaster_is_killed_and_it_streams_again() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let replica = herd.others(primary)[0];
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[replica].postmaster_pid();
    herd.nodes[replica].kill_postmaster();
    herd.await_streaming(replica, RETURN_S).await;
    assert_ne!(herd.nodes[replica].postmaster_pid(), postmaster);
    assert_eq!(crowd.writer.connections(), 1, "the writing client noticed");
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_raft_directory_is_wiped_and_it_returns_as_another_voter() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    let wiped = herd.others(primary)[0];
    writer::prepare(&herd).await;
    let client = Writer::start(&herd);
    let shown = async || herd.nodes[wiped].explain("/raft/id").await;
    let id = herd.find("its Raft id", 20, shown).await;
    herd.nodes[wiped].kill_whole();
    herd.nodes[wiped].wipe_raft();
    herd.nodes[wiped].start();
    herd.await_streaming(wiped, RETURN_S).await;
    let shown = async || herd.nodes[wiped].explain("/raft/id").await;
    let new_id = herd.find("its Raft id", 20, shown).await;
    assert_ne!(
        new_id, id,
        "it came back under the id whose promises it has forgotten"
    );
    // Its vote counts again: with the third node gone it is one of the two that keep the primary writable.
    let third = herd.others(primary).into_iter().find(|i| *i != wiped).unwrap();
    herd.until("the new id among the voters", RETURN_S, async || {
        let voters = herd.nodes[primary].voters().await;
        voters.is_some_and(|all| all.len() == 3 && all.values().any(|id| *id == new_id))
    })
    .await;
    herd.nodes[third].kill_whole();
    client.await_flow(&herd, 300, FAILOVER_S).await;
    assert_eq!(client.connections(), 1, "the writing client noticed");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_postmaster_that_nobody_has_reaped_is_waited_for() {
    a_zombie(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_postmaster_that_nobody_ever_reaps_keeps_nobody_from_starting() {
    a_zombie(false).await;
}

async fn a_zombie(is_reaped: bool) {
    let mut herd = Herd::grown(1, Options::default()).await;
    herd.nodes[0].kill_whole();
    // A zombie of PostgreSQL's own user, as a slow init leaves it.
    let mut command = std::process::Command::new("true");
    if let Some((uid, gid)) = matriarch_chaos::herd::postgres_ids() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    let mut zombie = command.current_dir("/").spawn().unwrap();
    let socket = herd.nodes[0].dir.join("socket");
    let lock = socket.join(format!(
        ".s.PGSQL.{}.lock",
        matriarch_chaos::addresses::POSTGRES_PORT
    ));
    for file in [herd.nodes[0].data_dir().join("postmaster.pid"), lock] {
        let old = std::fs::read_to_string(&file).unwrap();
        let (_, rest) = old.split_once('\n').unwrap();
        std::fs::write(&file, format!("{}\n{rest}", zombie.id())).unwrap();
    }
    let pid = i32::try_from(zombie.id()).unwrap();
    herd.until("the witness: a zombie", 10, async || !processes::is_alive(pid))
        .await;
    let mark = herd.nodes[0].log().len();
    herd.nodes[0].start();
    herd.until("the daemon waits for the dead postmaster", 30, async || {
        herd.nodes[0]
            .log_since(mark)
            .contains("waiting until the dead postmaster")
    })
    .await;
    if is_reaped {
        zombie.wait().unwrap();
    }
    herd.await_primary(FAILOVER_S, |_| true).await;
    zombie.wait().unwrap();
    let log = herd.nodes[0].log_since(mark);
    assert!(!log.contains("already exists"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_not_consistent_yet_when_the_primary_changes_follows_the_new_one() {
    let options = Options {
        ttl: 15.0,
        ..Options::default()
    };
    let mut herd = Herd::grown(3, options).await;
    let (old, _) = herd.await_leader_elsewhere(30).await;
    let late = herd.others(old)[0];
    // Its recovery begins in one segment, and has to reach into the next one: a dropped table forces that.
    for (node, statement) in [
        (old, "CHECKPOINT"),
        (late, "CHECKPOINT"),
        (old, "CREATE TABLE short_lived (n int)"),
        (old, "SELECT pg_switch_wal()"),
        (old, "DROP TABLE short_lived"),
    ] {
        herd.nodes[node].sql(statement).await.unwrap();
        herd.await_streaming(late, RETURN_S).await;
    }
    let newest = "SELECT pg_walfile_name(pg_current_wal_lsn())";
    let newest = herd.nodes[old].sql(newest).await.unwrap();
    herd.nodes[late].kill_whole();
    std::fs::remove_file(herd.nodes[late].data_dir().join("pg_wal").join(&newest)).unwrap();
    herd.nodes[old].kill_whole();
    let mark = herd.nodes[late].log().len();
    herd.nodes[late].start();
    // It starts while the dead one's lease runs, and cannot answer anybody.
    herd.until("a standby of the dead primary", 15, async || {
        herd.nodes[late].log_since(mark).contains("entering standby mode")
            && herd.nodes[late].postmaster_pid().is_some()
    })
    .await;
    assert_eq!(herd.primary().await, None, "the lease was over too early");
    herd.await_primary(FAILOVER_S, |i| i != old && i != late).await;
    herd.await_streaming(late, RETURN_S).await;
}
