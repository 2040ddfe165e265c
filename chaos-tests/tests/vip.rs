//! The virtual address between three machines of our own: it is where the primary is, and the neighbours know.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::chaos::arena::{Arena, in_arena};
use matriarch_chaos::{Options, processes};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use tokio_postgres::NoTls;

const ADDRESS: &str = "10.77.0.200";
/// Of the built-in proxy, for writers.
const PROXY_PORT: u16 = 5_000;
const ADDRESS_V6: &str = "fd77::200";
/// Ten times what a failover by an ended lease may take (ttl + 0.3 s, ttl being 6 s at most).
const FAILOVER_S: u64 = 63;
const RETURN_S: u64 = 90;
/// Attempts at what a busy machine may spoil: a proxy that is silent for a moment gives the address up rightly.
const ATTEMPTS: usize = 3;

fn options(address: &str) -> Options {
    Options {
        sections: format!("vip:\n  address: {address}\n  interface: eth0\n"),
        everywhere: true,
        ..Options::calm()
    }
}

/// Whether a node's machine has the address.
fn has(arena: &Arena, node: usize, address: &str) -> bool {
    let listed = arena
        .network
        .node(node)
        .run("ip", &["-o", "addr", "show", "dev", "eth0"]);
    listed.unwrap().contains(&format!(" {address}/"))
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
fn neighbour(address: &str) -> String {
    let output = Command::new("ip")
        .args(["neigh", "show", address])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let hardware = text.split_once("lladdr ").map(|(_, rest)| rest);
    hardware
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default()
        .to_owned()
}

/// The node that a client finds at this port of the address, if it may write there.
async fn found(arena: &Arena, port: u16) -> Option<String> {
    let direct = arena.herd.nodes[0].client_config();
    let mut through = tokio_postgres::Config::new();
    through
        .host(ADDRESS)
        .port(port)
        .user(direct.get_user()?)
        .password(direct.get_password()?)
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(2));
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
            (0..3).all(|i| has(arena, i, ADDRESS) == (i == node))
                && found(arena, POSTGRES_PORT).await.as_deref() == Some(&data)
        })
        .await;
    let hardware = hardware(arena, node);
    arena
        .herd
        .until(
            "the neighbours know where the address is",
            FAILOVER_S,
            async || neighbour(ADDRESS) == hardware,
        )
        .await;
}

#[test]
fn the_address_is_where_the_primary_is() {
    in_arena(
        options(&format!("{ADDRESS}/24")),
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
            assert!(has(arena, second, ADDRESS));
            arena.herd.nodes[second].start();
            arena.herd.await_whole(RETURN_S).await;
            let third = arena.herd.await_primary(FAILOVER_S, |_| true).await;
            await_at(arena, third).await;
            // Everything of the node is killed and nobody is left to remove the address: who comes back does.
            arena.herd.nodes[third].kill_whole();
            arena.herd.await_primary(FAILOVER_S, |node| node != third).await;
            assert!(has(arena, third, ADDRESS), "who removed it?");
            arena.herd.nodes[third].start();
            arena.herd.await_whole(RETURN_S).await;
            let last = arena.herd.await_primary(FAILOVER_S, |_| true).await;
            await_at(arena, last).await;
        },
    );
}

/// The one node that has the address; two never have.
fn bearer(arena: &Arena) -> Option<usize> {
    let all = || {
        (0..3)
            .filter(|node| has(arena, *node, ADDRESS))
            .collect::<Vec<usize>>()
    };
    let mut there = all();
    if there.len() > 1 {
        // It may have moved between two looks.
        there = all();
    }
    assert!(there.len() < 2, "the address is at nodes {there:?}");
    there.pop()
}

/// Waits until one of these nodes has the address and a client is led to the primary there.
async fn await_borne(arena: &Arena, fits: impl Fn(usize) -> bool) -> usize {
    let what = "the address is at one node, whose proxy leads to the primary";
    let borne = async || {
        let there = bearer(arena).filter(|node| fits(*node))?;
        found(arena, PROXY_PORT).await.map(|_| there)
    };
    let node = arena.herd.find(what, FAILOVER_S, borne).await;
    let hardware = hardware(arena, node);
    let what = "the neighbours know where the address is";
    let told = async || neighbour(ADDRESS) == hardware;
    arena.herd.until(what, FAILOVER_S, told).await;
    node
}

