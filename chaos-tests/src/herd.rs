//! A whole cluster in a temporary directory, and waiting for it with a deadline that explains itself.

use crate::addresses::Addresses;
use crate::disk::Disk;
use crate::node::{Home, Node};
use crate::node_file::{Options, Sheet};
use crate::processes;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, chown};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);
/// How long the processes of a herd may take to end at its end.
const END_DEADLINE_S: u64 = 10;
/// How long the founding of a cluster may take, and a copy of its data: a disk that is busy with other work can take a
/// minute for what takes three seconds else.
pub const FORM_S: u64 = 180;
/// How long a node that is there may take to answer.
const TOLD_S: u64 = 20;

/// A cluster of nodes. Dropping it ends and removes everything.
pub struct Herd {
    /// Its nodes, in the order of their addresses.
    pub nodes: Vec<Node>,
    /// What it was made with.
    pub options: Options,
    /// The nodes' disks, where they have their own.
    pub disks: Vec<Disk>,
    // After the disks: fields are dropped in this order.
    dir: tempfile::TempDir,
    _addresses: Option<Addresses>,
}

impl Herd {
    /// Lays out directories and node files; nothing runs yet.
    pub fn new(count: usize, options: Options) -> Self {
        let addresses = Addresses::take(count);
        let scope = format!("herd-{}", addresses.label());
        let ips: Vec<Ipv4Addr> = (0..count).map(|i| addresses.ip(i)).collect();
        let mut herd = Self::housed(&scope, &ips, options, |_, _| None);
        herd._addresses = Some(addresses);
        herd
    }

