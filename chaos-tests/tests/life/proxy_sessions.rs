//! Sessions behind the proxy go on at the next primary without noticing.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Node, Options};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, Config, Error, NoTls};

const RW: u16 = 15_000;
/// An answer comes within this time, also across a switchover.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(auth_file: &Path) -> Options {
    Options {
        sections: format!(
            "proxy:\n  listen: '{{ip}}'\n  rw: {RW}\n  ro: 15001\n  hold_timeout: 30s\n  auth_file: {}\n",
            auth_file.display()
        ),
        ..Options::default()
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
async fn sessions_notice_nothing_of_a_switchover() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let herd = Herd::grown(3, options(file.path())).await;
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
    let body = format!(
        r#"{{"leader": "{}", "candidate": "{}"}}"#,
        herd.nodes[old].name, herd.nodes[to].name
    );
    assert_eq!(herd.nodes[old].order("POST", "/switchover", &body).await.0, 200);
    herd.await_primary(FAILOVER_S, |node| node == to).await;
    rest_as_they_were(&sessions).await;
    stop.store(true, Ordering::SeqCst);
    for client in at_work {
        let longest = client.await.unwrap().expect("a session at work was cut");
        eprintln!("longest answer in the switchover {longest} ms");
    }
    let error = listener.batch_execute("SELECT 1").await.expect_err("it listened");
    eprintln!("the session that listened: {error:?}");
    herd.await_whole(RETURN_S).await;
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
