//! keepalived with the file in configs/ beside three machines of our own: the address is where the probe says 200.

use crate::{FAILOVER_S, RETURN_S, arrives_at, through};
use matriarch_chaos::Options;
use matriarch_chaos::addresses::{POSTGRES_PORT, REST_PORT};
use matriarch_chaos::chaos::arena::{Arena, NODES, in_arena};
use matriarch_chaos::companions::{Running, program};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
/// A failover, a check every second, and the three advertisements that another keepalived waits for.
const MOVE_S: u64 = FAILOVER_S + 10;

/// One on each node's machine; they end with this.
fn start(program: &Path, arena: &Arena) -> Vec<Running> {
    let shipped = include_str!("../../../configs/keepalived.conf");
    assert!(shipped.contains("http://127.0.0.1:8008/primary") && shipped.contains("10.0.0.100/24"));
    (0..NODES)
        .map(|i| {
            let node = &arena.herd.nodes[i];
            let text = shipped
                .replace(
                    "http://127.0.0.1:8008",
                    &format!("http://{}:{REST_PORT}", node.ip),
                )
                .replace("10.0.0.100/24", &format!("{ADDRESS}/24"));
            let dir = arena.herd.dir().join(format!("keepalived{i}"));
            std::fs::create_dir(&dir).unwrap();
            let file = dir.join("keepalived.conf");
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new(program);
            command
                .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
                .arg("--use-file")
                .arg(&file)
                .arg("--pid")
                .arg(dir.join("pid"))
                .arg("--vrrp_pid")
                .arg(dir.join("vrrp.pid"))
                .stdin(Stdio::null())
                .stdout(std::fs::File::create(dir.join("log")).unwrap())
                .stderr(Stdio::null());
            Running(arena.network.node(i).spawn(command).unwrap())
        })
        .collect()
}

fn has(arena: &Arena, node: usize) -> bool {
    let listed = arena
        .network
        .node(node)
        .run("ip", &["-o", "addr", "show", "dev", "eth0"]);
    listed.unwrap().contains(&format!(" {ADDRESS}/"))
}

async fn await_at(arena: &Arena, node: usize) {
    let config = through(&arena.herd, ADDRESS, POSTGRES_PORT);
    arena
        .herd
        .until("the address is at the primary alone", MOVE_S, async || {
            (0..NODES).all(|i| has(arena, i) == (i == node)) && arrives_at(&arena.herd, &config, node).await
        })
        .await;
}

#[test]
fn keepalived_with_our_probe_moves_the_address() {
    let (Some(program), Some(_)) = (program("keepalived"), program("curl")) else {
        return;
    };
    let options = Options {
        everywhere: true,
        ..Options::default()
    };
    in_arena(options, "keepalived moves the address", None, async |arena| {
        arena.grow().await.unwrap();
        let _all = start(&program, arena);
        let first = arena.herd.await_primary(FAILOVER_S, |_| true).await;
        await_at(arena, first).await;
        let second = arena.herd.others(first)[0];
        arena.herd.switch_over(first, second).await;
        await_at(arena, second).await;
        arena.herd.nodes[second].kill_whole();
        let third = arena.herd.await_primary(FAILOVER_S, |node| node != second).await;
        await_at(arena, third).await;
        arena.herd.nodes[second].start();
        arena.herd.await_whole(RETURN_S).await;
        await_at(arena, third).await;
    });
}
