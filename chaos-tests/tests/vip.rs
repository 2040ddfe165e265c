//! The virtual address between three machines of our own: it is where the primary is, and the neighbours know.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch_chaos::Options;
use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::chaos::arena::{Arena, in_arena};
use std::process::Command;
use tokio_postgres::NoTls;

const ADDRESS: &str = "10.77.0.200";
/// Ten times what a failover by an ended lease may take (ttl + 0.3 s).
const FAILOVER_S: u64 = 23;
const RETURN_S: u64 = 30;

fn options() -> Options {
    Options {
        sections: format!("vip:\n  address: {ADDRESS}/24\n  interface: eth0\n"),
        everywhere: true,
        ..Options::default()
    }
}

/// Whether a node's machine has the address.
fn has(arena: &Arena, node: usize) -> bool {
    let listed = arena
        .network
        .node(node)
        .run("ip", &["-o", "addr", "show", "dev", "eth0"]);
    listed.unwrap().contains(&format!(" {ADDRESS}/"))
}

fn hardware(arena: &Arena, node: usize) -> String {
    let listed = arena
        .network
        .node(node)
        .run("ip", &["-o", "link", "show", "dev", "eth0"])
        .unwrap();
    let (_, rest) = listed.split_once("link/ether ").expect("an Ethernet device");
    rest.split(' ').next().unwrap().to_owned()
}

/// Where the clients' machine believes the address to be.
fn neighbour() -> String {
    let output = Command::new("ip")
        .args(["neigh", "show", ADDRESS])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let hardware = text.split_once("lladdr ").map(|(_, rest)| rest);
    hardware
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default()
        .to_owned()
}

/// The node that a client finds at the address, if it may write there.
async fn found(arena: &Arena) -> Option<String> {
    let direct = arena.herd.nodes[0].client_config();
    let mut through = tokio_postgres::Config::new();
    through
        .host(ADDRESS)
        .port(POSTGRES_PORT)
        .user(direct.get_user()?)
        .password(direct.get_password()?)
        .dbname("postgres")
        .connect_timeout(std::time::Duration::from_secs(1));
    let (client, connection) = through.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), current_setting('data_directory')",
            &[],
        )
        .await
        .ok()?;
    (!row.get::<_, bool>(0)).then(|| row.get(1))
}

/// Waits until exactly this node has the address and a client is served there.
async fn await_at(arena: &Arena, node: usize) {
    let data = arena.herd.nodes[node].data_dir().display().to_string();
    arena
        .herd
        .until("the address is at the primary alone", FAILOVER_S, async || {
            (0..3).all(|i| has(arena, i) == (i == node)) && found(arena).await.as_deref() == Some(&data)
        })
        .await;
    let hardware = hardware(arena, node);
    arena
        .herd
        .until(
            "the neighbours know where the address is",
            FAILOVER_S,
            async || neighbour() == hardware,
        )
        .await;
}

#[test]
fn the_address_is_where_the_primary_is() {
    in_arena(
        options(),
        "the address is where the primary is",
        None,
        async |arena| {
            arena.grow().await.unwrap();
            let first = arena.herd.await_primary(FAILOVER_S, |_| true).await;
            await_at(arena, first).await;
            // The daemon hangs: the guard ends PostgreSQL, and its messenger takes the address away.
            arena.herd.nodes[first].freeze_daemon();
            let second = arena.herd.await_primary(FAILOVER_S, |node| node != first).await;
            await_at(arena, second).await;
            arena.herd.nodes[first].thaw_daemon();
            arena.herd.await_whole(RETURN_S).await;
            await_at(arena, second).await;
            // The daemon is killed and comes back within its lease: the address and its sessions stay.
            arena.herd.nodes[second].kill_daemon();
            assert!(has(arena, second));
            arena.herd.nodes[second].start();
            arena.herd.await_whole(RETURN_S).await;
            let third = arena.herd.await_primary(FAILOVER_S, |_| true).await;
            await_at(arena, third).await;
            // Everything of the node is killed and nobody is left to remove the address: who comes back does.
            arena.herd.nodes[third].kill_whole();
            arena.herd.await_primary(FAILOVER_S, |node| node != third).await;
            assert!(has(arena, third), "who removed it?");
            arena.herd.nodes[third].start();
            arena.herd.await_whole(RETURN_S).await;
            let last = arena.herd.await_primary(FAILOVER_S, |_| true).await;
            await_at(arena, last).await;
        },
    );
}
