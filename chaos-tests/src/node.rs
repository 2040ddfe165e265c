//! One node of a herd: its processes, its faults, what it answers.

use crate::addresses::{PEER_PORT, POSTGRES_PORT, REST_PORT};
use crate::node_file::PASSWORD;
use crate::processes::{self, Process};
use crate::rest;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio_postgres::NoTls;

/// An SQL statement of the harness itself takes no longer: ten times what the largest takes.
const SQL_DEADLINE: Duration = Duration::from_secs(15);

/// How a daemon is started where its node does not live on this machine's own network.
pub trait Home: Send + Sync {
    /// Words that go before the daemon's command line.
    fn prefix(&self) -> Vec<String>;
    /// Starts this command there.
    fn spawn(&self, command: Command) -> std::io::Result<Child>;
}

/// A node: directory, addresses, and its daemon while that runs.
pub struct Node {
    /// Member name as its file says.
    pub name: String,
    /// Where it listens.
    pub ip: Ipv4Addr,
    /// Everything it owns.
    pub dir: PathBuf,
    data_dir: PathBuf,
    daemon: Option<Child>,
    home: Option<Box<dyn Home>>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        ip: Ipv4Addr,
        dir: PathBuf,
        data_dir: PathBuf,
        home: Option<Box<dyn Home>>,
    ) -> Self {
        Self {
            name,
            ip,
            dir,
            data_dir,
            daemon: None,
            home,
        }
    }

    // ----- starting and ending -----

    /// Starts the daemon; its log goes on in the same file.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "{} is started twice", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("log file opens");
        let mut words = self.home.as_ref().map_or_else(Vec::new, |home| home.prefix());
        words.push(matriarch_binary().display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("run")
            .arg(self.file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file handle"))
            .stderr(log);
        let child = match &self.home {
            Some(home) => home.spawn(command),
            None => command.spawn(),
        };
        self.daemon = Some(child.expect("the daemon starts"));
    }

    /// The node file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("node.yml")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// Address of its peer port.
    pub fn peer_addr(&self) -> (Ipv4Addr, u16) {
        (self.ip, PEER_PORT)
    }

    /// Address of its REST port.
    pub fn rest_addr(&self) -> (Ipv4Addr, u16) {
        (self.ip, REST_PORT)
    }

    /// How the daemon ended, if it has.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        let status = self
            .daemon
            .as_mut()?
            .try_wait()
            .expect("the daemon can be waited for")?;
        self.daemon = None;
        Some(status)
    }

    /// Asks the daemon to end (SIGTERM), which stops PostgreSQL too; `exit` tells when it has.
    pub fn terminate(&self) {
        processes::send(self.daemon_pid(), Signal::SIGTERM);
    }

    /// Process id of the daemon.
    pub fn daemon_pid(&self) -> i32 {
        let child = self
            .daemon
            .as_ref()
            .unwrap_or_else(|| panic!("the daemon of {} does not run", self.name));
        i32::try_from(child.id()).unwrap()
    }

    /// Process id of the guard.
    pub fn guard_pid(&self) -> Option<i32> {
        let is_guard = |process: &Process| process.args.get(1).is_some_and(|arg| arg == "guard");
        processes::of(&self.dir)
            .into_iter()
            .find(is_guard)
            .map(|process| process.pid)
    }

    /// Every living PostgreSQL process of the data directory, the postmaster included.
    pub fn postgres_processes(&self) -> Vec<Process> {
        let data_dir = self.data_dir();
        let works_there = |process: &Process| process.cwd.as_ref().is_some_and(|cwd| *cwd == data_dir);
        processes::of(&self.dir).into_iter().filter(works_there).collect()
    }

    /// Process id of the postmaster: its title is a command line, not a job, and its parent is not PostgreSQL.
    pub fn postmaster_pid(&self) -> Option<i32> {
        let all = self.postgres_processes();
        let is_child = |process: &Process| all.iter().any(|other| other.pid == process.parent);
        all.iter()
            .find(|process| process.program() == "postgres" && process.args.len() > 1 && !is_child(process))
            .map(|process| process.pid)
    }

    // ----- faults -----

    /// Kills the daemon alone; guard and PostgreSQL stay.
    pub fn kill_daemon(&mut self) {
        processes::kill_now(self.daemon_pid());
        self.reap();
    }

    /// Kills the guard alone.
    pub fn kill_guard(&self) {
        processes::kill_now(self.guard_pid().expect("a guard runs"));
    }

    /// Kills the postmaster alone; its children are left to whoever cares.
    pub fn kill_postmaster(&self) {
        processes::kill_now(self.postmaster_pid().expect("a postmaster runs"));
    }

    /// Kills every process of the node as one crash.
    pub fn kill_whole(&mut self) {
        let killed = processes::kill_all_of(&self.dir);
        assert!(
            killed > 0,
            "{} was to be killed whole and had no process",
            self.name
        );
        self.reap();
    }

    /// Stops the daemon with SIGSTOP; guard and PostgreSQL run on.
    pub fn freeze_daemon(&self) {
        processes::freeze(self.daemon_pid());
    }

    /// Ends `freeze_daemon`.
    pub fn thaw_daemon(&self) {
        processes::thaw(self.daemon_pid());
    }

    /// Stops every process of its PostgreSQL with SIGSTOP: connections are made, and nothing is answered.
    pub fn freeze_postgres(&self) -> Vec<i32> {
        let postmaster = self.postmaster_pid().expect("a postmaster runs");
        // The parent first: it could replace a child that stands still.
        processes::freeze(postmaster);
        let mut frozen = vec![postmaster];
        for process in self.postgres_processes() {
            // A backend may have ended by itself since the list was read.
            processes::send(process.pid, Signal::SIGSTOP);
            if process.pid != postmaster && processes::await_stopped(process.pid) {
                frozen.push(process.pid);
            }
        }
        frozen
    }

    /// Removes the Raft directory of a node that does not run.
    pub fn wipe_raft(&self) {
        assert!(processes::of(&self.dir).is_empty(), "{} still runs", self.name);
        std::fs::remove_dir_all(self.dir.join("raft")).expect("the Raft directory is removed");
    }

    /// Freezes the WAL receiver: from now on this standby has nothing of what the primary writes.
    pub fn freeze_receiver(&self) -> i32 {
        let is_receiver = |process: &Process| process.title().contains("walreceiver");
        let deadline = matriarch::clock::boot_ns() + 10_000_000_000;
        loop {
            // One that is on its way out, because it was told of another primary, is followed by the next.
            if let Some(receiver) = self.postgres_processes().into_iter().find(is_receiver) {
                processes::send(receiver.pid, Signal::SIGSTOP);
                if processes::await_stopped(receiver.pid) {
                    return receiver.pid;
                }
            }
            assert!(
                matriarch::clock::boot_ns() < deadline,
                "no WAL receiver runs on {}",
                self.name
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Lets a frozen WAL receiver go, but without what lay in its socket meanwhile: it ends before it reads on.
    pub fn discard_receiver(&self, pid: i32) {
        processes::send(pid, Signal::SIGTERM);
        processes::send(pid, Signal::SIGCONT);
    }

    /// Has the standby end its stream: what the primary writes from now on does not reach it. Lasts until its
    /// daemon writes its configuration again.
    pub async fn cut_stream(&self) {
        for statement in [
            "ALTER SYSTEM SET primary_conninfo = ''",
            "SELECT pg_reload_conf()",
        ] {
            self.sql(statement).await.expect("a standby takes settings");
        }
        let deadline = matriarch::clock::boot_ns() + 10_000_000_000;
        while self
            .sql("SELECT count(*) FROM pg_stat_wal_receiver")
            .await
            .as_deref()
            != Ok("0")
        {
            assert!(
                matriarch::clock::boot_ns() < deadline,
                "the WAL receiver does not end"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Whether a daemon was started here and not yet found ended.
    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Takes note that the daemon was killed.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.wait().expect("a killed daemon can be waited for");
        }
    }

    // ----- what it says -----

    /// GET a path: status and body.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        rest::get(self.ip, REST_PORT, path).await
    }

    /// The same, and nothing older than this question.
    pub async fn latest(&self, path: &str) -> Option<(u16, String)> {
        rest::latest(self.ip, REST_PORT, path).await
    }

    /// Sends an order with a JSON body: status and body of the answer.
    pub async fn order(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = rest::send(self.ip, REST_PORT, method, path, body).await;
        answer.unwrap_or_else(|| panic!("{} does not answer {method} {path}", self.name))
    }

    /// GET a path whose body is JSON.
    pub async fn get_json(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.get(path).await?.1).ok()
    }

    /// Who votes in the group as this node knows it: Raft ids by member name.
    pub async fn voters(&self) -> Option<BTreeMap<String, String>> {
        let known = self.get_json("/members").await?;
        let votes = |member: &&Value| matches!(member["vote"].as_str(), Some("voter" | "leader"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let voters = known["members"].as_array()?.iter().filter(votes);
        voters
            .map(|member| Some((text(&member["name"])?, text(&member["raft_id"])?)))
            .collect()
    }

    /// A value of `GET /patroni` by JSON pointer, as text.
    pub async fn patroni(&self, pointer: &str) -> Option<String> {
        self.value("/patroni", pointer).await
    }

    /// A value of `GET /explain` by JSON pointer, as text.
    pub async fn explain(&self, pointer: &str) -> Option<String> {
        self.value("/explain", pointer).await
    }

    async fn value(&self, path: &str, pointer: &str) -> Option<String> {
        match self.get_json(path).await?.pointer(pointer)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Whether a load balancer would send writers here.
    pub async fn is_primary(&self) -> bool {
        matches!(self.get("/primary").await, Some((200, _)))
    }

    /// Whether its PostgreSQL streams from a primary.
    pub async fn is_streaming(&self) -> bool {
        self.patroni("/replication_state").await.as_deref() == Some("streaming")
    }

    /// First column of the first row of a query on this node's PostgreSQL.
    pub async fn sql(&self, statement: &str) -> Result<String, String> {
        let work = async {
            let (client, connection) = self.client_config().connect(NoTls).await?;
            let driver = tokio::spawn(connection);
            let rows = client.simple_query(statement).await;
            driver.abort();
            rows
        };
        let messages = match tokio::time::timeout(SQL_DEADLINE, work).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(error)) => return Err(crate::writer::describe(&error)),
            Err(_) => return Err(format!("no answer within {SQL_DEADLINE:?}")),
        };
        let first = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(first.unwrap_or_default())
    }

    /// How a client connects to this node as superuser.
    pub fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.ip.to_string())
            .port(POSTGRES_PORT)
            .user("postgres")
            .password(PASSWORD)
            .dbname("postgres")
            .application_name("judge");
        config
    }

    /// Everything the daemon has logged so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the daemon has logged since the log was this long.
    pub fn log_since(&self, length: usize) -> String {
        self.log().get(length..).unwrap_or_default().to_owned()
    }

    /// The end of its log, without what a lonely standby and a client that tries again say many times a second.
    pub fn log_tail(&self, lines: usize) -> String {
        let noise = [
            "waiting for WAL",
            "read-only transaction",
            "STATEMENT:  INSERT INTO",
            "is starting up",
        ];
        let log = self.log();
        let all: Vec<&str> = log
            .lines()
            .filter(|line| !noise.iter().any(|words| line.contains(words)))
            .collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Beside the node's directory: the log outlives the node's disk.
    fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }
}

/// The daemon's binary: `MATRIARCH_BIN`, else the one cargo built beside this program.
pub fn matriarch_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("MATRIARCH_BIN") {
        return PathBuf::from(path);
    }
    let me = std::env::current_exe().expect("this program knows its path");
    let beside = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir: &Path| dir.join("matriarch"));
    beside.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "no matriarch binary beside {}: run `cargo build` first",
            me.display()
        )
    })
}
