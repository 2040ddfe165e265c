//! The crate's errors, named by what the caller does next.

use std::path::PathBuf;

/// This node could not start; the sentence tells the operator what to repair.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error("raft settings: {0}")]
    Settings(String),
    /// The port cannot be bound.
    #[error("cannot listen for peers on {addr}: {why}")]
    Listen {
        /// The address asked for.
        addr: String,
        /// The system's reason.
        why: String,
    },
    /// The store cannot be opened or holds something this version cannot read.
    #[error("the raft store in {dir} cannot be used: {why}")]
    Store {
        /// The Raft directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A recovery was called off; nothing was changed.
    #[error("{0}")]
    Declined(String),
    /// A certificate, key or authority file is unusable.
    #[error("raft certificate file {file}: {why}")]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A proposal was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not committed: try again later.
    #[error("the command was not proposed: {0}")]
    Refused(String),
    /// May or may not be committed: look at the state before deciding again.
    #[error("the command may or may not have been committed: {0}")]
    Unknown(String),
    /// This node stopped taking part.
    #[error("this node left the group's service: {0}")]
    Stopped(String),
}

/// This node does not (or no longer) lead with a quorum behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node does not lead: {why}")]
pub struct NotLeading {
    /// What was seen.
    pub why: String,
}

/// A message beside the log was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody of that id is known.
    #[error("no peer with id {0} is known")]
    NoSuchPeer(u64),
    /// The peer certainly did not get the message.
    #[error("peer {addr} is unreachable: {why}")]
    NotSent {
        /// Its address.
        addr: String,
        /// What happened.
        why: String,
    },
    /// The peer may have got the message; its answer was lost.
    #[error("peer {addr} is unreachable: {why}")]
    Unreachable {
        /// Its address.
        addr: String,
        /// What happened.
        why: String,
    },
    /// The deadline passed.
    #[error("peer {addr} did not answer within {deadline_ms} ms")]
    Deadline {
        /// Its address.
        addr: String,
        /// The deadline given.
        deadline_ms: u64,
    },
}
