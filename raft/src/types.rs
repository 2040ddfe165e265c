//! The types openraft is instantiated with, and how a node's id is made.

// The macro names openraft's re-export of its own tokio runtime, which it has since deprecated.
#![allow(deprecated)]

use std::fmt;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::machine::StateMachine;

#[cfg(not(test))]
type Runtime = openraft::TokioRuntime;
#[cfg(test)]
pub(crate) use crate::model::runtime::Runtime;

openraft::declare_raft_types!(
    /// openraft, instantiated.
    pub(crate) TypeConfig: D = Command, R = Answer, Node = Member, AsyncRuntime = Runtime
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LeaderId = <TypeConfig as openraft::RaftTypeConfig>::LeaderId;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Member>;
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, Member, Vec<u8>>;

/// One opaque command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command(pub(crate) Vec<u8>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the machine answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

/// What the membership says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// `host:port` of its peer port.
    pub(crate) addr: String,
    /// 0 for a founder, random for a node that joined; its id is made from it.
    pub(crate) incarnation: u64,
    /// Index of the log's end when it was admitted. Of two ids with one address the greater generation lives.
    pub(crate) generation: u64,
}

/// Who a node is, once it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    /// Which group of the cluster's name it belongs to; 0: none yet.
    pub(crate) foundation: u64,
}

/// The id of the node at `addr` in its given incarnation; never 0, which means "nobody yet".
pub(crate) fn node_id(cluster: &str, addr: &str, incarnation: u64) -> u64 {
    let mut hash = Sha256::new();
    for part in [cluster.as_bytes(), addr.as_bytes(), &incarnation.to_le_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut first = [0u8; 8];
    first
        .iter_mut()
        .zip(digest.iter())
        .for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(first).max(1)
}

/// openraft's metrics, cloned at once: its core waits for whoever holds a borrow.
pub(crate) fn metrics(raft: &Raft) -> RaftMetrics<TypeConfig> {
    raft.metrics().borrow_watched().clone()
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(format!("no random bytes: {e}")))?;
    Ok(bytes)
}
