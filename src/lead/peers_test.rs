//! Raft groups for the tests beside the loop that leads: real sockets and stores, no PostgreSQL.

use crate::cluster::{Settings, State};
use crate::lead::{Desk, Orders};
use crate::node::machine::Replica;
use matriarch_raft::{Group, Inbox, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

/// Many times what a group needs for any step.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

static PORT: AtomicU16 = AtomicU16::new(12_224);

/// One member of a group, in this process.
pub(super) struct Node {
    pub(super) addr: String,
    pub(super) group: Group,
    pub(super) states: watch::Receiver<Arc<State>>,
    pub(super) orders: Orders,
    _dir: TempDir,
}

impl Node {
    /// Waits until what the node knows of the group is as wished.
    pub(super) async fn until(&self, what: &str, ready: impl FnMut(&Status) -> bool) {
        let mut status = self.group.status();
        // What is seen is let go at once: nothing new is published as long as somebody looks at it.
        let seen = timeout(PATIENCE, status.wait_for(ready))
            .await
            .is_ok_and(|seen| seen.is_ok());
        assert!(seen, "{}: waited in vain for {what}", self.addr);
    }

    fn leads(&self) -> bool {
        self.group.status().borrow().lead.is_some()
    }
}

/// A group of so many, each with the inbox that `inbox` makes; who leads comes first, and all know it.
pub(super) async fn group<I: Inbox>(count: usize, inbox: impl Fn() -> Arc<I>) -> Vec<(Node, Arc<I>)> {
    // This process's own place among the loopback addresses.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let addrs: Vec<String> = (0..count)
        .map(|_| {
            let port = PORT.fetch_add(1, Ordering::Relaxed);
            format!("127.{}.{middle}.{low}:{port}", 100 + high)
        })
        .collect();
    let mut nodes = Vec::new();
    for addr in &addrs {
        let inbox = inbox();
        nodes.push((start(addr, &addrs, inbox.clone()).await, inbox));
    }
    let leads = async {
        while !nodes.iter().any(|(node, _)| node.leads()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, leads).await.expect("nobody leads");
    nodes.sort_by_key(|(node, _)| !node.leads());
    let leader = nodes[0].0.group.id();
    for (node, _) in &nodes {
        node.until("the leader and all voters", |status| {
            status.leader.as_ref().is_some_and(|peer| peer.id == leader) && status.voters.len() == count
        })
        .await;
    }
    nodes
}

async fn start<I: Inbox>(addr: &str, all: &[String], inbox: Arc<I>) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let (state, states) = watch::channel(Arc::new(State::default()));
    let (settings, settings_seen) = watch::channel(Arc::new(Settings::default()));
    let told = matriarch_raft::Settings {
        cluster: "lead".to_owned(),
        name: addr.to_owned(),
        self_addr: addr.to_owned(),
        bind_addr: None,
        partners: all.iter().filter(|other| *other != addr).cloned().collect(),
        data_dir: dir.path().join("raft"),
        password: None,
        tls: None,
        heartbeat_ms: 100,
        election_min_ms: 1_000,
        election_max_ms: 2_000,
        may_form: true,
    };
    let starting = Group::start(told, Box::new(Replica::new(state, settings)), inbox);
    let group = timeout(PATIENCE, starting).await.expect("it starts").unwrap();
    let desk = Arc::new(Desk::default());
    Node {
        addr: addr.to_owned(),
        orders: Orders::new(group.clone(), desk, states.clone(), settings_seen),
        group,
        states,
        _dir: dir,
    }
}
