//! What people already run keeps working: the real programs and drivers in front of nodes that change places.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

mod haproxy;
mod jdbc;
mod keepalived;
mod libpq;
mod notify;
mod pgbouncer;

use matriarch_chaos::{Herd, companions};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Ten times what a failover by an ended lease may take (ttl + 0.3 s, ttl being 6 s at most).
const FAILOVER_S: u64 = 63;
/// Thirty times what a node that returns may take to stream again (3 s): a disk that is busy with other work lets it wait.
const RETURN_S: u64 = 90;
/// A client that is not connected and answered within this time tries again.
const CONNECT: Duration = Duration::from_secs(2);

/// The address in front of a herd on loopback.
fn front(herd: &Herd) -> Ipv4Addr {
    companions::front(herd.nodes[0].ip)
}

/// How a client connects there, as superuser.
fn through(herd: &Herd, at: Ipv4Addr, port: u16) -> Config {
    let direct = herd.nodes[0].client_config();
    let mut config = Config::new();
    config
        .host(at.to_string())
        .port(port)
        .user(direct.get_user().unwrap())
        .password(direct.get_password().unwrap())
        .dbname("postgres")
        .connect_timeout(CONNECT);
    config
}

/// A session, with the node that it has come to and whether that is a standby. In one simple query: a pooler may give
/// each statement to another server.
async fn arrive(herd: &Herd, config: &Config) -> Option<(Client, usize, bool)> {
    let work = async {
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        let (node, standby) = place(herd, &client).await?;
        Some((client, node, standby))
    };
    tokio::time::timeout(CONNECT, work).await.ok()?
}

/// The same from one who tries again: the way is there, and somebody may be busy for a moment.
async fn come(herd: &Herd, config: &Config) -> (Client, usize, bool) {
    herd.find("a session", FAILOVER_S, async || arrive(herd, config).await)
        .await
}

/// The node that answers a session now, and whether it is a standby.
async fn place(herd: &Herd, client: &Client) -> Option<(usize, bool)> {
    let asked = "SELECT current_setting('data_directory'), pg_is_in_recovery()";
    let answer = client.simple_query(asked).await.ok()?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    let node = named(herd, row.get(0)?)?;
    Some((node, row.get(1)? == "t"))
}

/// The node with this data directory.
fn named(herd: &Herd, data_dir: &str) -> Option<usize> {
    herd.nodes
        .iter()
        .position(|node| node.data_dir().display().to_string() == data_dir)
}

/// Whether a new session arrives at this node.
async fn arrives_at(herd: &Herd, config: &Config, node: usize) -> bool {
    matches!(arrive(herd, config).await, Some((_, found, _)) if found == node)
}
