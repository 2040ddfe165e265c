//! Members on loopback addresses of their own, and waits with deadlines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

pub(crate) mod cut;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch_raft::{Group, Halt, Inbox, Lead, Machine, Peer, Settings, StartError, Status, TlsFiles};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest any single step of a test may take.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// Everything applied, in order.
pub(crate) type Applied = Arc<Mutex<Vec<Vec<u8>>>>;

/// A machine that remembers what it applied and answers how many there were.
pub(crate) struct Recorder(pub Applied);

impl Machine for Recorder {
    fn apply(&mut self, _lead: Lead, command: &[u8]) -> Result<Vec<u8>, Halt> {
        if command == b"halt" {
            return Err(Halt {
                why: "a command this machine does not know".to_owned(),
            });
        }
        let mut applied = self.0.lock().unwrap();
        applied.push(command.to_vec());
        Ok(applied.len().to_le_bytes().to_vec())
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for command in self.0.lock().unwrap().iter() {
            bytes.extend((command.len() as u32).to_le_bytes());
            bytes.extend(command);
        }
        bytes
    }

    fn restore(&mut self, mut bytes: &[u8]) -> Result<(), Halt> {
        let mut applied = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let (command, after) = rest.split_at(u32::from_le_bytes(*head) as usize);
            applied.push(command.to_vec());
            bytes = after;
        }
        *self.0.lock().unwrap() = applied;
        Ok(())
    }
}

/// Answers every message with the sender's name and the message, and shows what it heard.
pub(crate) struct Echo(watch::Sender<Vec<String>>);

impl Inbox for Echo {
    fn handle(
        &self,
        from: Peer,
        message: Vec<u8>,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        let said = format!("{}:{}", from.name, String::from_utf8_lossy(&message));
        self.0.send_modify(|heard| heard.push(said.clone()));
        Box::pin(async move { said.into_bytes() })
    }
}

/// A running member.
pub(crate) struct Running {
    pub(crate) group: Group,
    pub(crate) applied: Applied,
    pub(crate) heard: watch::Receiver<Vec<String>>,
}

/// A few configured members, of which some run.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) addrs: Vec<String>,
    pub(crate) running: Vec<Option<Running>>,
    pub(crate) tls: Option<Vec<TlsFiles>>,
    pub(crate) timing: (u64, u64, u64),
}

static NET: AtomicU32 = AtomicU32::new(0);

/// A port on a loopback network that no other run uses.
pub(crate) fn addresses(n: usize) -> Vec<String> {
    let salt = std::process::id()
        .wrapping_mul(2_654_435_761)
        .wrapping_add(NET.fetch_add(1, Ordering::Relaxed) * 7919);
    let (a, b) = (16 + (salt >> 8) % 200, (salt >> 16) % 250);
    (1..=n)
        .map(|i| format!("127.{a}.{b}.{i}:21{:03}", salt % 1000))
        .collect()
}

impl Cluster {
    pub(crate) fn new(n: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let running = (0..n).map(|_| None).collect();
        Cluster {
            dir,
            addrs: addresses(n),
            running,
            tls: None,
            // Three members in one program stand still together on a busy machine: not each of those moments may cost
            // a reign.
            timing: (50, 500, 1_000),
        }
    }

    /// For tests that count elections: so long no busy machine lets three members in one program wait.
    pub(crate) fn calm(n: usize) -> Cluster {
        Cluster {
            timing: (100, 2_000, 4_000),
            ..Cluster::new(n)
        }
    }

    /// Waits until a leader has shown that it leads.
    pub(crate) async fn confirmed(&self) {
        let confirmed = async { while self.group(self.leader().await).confirm().await.is_err() {} };
        timeout(STEP, confirmed)
            .await
            .expect("nobody can show that it leads");
    }

