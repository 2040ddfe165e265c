//! A cluster of three, ours or Patroni's: both answer the same REST paths, and both are processes of a directory.

use super::patroni::{Patroni, Programs, Timings};
use matriarch::clock::boot_ns;
use matriarch_chaos::addresses::{POSTGRES_PORT, REST_PORT};
use matriarch_chaos::companions::{self, Running, program};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Node, Options, Writer, processes, rest, writer};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::{Config, NoTls};

/// Port of the balancer's way to the primary.
const BALANCER_PORT: u16 = 5000;
const POLL: Duration = Duration::from_millis(50);
/// Table of the rows, as the writing client expects it.
const ROWS: &str = "SELECT writer, seq, count(*)::int FROM judge GROUP BY 1, 2";

/// Whose cluster.
enum Kind {
    Ours(Box<Herd>),
    Patroni(Patroni),
}

/// A cluster, and what stands in front of it.
pub(super) struct System {
    // Before the cluster: fields are dropped in this order.
    balancer: Option<Running>,
    kind: Kind,
}

/// Waits; the error says what for.
pub(super) async fn until(
    what: &str,
    deadline_s: u64,
    condition: impl AsyncFn() -> bool,
) -> Result<(), String> {
    let begun = boot_ns();
    while !condition().await {
        if boot_ns() - begun > deadline_s * 1_000_000_000 {
            return Err(format!("waited {deadline_s} s in vain for {what}"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

impl System {
    /// Three of our nodes, behind HAProxy with the file in configs/ or not.
    pub(super) async fn ours(mode: &str, balanced: bool) -> Result<Self, String> {
        let synchronous_mode = ["on", "quorum"].into_iter().find(|known| *known == mode);
        let mut herd = Herd::new(
            3,
            Options {
                synchronous_mode,
                ..Options::default()
            },
        );
        let balancer = if balanced {
            let haproxy = program("haproxy").ok_or("HAProxy is needed")?;
            for node in &herd.nodes {
                let socket = companions::haproxy_socket(herd.dir());
                let section = format!("notify:\n  haproxy:\n    socket: {}\n", socket.display());
                let text = std::fs::read_to_string(node.file()).map_err(|error| error.to_string())?;
                std::fs::write(node.file(), text + &section).map_err(|error| error.to_string())?;
            }
            let text = include_str!("../../../../../configs/haproxy.cfg");
            let nodes = companions::addresses(&herd);
            Some(companions::start_haproxy(&haproxy, herd.dir(), &nodes, text))
        } else {
            None
        };
        herd.nodes.iter_mut().for_each(Node::start);
        let system = Self {
            balancer,
            kind: Kind::Ours(Box::new(herd)),
        };
        system.prepare().await
    }

    /// Three of Patroni's.
    pub(super) async fn patroni(programs: &Programs, timings: &Timings, mode: &str) -> Result<Self, String> {
        let mut patroni = Patroni::new(programs, timings, mode)?;
        for node in 0..patroni.nodes.len() {
            patroni.start(node)?;
        }
        let haproxy = program("haproxy").ok_or("HAProxy is needed")?;
        let text = timings.haproxy();
        let balancer = companions::start_haproxy(&haproxy, patroni.dir(), &patroni.nodes, &text);
        let system = Self {
            balancer: Some(balancer),
            kind: Kind::Patroni(patroni),
        };
        system.prepare().await
    }

    async fn prepare(self) -> Result<Self, String> {
        let primary = self.await_whole(super::DEADLINE_S).await?;
        let table = "CREATE TABLE IF NOT EXISTS judge (writer int NOT NULL, seq bigint NOT NULL)";
        self.run(primary, table).await?;
        Ok(self)
    }

    fn nodes(&self) -> Vec<Ipv4Addr> {
        match &self.kind {
            Kind::Ours(herd) => companions::addresses(herd),
            Kind::Patroni(patroni) => patroni.nodes.clone(),
        }
    }

    fn config(at: Ipv4Addr, port: u16) -> Config {
        let mut config = Config::new();
        config
            .host(at.to_string())
            .port(port)
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(2));
        config
    }

    /// A client on the way that people take.
    pub(super) fn client(&self) -> Writer {
        match &self.kind {
            Kind::Ours(herd) if self.balancer.is_none() => Writer::start(herd),
            _ => Writer::start_through(Self::config(companions::front(self.nodes()[0]), BALANCER_PORT)),
        }
    }

    /// The one node that says it is primary.
    pub(super) async fn primary(&self) -> Option<usize> {
        let mut found = None;
        for (i, ip) in self.nodes().into_iter().enumerate() {
            if matches!(rest::get(ip, REST_PORT, "/primary").await, Some((200, _))) {
                if found.is_some() {
                    return None;
                }
                found = Some(i);
            }
        }
        found
    }

    /// Waits until there is a primary and two others stream, and the client's way leads there.
    pub(super) async fn await_whole(&self, deadline_s: u64) -> Result<usize, String> {
        until("one primary and two that stream", deadline_s, async || {
            self.is_whole().await
        })
        .await?;
        if self.balancer.is_some() {
            let way = Self::config(companions::front(self.nodes()[0]), BALANCER_PORT);
            let leads = async || query(&way, "SELECT 1").await.is_ok();
            until("a way through HAProxy", deadline_s, leads).await?;
        }
        self.primary()
            .await
            .ok_or_else(|| "the primary did not last".to_owned())
    }

    async fn is_whole(&self) -> bool {
        let Some(primary) = self.primary().await else {
            return false;
        };
        let Some((200, text)) = rest::get(self.nodes()[primary], REST_PORT, "/cluster").await else {
            return false;
        };
        let cluster: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let members = cluster["members"].as_array().cloned().unwrap_or_default();
        let streaming = members.iter().filter(|member| member["state"] == "streaming");
        members.len() == 3 && streaming.count() == 2
    }

    async fn run(&self, node: usize, statement: &str) -> Result<(), String> {
        let config = Self::config(self.nodes()[node], POSTGRES_PORT);
        query(&config, statement).await.map(drop)
    }

    /// Removes the rows of the last trial.
    pub(super) async fn clear(&self, primary: usize) -> Result<(), String> {
        self.run(primary, "TRUNCATE judge").await
    }

    /// What the primary has now.
    pub(super) async fn rows(&self) -> Result<HashMap<(i32, i64), u32>, String> {
        let primary = self.primary().await.ok_or("no primary to ask for the rows")?;
        let config = Self::config(self.nodes()[primary], POSTGRES_PORT);
        let (client, connection) = config.connect(NoTls).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let rows = client
            .query(ROWS, &[])
            .await
            .map_err(|error| writer::describe(&error))?;
        driver.abort();
        let counted = |row: &tokio_postgres::Row| {
            (
                (row.get(0), row.get(1)),
                u32::try_from(row.get::<_, i32>(2)).unwrap_or_default(),
            )
        };
        Ok(rows.iter().map(counted).collect())
    }

    /// A switchover to whoever comes first; the answer is awaited.
    pub(super) async fn switch_over(&self, from: usize) -> Result<(), String> {
        let to = (0..3).find(|node| *node != from).unwrap_or_default();
        let body = format!(
            r#"{{"leader": "node{}", "candidate": "node{}"}}"#,
            from + 1,
            to + 1
        );
        match rest::send(self.nodes()[from], REST_PORT, "POST", "/switchover", &body).await {
            Some((200, _)) => Ok(()),
            other => Err(format!("the switchover was refused: {other:?}")),
        }
    }

    fn dir(&self, node: usize) -> PathBuf {
        match &self.kind {
            Kind::Ours(herd) => herd.nodes[node].dir.clone(),
            Kind::Patroni(patroni) => patroni.node_dir(node),
        }
    }

    /// SIGKILL to the postmaster alone.
    pub(super) fn kill_postmaster(&self, node: usize) -> Result<(), String> {
        let file = self.dir(node).join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
        processes::send(pid.ok_or("no process id in postmaster.pid")?, Signal::SIGKILL);
        Ok(())
    }

    /// SIGKILL to every process of the node.
    pub(super) fn kill(&mut self, node: usize) {
        match &mut self.kind {
            Kind::Ours(herd) => herd.nodes[node].kill_whole(),
            Kind::Patroni(patroni) => patroni.kill(node),
        }
    }

    /// Starts a node that was killed.
    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        match &mut self.kind {
            Kind::Ours(herd) => {
                herd.nodes[node].start();
                Ok(())
            }
            Kind::Patroni(patroni) => patroni.start(node),
        }
    }
}

async fn query(config: &Config, statement: &str) -> Result<(), String> {
    let work = async {
        let (client, connection) = config.connect(NoTls).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let done = client.batch_execute(statement).await;
        driver.abort();
        done.map_err(|error| writer::describe(&error))
    };
    let done = tokio::time::timeout(Duration::from_secs(5), work).await;
    done.unwrap_or_else(|_| Err(format!("{statement}: no answer")))
}