    /// The same at given addresses, each node in the home that is made for its empty directory.
    pub fn housed(
        scope: &str,
        ips: &[Ipv4Addr],
        options: Options,
        mut home: impl FnMut(usize, &Path) -> Option<Box<dyn Home>>,
    ) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("herd-")
            .tempdir()
            .expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("mode of the directory");
        give_to_postgres(dir.path());
        let (mut nodes, mut disks) = (Vec::new(), Vec::new());
        for (i, ip) in ips.iter().enumerate() {
            let name = format!("node{}", i + 1);
            let node_dir = dir.path().join(&name);
            std::fs::create_dir_all(&node_dir).expect("directory of the node");
            let home = home(i, &node_dir);
            std::fs::create_dir_all(node_dir.join("socket")).expect("directory of the sockets");
            give_to_postgres(&node_dir);
            give_to_postgres(&node_dir.join("socket"));
            let data_dir = match options.disk_mib.filter(|_| options.witness != Some(i)) {
                Some(mib) => {
                    let at = node_dir.join("disk");
                    disks.push(Disk::make(node_dir.join("disk.img"), at.clone(), mib));
                    at.join("data")
                }
                None => node_dir.join("data"),
            };
            let partners: Vec<Ipv4Addr> = ips.iter().copied().filter(|other| other != ip).collect();
            let sheet = Sheet {
                scope,
                name: &name,
                ip: *ip,
                partners: &partners,
                dir: &node_dir,
                data_dir: &data_dir,
                is_witness: options.witness == Some(i),
                options: &options,
            };
            let node = Node::new(name.clone(), *ip, node_dir.clone(), data_dir.clone(), home);
            std::fs::write(node.file(), sheet.text()).expect("the node file is written");
            nodes.push(node);
        }
        Self {
            nodes,
            options,
            disks,
            dir,
            _addresses: None,
        }
    }

    /// Three nodes with default options, started together, with one primary and two streaming replicas.
    pub async fn three() -> Self {
        Self::grown(3, Options::default()).await
    }

    /// A herd that has formed: one primary, everybody else streams.
    pub async fn grown(count: usize, options: Options) -> Self {
        let mut herd = Self::new(count, options);
        herd.nodes.iter_mut().for_each(Node::start);
        herd.await_whole(FORM_S).await;
        herd
    }

    /// Directory of the whole herd.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until `condition` holds. On the deadline it says what it waited for and shows every node.
    pub async fn until(&self, what: &str, deadline_s: u64, condition: impl AsyncFn() -> bool) {
        self.find(what, deadline_s, async || condition().await.then_some(()))
            .await;
    }

    /// Waits until `look` finds something, and answers what it found: a second look might find something else.
    pub async fn find<T>(&self, what: &str, deadline_s: u64, look: impl AsyncFn() -> Option<T>) -> T {
        let begun = matriarch::clock::boot_ns();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if matriarch::clock::boot_ns().saturating_sub(begun) > deadline_s * 1_000_000_000 {
                panic!("waited {deadline_s} s in vain: {what}\n{}", self.portrait().await);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A value of `GET /patroni` of a node that is there: one that is busy for a moment is asked again.
    pub async fn told(&self, node: usize, pointer: &str) -> String {
        let what = format!("{} tells {pointer}", self.nodes[node].name);
        self.find(&what, TOLD_S, async || self.nodes[node].patroni(pointer).await)
            .await
    }

    /// What a node answers to a GET that accepts nothing older than the question: `/cluster`, `/config`, `/history`.
    pub async fn latest(&self, node: usize, path: &str) -> String {
        let what = format!("{} answers GET {path}", self.nodes[node].name);
        let look = async || match self.nodes[node].latest(path).await {
            Some((200, body)) => Some(body),
            _ => None,
        };
        self.find(&what, TOLD_S, look).await
    }

    /// The one node that says it is primary, if it is one.
    pub async fn primary(&self) -> Option<usize> {
        let mut found = None;
        for (i, node) in self.nodes.iter().enumerate() {
            if node.is_primary().await {
                if found.is_some() {
                    return None;
                }
                found = Some(i);
            }
        }
        found
    }

    /// Waits for a primary among the nodes that `fits` allows.
    pub async fn await_primary(&self, deadline_s: u64, fits: impl Fn(usize) -> bool) -> usize {
        self.find("a primary", deadline_s, async || {
            self.primary().await.filter(|i| fits(*i))
        })
        .await
    }

    /// Has `from` hand over to `to`. Asked again where it was called off, for which a machine that stands still for a
    /// moment is reason enough.
    pub async fn switch_over(&self, from: usize, to: usize) {
        let name = |node: usize| &self.nodes[node].name;
        let body = format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, name(from), name(to));
        self.until(
            "a switchover that is not called off",
            FORM_S,
            async || match self.nodes[from].order("POST", "/switchover", &body).await {
                (200, _) => true,
                (412 | 503, _) => self.nodes[to].is_primary().await,
                (status, text) => panic!("{status} {text}"),
            },
        )
        .await;
    }

    /// Waits until there is one primary, every other node that holds data streams on the same timeline, and as many vote as
    /// can.
    pub async fn await_whole(&self, deadline_s: u64) -> usize {
        self.find(
            "one primary, all others streaming and voting",
            deadline_s,
            async || self.whole().await,
        )
        .await
    }

    /// Whether there is one primary, everybody else streams on its timeline, and as many vote as can.
    pub async fn is_whole(&self) -> bool {
        self.whole().await.is_some()
    }

    /// The primary, if everybody else streams on its timeline and any one of three may be lost: a node that was not there
    /// when the group was formed votes a little later than it streams.
    async fn whole(&self) -> Option<usize> {
        let primary = self.primary().await?;
        let timeline = self.nodes[primary].patroni("/timeline").await?;
        for (i, node) in self.nodes.iter().enumerate() {
            if i == primary || self.options.witness == Some(i) {
                continue;
            }
            if !node.is_streaming().await || node.patroni("/timeline").await.as_ref() != Some(&timeline) {
                return None;
            }
        }
        let largest_odd = ((self.nodes.len() - 1) | 1).min(5);
        let voters = self.nodes[primary].voters().await?;
        (voters.len() >= largest_odd).then_some(primary)
    }

    /// Waits until this node streams on the primary's timeline and has the primary's present position.
    pub async fn await_streaming(&self, node: usize, deadline_s: u64) {
        let what = format!("{} streams and has caught up", self.nodes[node].name);
        self.until(&what, deadline_s, async || {
            let Some(primary) = self.primary().await else {
                return false;
            };
            if primary == node || !self.nodes[node].is_streaming().await {
                return false;
            }
            let Ok(position) = self.nodes[primary].sql("SELECT pg_current_wal_lsn()").await else {
                return false;
            };
            let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
            self.nodes[node].sql(&reached).await.as_deref() == Ok("t")
        })
        .await;
    }

    /// Has a node write so many files of its log, each with a row of the new table `filler`.
    pub async fn fill_log(&self, node: usize, files: usize) {
        let sql = async |statement: &str| self.nodes[node].sql(statement).await.unwrap();
        sql("CREATE TABLE filler (id int)").await;
        for _ in 0..files {
            sql("INSERT INTO filler VALUES (1)").await;
            sql("SELECT pg_switch_wal()").await;
        }
    }

    /// The node where the Raft group is led, as any node says.
    pub async fn raft_leader(&self) -> Option<usize> {
        for node in &self.nodes {
            if let Some(leader) = node.explain("/raft/leader").await {
                return self.nodes.iter().position(|other| other.name == leader);
            }
        }
        None
    }

    /// Waits until the herd is whole and the Raft leader sits beside another node than the primary.
    pub async fn await_leader_elsewhere(&self, deadline_s: u64) -> (usize, usize) {
        self.find("the Raft leader away from the primary", deadline_s, async || {
            let (primary, leader) = (self.whole().await?, self.raft_leader().await?);
            (leader != primary).then_some((primary, leader))
        })
        .await
    }

    /// Indices of all nodes but one.
    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| *i != node).collect()
    }

    /// Everything one wants to read when a test has failed.
    pub async fn portrait(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let document = async |path: &str| {
                let answer = node.get(path).await;
                answer.map_or("no answer".to_owned(), |(code, body)| format!("{code} {body}"))
            };
            let (cluster, explain) = (document("/cluster").await, document("/explain").await);
            let titles: Vec<String> = processes::of(&node.dir)
                .iter()
                .map(|p| format!("    {} {}", p.pid, p.title()))
                .collect();
            text.push_str(&format!(
                "--- {} ({})\n  /cluster: {cluster}\n  /explain: {explain}\n  processes:\n{}\n  log:\n{}\n",
                node.name,
                node.ip,
                titles.join("\n"),
                node.log_tail(40)
            ));
        }
        text
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- end of the log of {}\n{}", node.name, node.log_tail(60));
            }
        }
        let end = matriarch::clock::boot_ns() + END_DEADLINE_S * 1_000_000_000;
        loop {
            let left = processes::of(self.dir.path());
            if left.is_empty() {
                break;
            }
            if matriarch::clock::boot_ns() > end {
                let titles: Vec<String> = left.iter().map(|p| format!("{} {}", p.pid, p.title())).collect();
                eprintln!("processes outlived their herd:\n{}", titles.join("\n"));
                assert!(std::thread::panicking(), "processes outlived their herd");
                break;
            }
            left.iter()
                .for_each(|process| processes::send(process.pid, Signal::SIGKILL));
            std::thread::sleep(Duration::from_millis(2));
        }
        for node in &mut self.nodes {
            // Killed above; waiting for it leaves no zombie behind.
            let _ = node.exit();
        }
        matriarch::postgres::free_memory_below(self.dir.path());
        if std::thread::panicking() && std::env::var_os("HERD_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.path().display());
            self.dir.disable_cleanup(true);
        }
    }
}

/// As root, PostgreSQL's programs run as the owner of the directory: the user postgres.
pub fn give_to_postgres(path: &Path) {
    if let Some((uid, gid)) = postgres_ids() {
        chown(path, Some(uid), Some(gid)).expect("the directory is given to the user postgres");
    }
}

/// The user that PostgreSQL's programs must become, when this program is root.
pub fn postgres_ids() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let user = User::from_name("postgres")
        .ok()
        .flatten()
        .expect("a user postgres exists (install PostgreSQL)");
    Some((user.uid, user.gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_node_files_are_understood_without_a_warning() {
        let herd = Herd::new(
            3,
            Options {
                witness: Some(2),
                ..Options::default()
            },
        );
        for (i, node) in herd.nodes.iter().enumerate() {
            let loaded = matriarch::config::load(&node.file(), &BTreeMap::new()).expect("a good node file");
            assert_eq!(loaded.warnings, Vec::<String>::new());
            assert_eq!(loaded.config.postgresql.is_none(), i == 2);
        }
    }
}