    pub(crate) fn data_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("node{i}"))
    }

    pub(crate) fn settings(&self, i: usize) -> Settings {
        let others = self.addrs.iter().enumerate().filter(|(j, _)| *j != i);
        Settings {
            cluster: "demo".to_owned(),
            name: format!("node{i}"),
            self_addr: self.addrs[i].clone(),
            bind_addr: None,
            partners: others.map(|(_, addr)| addr.clone()).collect(),
            data_dir: self.data_dir(i),
            password: Some("secret".to_owned()),
            tls: self.tls.as_ref().map(|tls| tls[i].clone()),
            heartbeat_ms: self.timing.0,
            election_min_ms: self.timing.1,
            election_max_ms: self.timing.2,
            may_form: true,
        }
    }

    pub(crate) async fn start(&mut self, i: usize) {
        let settings = self.settings(i);
        self.start_with(i, settings).await.unwrap();
    }

    pub(crate) async fn start_with(&mut self, i: usize, settings: Settings) -> Result<(), StartError> {
        let applied = Applied::default();
        let machine = Box::new(Recorder(applied.clone()));
        let (tells, heard) = watch::channel(Vec::new());
        let group = Group::start(settings, machine, Arc::new(Echo(tells))).await?;
        self.running[i] = Some(Running {
            group,
            applied,
            heard,
        });
        Ok(())
    }

    pub(crate) async fn stop(&mut self, i: usize) {
        let running = self.running[i].take().unwrap();
        timeout(STEP, running.group.close())
            .await
            .expect("close takes too long");
    }

    pub(crate) async fn wipe(&mut self, i: usize) {
        if self.running[i].is_some() {
            self.stop(i).await;
        }
        std::fs::remove_dir_all(self.data_dir(i)).unwrap();
    }

    pub(crate) fn group(&self, i: usize) -> &Group {
        &self.running[i].as_ref().unwrap().group
    }

    /// Its id, once it has one: the others may form a group and elect before it has heard of that.
    pub(crate) async fn id(&self, i: usize) -> u64 {
        self.wait(i, "its id", |s| s.id != 0).await.id
    }

    pub(crate) fn applied(&self, i: usize) -> Vec<Vec<u8>> {
        self.running[i].as_ref().unwrap().applied.lock().unwrap().clone()
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.running.len())
            .filter(|i| self.running[*i].is_some())
            .collect()
    }

    /// Waits until one of the running members leads with a fresh quorum, and answers which.
    pub(crate) async fn leader(&self) -> usize {
        let mut waits = tokio::task::JoinSet::new();
        for i in self.alive() {
            let mut status = self.group(i).status();
            waits.spawn(async move {
                let _ = status.wait_for(|s| s.lead.is_some()).await.unwrap();
                i
            });
        }
        timeout(STEP, waits.join_next())
            .await
            .expect("nobody leads")
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn wait(&self, i: usize, what: &str, until: impl FnMut(&Status) -> bool) -> Status {
        wait(self.group(i), what, until).await
    }

    /// Waits until every running member has applied what the leader has.
    pub(crate) async fn level(&self) {
        // What was answered has been applied somewhere, not for certain where somebody still thinks that it leads.
        let counts = self.alive().into_iter().map(|i| self.applied(i).len());
        let count = counts.max().unwrap_or(0);
        for i in self.alive() {
            // The status follows the machine, so whoever has applied the entry still gets a change to look at.
            self.wait(i, "the leader's entries", |_| self.applied(i).len() >= count)
                .await;
        }
    }

    pub(crate) async fn close(&mut self) {
        for i in self.alive() {
            self.stop(i).await;
        }
    }
}

pub(crate) async fn wait(group: &Group, what: &str, until: impl FnMut(&Status) -> bool) -> Status {
    let mut status = group.status();
    let result = timeout(STEP, status.wait_for(until))
        .await
        .map(|r| r.unwrap().clone());
    result.unwrap_or_else(|_| panic!("waited in vain for {what}: {:?}", *group.status().borrow()))
}

/// Logs of the code under test, when asked for.
pub(crate) fn logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}
