//! What sessions behind the proxy are told and where they go on: moved without noticing, never told of a commit too early.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Node, Options, writer};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Config, Error, NoTls};

const RW: u16 = 15_000;
/// An answer that is held until a standby has it, or the session's end, comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who writes the rows of drivers that come through the proxies, and of those that go past them.
const THROUGH: i32 = 77;
const PAST: i32 = 78;
/// When a driver sends a request to cancel.
const TIMEOUT: Duration = Duration::from_millis(300);

fn options(auth_file: Option<&Path>, synchronous_mode: Option<&'static str>) -> Options {
    let mut sections = format!("proxy:\n  listen: '{{ip}}'\n  rw: {RW}\n  ro: 15001\n  hold_timeout: 30s\n");
    if let Some(file) = auth_file {
        sections.push_str(&format!("  auth_file: {}\n", file.display()));
    }
    Options {
        sections,
        ..synchronous_mode.map_or_else(Options::calm, Options::synchronous)
    }
}

/// How a client connects to this node's proxy.
fn through(node: &Node) -> Config {
    let direct = node.client_config();
    let mut config = Config::new();
    config
        .host(node.ip.to_string())
        .port(RW)
        .user("postgres")
        .password(direct.get_password().expect("a password"))
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(2));
    config
}

async fn session(node: &Node) -> Result<Client, Error> {
    let (client, connection) = through(node).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn listening(herd: &Herd) {
    herd.until("every proxy leads to the primary", 30, async || {
        for node in &herd.nodes {
            let led = tokio::time::timeout(Duration::from_secs(1), session(node)).await;
            if !matches!(led, Ok(Ok(_))) {
                return false;
            }
        }
        true
    })
    .await;
}

/// A session with a setting and a statement of its own, which rests.
async fn settled(node: &Node, number: usize) -> (Client, tokio_postgres::Statement) {
    let client = session(node).await.unwrap();
    client
        .batch_execute(&format!("SET app.number = '{number}'"))
        .await
        .unwrap();
    let statement = client
        .prepare("SELECT current_setting('app.number') || ' ' || $1::text, pg_is_in_recovery()")
        .await
        .unwrap();
    (client, statement)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_rest_notice_nothing_of_a_switchover_nor_of_a_failover() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut herd = Herd::grown(3, options(Some(file.path()), None)).await;
    let old = herd.await_whole(RETURN_S).await;
    let password = herd.nodes[old].client_config().get_password().unwrap().to_vec();
    let password = String::from_utf8(password).unwrap().replace('"', "\"\"");
    std::fs::write(file.path(), format!("\"postgres\" \"{password}\"\n")).unwrap();
    listening(&herd).await;
    // The file is read again within a moment, and long before a switchover is over.
    let (to, third) = (herd.others(old)[0], herd.others(old)[1]);
    let mut sessions = Vec::new();
    for number in 0..12 {
        sessions.push(settled(&herd.nodes[[to, third][number % 2]], number).await);
    }
    let listener = session(&herd.nodes[to]).await.unwrap();
    listener.batch_execute("LISTEN x").await.unwrap();
    // Six of them are at work, one short transaction after the other.
    let stop = Arc::new(AtomicBool::new(false));
    let mut at_work = Vec::new();
    for (number, (client, statement)) in sessions.drain(..6).enumerate() {
        let stop = stop.clone();
        at_work.push(tokio::spawn(async move {
            let mut longest = 0;
            while !stop.load(Ordering::SeqCst) {
                let begun = matriarch::clock::boot_ns();
                let row = client.query_one(&statement, &[&"x"]).await?;
                longest = longest.max((matriarch::clock::boot_ns() - begun) / 1_000_000);
                assert_eq!(row.get::<_, String>(0), format!("{number} x"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, Error>(longest)
        }));
    }
    herd.switch_over(old, to).await;
    herd.await_primary(FAILOVER_S, |node| node == to).await;
    rest_as_they_were(&sessions).await;
    stop.store(true, Ordering::SeqCst);
    for client in at_work {
        let longest = client.await.unwrap().expect("a session at work was cut");
        eprintln!("longest answer in the switchover {longest} ms");
    }
    let error = listener.batch_execute("SELECT 1").await.expect_err("it listened");
    eprintln!("the session that listened: {error:?}");
    herd.until(
        "moved sessions are counted, and one that stayed",
        20,
        async || {
            let mut moved = 0;
            for node in &herd.nodes {
                moved += counted(node, "matriarch_proxy_moved_total{").await;
            }
            moved >= 12 && counted(&herd.nodes[to], "reason=\"listens\"").await == 1
        },
    )
    .await;
    herd.await_whole(RETURN_S).await;
    // A primary that dies takes no session along that rests behind another node's proxy.
    let survivor = third;
    let mut rested = Vec::new();
    for number in 0..4 {
        rested.push(settled(&herd.nodes[survivor], number).await);
    }
    // One that is asked something at that moment may have changed something; one in a transaction surely has not.
    let asking = session(&herd.nodes[survivor]).await.unwrap();
    let asked = tokio::spawn(async move { asking.batch_execute("SELECT pg_sleep(60)").await });
    let open = session(&herd.nodes[survivor]).await.unwrap();
    open.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let sleeps =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    herd.until("it is asked", 20, async || {
        herd.nodes[to].sql(sleeps).await.as_deref() == Ok("1")
    })
    .await;
    herd.nodes[to].kill_whole();
    let told = tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("told in time")
        .unwrap();
    let error = told.expect_err("its server is gone");
    assert_eq!(error.code().map(|code| code.code()), Some("40003"), "{error:?}");
    // The driver may have read the words before it is asked the next time.
    let error = open
        .batch_execute("SELECT 1")
        .await
        .expect_err("its server is gone");
    let code = error.code().map(|code| code.code().to_owned());
    assert!(matches!(code.as_deref(), None | Some("57P01")), "{error:?}");
    herd.await_primary(FAILOVER_S, |node| node != to).await;
    let outcome = tokio::time::timeout(PATIENCE, rested[0].0.query_one(&rested[0].1, &[&"y"])).await;
    let row = outcome.expect("an answer in time").expect("no error");
    assert_eq!(row.get::<_, String>(0), "0 y");
    for (number, (client, statement)) in rested.iter().enumerate() {
        let row = client.query_one(statement, &[&"y"]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), format!("{number} y"));
    }
}

/// The metric whose line says this.
async fn counted(node: &Node, what: &str) -> u64 {
    let Some((_, text)) = node.get("/metrics").await else {
        return 0;
    };
    let line = text
        .lines()
        .find(|line| !line.starts_with('#') && line.contains(what));
    let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    value.unwrap_or_default()
}

/// Each goes on with its setting and its statement, at a server that accepts writes.
async fn rest_as_they_were(sessions: &[(Client, tokio_postgres::Statement)]) {
    for (number, (client, statement)) in sessions.iter().enumerate() {
        let row = tokio::time::timeout(PATIENCE, client.query_one(statement, &[&"x"])).await;
        let row = row.expect("an answer in time").expect("no error");
        assert_eq!(row.get::<_, String>(0), format!("{} x", number + 6));
        assert!(!row.get::<_, bool>(1));
    }
}

/// How a driver connects that goes past the proxies.
fn past(node: &Node) -> Config {
    let mut config = node.client_config();
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    config
}

/// What drivers with a timeout were told.
#[derive(Default)]
struct Told {
    writer: i32,
    stop: AtomicBool,
    acked: std::sync::Mutex<BTreeSet<i64>>,
    unknown: AtomicUsize,
    next: std::sync::atomic::AtomicI64,
}

/// Goes from node to node, beginning with this one.
async fn driver(nodes: Vec<Config>, at: usize, told: Arc<Told>) {
    let mut nodes = nodes.iter().cycle().skip(at);
    while !told.stop.load(Ordering::SeqCst) {
        let config = nodes.next().unwrap();
        let Ok((client, connection)) = config.connect(NoTls).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(connection);
        while !told.stop.load(Ordering::SeqCst) && !client.is_closed() {
            let seq = told.next.fetch_add(1, Ordering::SeqCst);
            let text = format!("INSERT INTO judge VALUES ({}, {seq})", told.writer);
            let mut answer = std::pin::pin!(client.batch_execute(&text));
            let in_time = tokio::time::timeout(TIMEOUT, &mut answer).await;
            let answer = match in_time {
                Ok(answer) => Ok(answer),
                Err(_) => {
                    let token = client.cancel_token();
                    let _ = tokio::time::timeout(Duration::from_secs(1), token.cancel_query(NoTls)).await;
                    tokio::time::timeout(PATIENCE, answer).await
                }
            };
            match answer {
                Ok(Ok(())) => drop(told.acked.lock().unwrap().insert(seq)),
                Ok(Err(error)) if error.code().is_some_and(|code| code.code() == "40003") => {
                    told.unknown.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_of_a_commit_that_a_failover_takes_back() {
    // Standbys that stall for a second are not given up: else the primary would rightly go on alone, and be awaited.
    let patient = options(None, Some("quorum")).with("synchronous_standby_timeout: 60");
    let mut herd = Herd::grown(3, patient).await;
    let mut primary = herd.await_whole(RETURN_S).await;
    writer::prepare(&herd).await;
    listening(&herd).await;
    let told = Arc::new(Told {
        writer: THROUGH,
        ..Told::default()
    });
    // What these are told shows that the storm has taken commits back.
    let naked = Arc::new(Told {
        writer: PAST,
        ..Told::default()
    });
    let mut drivers = Vec::new();
    for at in 0..6 {
        let nodes = herd.nodes.iter().map(through).collect();
        drivers.push(tokio::spawn(driver(nodes, at, told.clone())));
    }
    for at in 0..2 {
        let nodes = herd.nodes.iter().map(past).collect();
        drivers.push(tokio::spawn(driver(nodes, at, naked.clone())));
    }
    for round in 0..2 {
        let flowing = told.acked.lock().unwrap().len();
        herd.until("rows flow", 40, async || {
            told.acked.lock().unwrap().len() > flowing + 20
        })
        .await;
        let others = herd.others(primary);
        let frozen: Vec<_> = others
            .iter()
            .map(|node| (*node, herd.nodes[*node].freeze_receiver()))
            .collect();
        // Commits wait, and are cancelled: by drivers through the proxy, and by an operator beside it.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        herd.until("commits wait", 20, async || {
            herd.nodes[primary]
                .sql(waiting)
                .await
                .is_ok_and(|count| count != "0")
        })
        .await;
        tokio::time::sleep(2 * TIMEOUT).await;
        let cancel =
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let cancelled = herd.nodes[primary].sql(cancel).await.unwrap();
        assert_ne!(cancelled, "0", "round {round}: nothing waited any more");
        tokio::time::sleep(TIMEOUT).await;
        herd.nodes[primary].kill_whole();
        for (node, pid) in frozen {
            herd.nodes[node].discard_receiver(pid);
        }
        let old = primary;
        primary = herd.await_primary(FAILOVER_S, |node| node != old).await;
        herd.nodes[old].start();
        herd.await_whole(RETURN_S).await;
    }
    for told in [&told, &naked] {
        told.stop.store(true, Ordering::SeqCst);
    }
    for driver in drivers {
        driver.await.unwrap();
    }
    let primary = herd.await_primary(FAILOVER_S, |_| true).await;
    let lost = lost(&herd.nodes[primary], &told).await;
    let naked = self::lost(&herd.nodes[primary], &naked).await;
    let (acked, unknown) = (
        told.acked.lock().unwrap().len(),
        told.unknown.load(Ordering::SeqCst),
    );
    eprintln!(
        "{acked} rows acknowledged, {unknown} told as unknown; past the proxy {} lost",
        naked.len()
    );
    assert!(lost.is_empty(), "told as committed and gone: {lost:?}");
    assert!(
        !naked.is_empty(),
        "nothing was taken back: the test has shown nothing"
    );
    assert!(unknown > 0, "nothing was in doubt: the test has shown nothing");
}

/// Rows that these drivers were told of and that are gone.
async fn lost(primary: &Node, told: &Told) -> Vec<i64> {
    let rows = format!(
        "SELECT string_agg(seq::text, ' ') FROM judge WHERE writer = {}",
        told.writer
    );
    let text = primary.sql(&rows).await.unwrap();
    let there: BTreeSet<i64> = text
        .split_whitespace()
        .filter_map(|seq| seq.parse().ok())
        .collect();
    let acked = told.acked.lock().unwrap();
    acked.difference(&there).copied().collect()
}