fn proxy_pid(arena: &Arena, node: usize) -> i32 {
    let all = processes::of(&arena.herd.nodes[node].dir);
    let proxy = all
        .iter()
        .find(|process| process.args.iter().any(|word| word == "proxy"));
    proxy.expect("the node's proxy runs").pid
}

#[test]
fn the_address_is_where_a_proxy_lives() {
    let mut options = options(&format!("{ADDRESS}/24"));
    options.sections.push_str("  role: proxy\nproxy: {}\n");
    in_arena(
        options,
        "the address is where a proxy lives",
        None,
        async |arena| {
            arena.grow().await.unwrap();
            let mut comes_back = 0;
            let second = loop {
                let first = await_borne(arena, |_| true).await;
                // The proxy hangs, and nobody else: its daemon gives the address up.
                let hung = proxy_pid(arena, first);
                processes::freeze(hung);
                await_borne(arena, |node| node != first).await;
                processes::thaw(hung);
                arena.herd.await_whole(RETURN_S).await;
                let now = await_borne(arena, |_| true).await;
                if now != first {
                    break now;
                }
                comes_back += 1;
                assert!(comes_back < ATTEMPTS, "it has no reason to come back");
            };
            // Everything of the node is killed and nobody is left to remove the address: the kernel does.
            arena.herd.nodes[second].kill_whole();
            let third = await_borne(arena, |node| node != second).await;
            arena.herd.nodes[second].start();
            arena.herd.await_whole(RETURN_S).await;
            // The daemon hangs: its proxy lives on, and its address ends with what the kernel was told.
            arena.herd.nodes[third].freeze_daemon();
            await_borne(arena, |node| node != third).await;
            arena.herd.nodes[third].thaw_daemon();
            arena.herd.await_whole(RETURN_S).await;
            await_borne(arena, |_| true).await;
        },
    );
}

/// A client that knows where the address is says nothing any more, and is told that it is elsewhere.
async fn moves_by_word_alone(arena: &mut Arena, address: &str) {
    arena.grow().await.unwrap();
    let first = arena.herd.await_primary(FAILOVER_S, |_| true).await;
    let knows = async |arena: &Arena, node: usize, asks: bool| {
        let hardware = hardware(arena, node);
        let known = async || {
            if asks {
                // Refused or not: the kernel has to know the neighbour to be told.
                let to = SocketAddr::new(address.parse().unwrap(), POSTGRES_PORT);
                let _ = TcpStream::connect_timeout(&to, Duration::from_secs(1));
            }
            has(arena, node, address) && neighbour(address) == hardware
        };
        let what = "the client knows the primary's machine";
        arena.herd.until(what, FAILOVER_S, known).await;
    };
    knows(arena, first, true).await;
    arena.herd.nodes[first].kill_whole();
    // As long as nobody is there to do it, the machine that was left behind keeps the address: an operator removes it.
    arena
        .network
        .node(first)
        .run("ip", &["link", "set", "eth0", "down"])
        .unwrap();
    let second = arena.herd.await_primary(FAILOVER_S, |node| node != first).await;
    knows(arena, second, false).await;
}

#[test]
fn an_ipv6_address_is_advertised() {
    let options = options(&format!("{ADDRESS_V6}/64"));
    in_arena(options, "an IPv6 address is advertised", None, async |arena| {
        let added = Command::new("ip")
            .args(["addr", "add", "fd77::100/64", "dev", "eth0", "nodad"])
            .status();
        assert!(added.unwrap().success());
        moves_by_word_alone(arena, ADDRESS_V6).await;
    });
}

/// The daemon runs as the user postgres and may do nothing but change addresses.
#[test]
fn the_right_to_administer_the_network_is_enough() {
    let options = Options {
        prefix: vec![
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--bounding-set=-all,+net_admin",
            "--inh-caps=-all,+net_admin",
            "--ambient-caps=-all,+net_admin",
        ],
        ..options(&format!("{ADDRESS}/24"))
    };
    in_arena(options, "CAP_NET_ADMIN is enough", None, async |arena| {
        moves_by_word_alone(arena, ADDRESS).await;
        let pid = arena
            .herd
            .nodes
            .iter()
            .find(|node| node.has_daemon())
            .unwrap()
            .daemon_pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let net_admin = 1_u64 << 12;
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = u64::from_str_radix(effective.unwrap().trim(), 16).unwrap();
        assert_eq!(effective, net_admin, "{status}");
    });
}
