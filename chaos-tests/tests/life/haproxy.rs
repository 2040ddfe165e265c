//! HAProxy itself, with the file in configs/ and with the lines that people already have, in front of three nodes.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::addresses::{POSTGRES_PORT, REST_PORT};
use matriarch_chaos::{Herd, Node};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// A failover as seen through checks every three seconds of which three must fail, twice over.
const SLOW_CHECKS_S: u64 = FAILOVER_S + 20;

const CONNECT: Duration = Duration::from_secs(2);

/// What the manuals of ten years told people to write.
const HABITS: &str = "
listen habit-primary
    bind *:5100
    option httpchk OPTIONS /master
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
    server node1 10.0.0.11:5432 maxconn 100 check port 8008
    server node2 10.0.0.12:5432 maxconn 100 check port 8008
    server node3 10.0.0.13:5432 maxconn 100 check port 8008

listen habit-get
    bind *:5101
    option httpchk GET /primary
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
    server node1 10.0.0.11:5432 check port 8008
    server node2 10.0.0.12:5432 check port 8008
    server node3 10.0.0.13:5432 check port 8008

listen habit-replicas
    bind *:5102
    option httpchk
    http-check connect
    http-check send meth GET uri /replica ver HTTP/1.1 hdr Host patroni
    http-check expect status 200
    default-server inter 1s fall 2 rise 1
    server node1 10.0.0.11:5432 check port 8008
    server node2 10.0.0.12:5432 check port 8008
    server node3 10.0.0.13:5432 check port 8008
";

struct Balancer {
    process: Child,
    at: Ipv4Addr,
}

impl Balancer {
    fn start(program: &Path, herd: &Herd) -> Self {
        let shipped = include_str!("../../../configs/haproxy.cfg");
        let block = herd.nodes[0].ip.octets();
        let at = Ipv4Addr::new(block[0], block[1], block[2], 100);
        let mut text = format!("{shipped}\n{HABITS}");
        for (i, node) in herd.nodes.iter().enumerate() {
            let written = format!("10.0.0.1{}:5432", i + 1);
            text = text.replace(&written, &format!("{}:{POSTGRES_PORT}", node.ip));
        }
        let text = text
            .replace("check port 8008", &format!("check port {REST_PORT}"))
            .replace("bind *:", &format!("bind {at}:"));
        let file = herd.dir().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let process = Command::new(program)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, at }
    }

    /// A session through this port, and whether its server is a standby.
    async fn connect(&self, node: &Node, port: u16) -> Option<(Client, bool)> {
        let direct = node.client_config();
        let mut through = tokio_postgres::Config::new();
        through
            .host(self.at.to_string())
            .port(port)
            .user(direct.get_user()?)
            .password(direct.get_password()?)
            .dbname("postgres")
            .connect_timeout(CONNECT);
        let (client, connection) = through.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
        let standby = row.get(0);
        Some((client, standby))
    }

    async fn leads_to(&self, node: &Node, port: u16, standby: bool) -> bool {
        matches!(self.connect(node, port).await, Some((_, found)) if found == standby)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let found = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"];
    found.iter().map(PathBuf::from).find(|path| path.exists())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_follows_a_failover_with_our_file_and_with_those_people_have() {
    let Some(program) = program() else {
        println!("skipped: HAProxy is not installed (.ci/prepare chaos installs it)");
        return;
    };
    let mut herd = Herd::three().await;
    let old = herd.await_whole(RETURN_S).await;
    let balancer = Balancer::start(&program, &herd);
    let guide = herd.others(old)[0];
    for (port, standby) in [
        (5000, false),
        (5100, false),
        (5101, false),
        (5001, true),
        (5102, true),
    ] {
        let what = format!("port {port} leads to the right server");
        herd.until(&what, SLOW_CHECKS_S, async || {
            balancer.leads_to(&herd.nodes[guide], port, standby).await
        })
        .await;
    }
    let (session, _) = balancer.connect(&herd.nodes[guide], 5000).await.unwrap();
    herd.nodes[old].kill_whole();
    herd.await_primary(FAILOVER_S, |node| node != old).await;
    for port in [5000, 5101, 5100] {
        let what = format!("port {port} leads to the new primary");
        herd.until(&what, SLOW_CHECKS_S, async || {
            balancer.leads_to(&herd.nodes[guide], port, false).await
        })
        .await;
    }
    assert!(
        session.query_one("SELECT 1", &[]).await.is_err(),
        "a session of the deposed primary lives on"
    );
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    herd.until("port 5001 leads to a standby", SLOW_CHECKS_S, async || {
        balancer.leads_to(&herd.nodes[guide], 5001, true).await
    })
    .await;
}
