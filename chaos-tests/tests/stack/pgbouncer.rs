//! pgBouncer with the file in configs/, in session and in transaction mode, in front of HAProxy and of the built-in proxy, and behind that.

use crate::haproxy;
use crate::{FAILOVER_S, RETURN_S, arrive, arrives_at, come, front, place, through};
use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::companions::{Running, program};
use matriarch_chaos::herd::{give_to_postgres, postgres_ids};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Options};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio_postgres::{Config, NoTls};

/// Of the built-in proxy, for writers.
const PROXY_PORT: u16 = 5_000;
/// For readers.
const READERS_PORT: u16 = 5_001;
/// Of a pgBouncer beside each server.
const BESIDE_PORT: u16 = 6_432;

/// Where it sends its clients.
pub(crate) enum Servers {
    /// To HAProxy, as the file has it.
    Haproxy,
    /// To this node's built-in proxy.
    Proxy(Ipv4Addr),
    /// To the host that stands in the file which it includes.
    Named,
    /// To this node's PostgreSQL, beside which it runs.
    Beside(Ipv4Addr),
}

/// A pgBouncer in front of a herd.
pub(crate) struct Pooler {
    _process: Running,
    at: Ipv4Addr,
    port: u16,
}

impl Pooler {
    pub(crate) fn start(program: &Path, herd: &Herd, servers: &Servers, mode: &str, port: u16) -> Self {
        let at = match servers {
            Servers::Beside(node) => *node,
            _ => front(herd),
        };
        let dir = herd.dir().join(format!("pgbouncer-{at}-{port}"));
        std::fs::create_dir(&dir).unwrap();
        let users: String = ["postgres", "pgbouncer"]
            .iter()
            .map(|user| format!("\"{user}\" \"{PASSWORD}\"\n"))
            .collect();
        std::fs::write(dir.join("userlist.txt"), users).unwrap();
        let mut text = include_str!("../../../configs/pgbouncer.ini").to_owned();
        let haproxy = "* = host=127.0.0.1 port=5000";
        assert!(text.contains(haproxy) && text.contains("\n;%include "));
        match servers {
            Servers::Haproxy => text = text.replace("host=127.0.0.1", &format!("host={at}")),
            Servers::Proxy(node) => {
                text = text.replace(haproxy, &format!("* = host={node} port={PROXY_PORT}"));
            }
            Servers::Beside(node) => {
                text = text.replace(haproxy, &format!("* = host={node} port={POSTGRES_PORT}"));
            }
            Servers::Named => {
                let include = format!("\n%include {}", Self::hosts_file(herd).display());
                text = text
                    .replace(haproxy, "")
                    .replace("\n;%include /etc/pgbouncer/primary.ini", &include);
            }
        }
        let text = text
            .replace("listen_addr = *", &format!("listen_addr = {at}"))
            .replace("listen_port = 6432", &format!("listen_port = {port}"))
            .replace("pool_mode = transaction", &format!("pool_mode = {mode}"))
            .replace("/etc/pgbouncer/", &format!("{}/", dir.display()))
            .replace("/var/run/postgresql", &dir.display().to_string());
        let file = dir.join("pgbouncer.ini");
        std::fs::write(&file, text).unwrap();
        give_to_postgres(&dir);
        let mut command = Command::new(program);
        if postgres_ids().is_some() {
            command.args(["-u", "postgres"]);
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let process = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            _process: Running(process),
            at,
            port,
        }
    }

    /// The file that it includes for `Servers::Named`.
    pub(crate) fn hosts_file(herd: &Herd) -> PathBuf {
        herd.dir().join("primary.ini")
    }

    /// How a client connects to it.
    pub(crate) fn client(&self, herd: &Herd) -> Config {
        through(herd, self.at, self.port)
    }

    /// How an administrator does.
    pub(crate) fn console(&self, herd: &Herd) -> Config {
        let mut config = self.client(herd);
        config.user("pgbouncer").dbname("pgbouncer");
        config
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_behind_haproxy_follows_a_failover_in_both_modes() {
    let (Some(balancer), Some(pgbouncer)) = (program("haproxy"), program("pgbouncer")) else {
        return;
    };
    let herd = Herd::three().await;
    let old = herd.await_primary(FAILOVER_S, |_| true).await;
    let _balancer = haproxy::start(&balancer, &herd);
    follows_a_failover(herd, old, &pgbouncer, &Servers::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_in_front_of_the_proxy_follows_a_failover_in_both_modes() {
    let Some(pgbouncer) = program("pgbouncer") else {
        return;
    };
    let options = Options {
        sections: format!("proxy:\n  listen: '{{ip}}'\n  rw: {PROXY_PORT}\n"),
        ..Options::default()
    };
    let herd = Herd::grown(3, options).await;
    let old = herd.await_primary(FAILOVER_S, |_| true).await;
    let door = herd.nodes[herd.others(old)[0]].ip;
    follows_a_failover(herd, old, &pgbouncer, &Servers::Proxy(door)).await;
}

async fn follows_a_failover(mut herd: Herd, old: usize, pgbouncer: &Path, servers: &Servers) {
    let session = Pooler::start(pgbouncer, &herd, servers, "session", 6432);
    let transaction = Pooler::start(pgbouncer, &herd, servers, "transaction", 6433);
    for pooler in [&session, &transaction] {
        herd.until("pgBouncer leads to the primary", FAILOVER_S, async || {
            arrives_at(&herd, &pooler.client(&herd), old).await
        })
        .await;
    }
    let (bound, _, _) = come(&herd, &session.client(&herd)).await;
    let (loose, _, _) = come(&herd, &transaction.client(&herd)).await;
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |node| node != old).await;
    for pooler in [&session, &transaction] {
        herd.until("pgBouncer leads to the new primary", FAILOVER_S, async || {
            arrives_at(&herd, &pooler.client(&herd), new).await
        })
        .await;
    }
    assert!(
        place(&herd, &bound).await.is_none(),
        "a session of the lost primary lives on"
    );
    // Between transactions a client of a transaction pool has no server that it could lose.
    assert_eq!(place(&herd, &loose).await, Some((new, false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_in_session_mode_behind_the_proxy_follows_a_switchover_and_a_failover() {
    follows_behind_the_proxy("session").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_in_transaction_mode_behind_the_proxy_follows_a_switchover_and_a_failover() {
    follows_behind_the_proxy("transaction").await;
}

/// `postgresql.proxy_address`: each server has a pgBouncer beside it, which is where the proxies lead.
async fn follows_behind_the_proxy(mode: &str) {
    let Some(pgbouncer) = program("pgbouncer") else {
        return;
    };
    let users = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(users.path(), format!("\"postgres\" \"{PASSWORD}\"\n")).unwrap();
    let proxy = format!("proxy:\n  listen: '{{ip}}'\n  rw: {PROXY_PORT}\n  ro: {READERS_PORT}\n");
    let options = Options {
        sections: format!("{proxy}  auth_file: {}\n", users.path().display()),
        postgresql: format!("  proxy_address: '{{ip}}:{BESIDE_PORT}'\n"),
        ..Options::default()
    };
    let mut herd = Herd::grown(3, options).await;
    let old = herd.await_whole(RETURN_S).await;
    let beside = |node: usize| Servers::Beside(herd.nodes[node].ip);
    let poolers: Vec<Pooler> = (0..3)
        .map(|node| Pooler::start(&pgbouncer, &herd, &beside(node), mode, BESIDE_PORT))
        .collect();
    let (to, third) = (herd.others(old)[0], herd.others(old)[1]);
    let door = herd.nodes[third].ip;
    let (writer, reader) = (
        through(&herd, door, PROXY_PORT),
        through(&herd, door, READERS_PORT),
    );
    herd.until("the proxy leads to the primary", FAILOVER_S, async || {
        arrives_at(&herd, &writer, old).await
    })
    .await;
    let mut console = writer.clone();
    console.user("pgbouncer").dbname("pgbouncer");
    let (client, connection) = console.connect(NoTls).await.expect("it is pgBouncer's");
    tokio::spawn(connection);
    client.simple_query("SHOW VERSION").await.unwrap();
    // Each standby's pooler has seen it as a standby, and repeats that to clients later.
    herd.until("two readers at two standbys", FAILOVER_S, async || {
        let (one, two) = (arrive(&herd, &reader).await, arrive(&herd, &reader).await);
        let places = one.zip(two);
        places.is_some_and(|(one, two)| one.2 && two.2 && one.1 != two.1)
    })
    .await;
    let (rests, _, _) = come(&herd, &writer).await;
    herd.switch_over(old, to).await;
    assert_eq!(place(&herd, &rests).await, Some((to, false)), "it went along");
    herd.until("the proxy leads to the candidate", FAILOVER_S, async || {
        arrives_at(&herd, &writer, to).await
    })
    .await;
    herd.await_whole(RETURN_S).await;
    herd.nodes[to].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |node| node != to).await;
    herd.until("the proxy leads to the new primary", FAILOVER_S, async || {
        arrives_at(&herd, &writer, new).await
    })
    .await;
    assert_eq!(
        place(&herd, &rests).await,
        Some((new, false)),
        "it went along again"
    );
    drop(poolers);
}
