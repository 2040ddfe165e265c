//! `Group`: the handle by which the rest of the program agrees with its peers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::errors::{AskError, NotLeading, ProposeError, StartError};
use crate::machine::{Inbox, Machine};
use crate::settings::Settings;
use crate::status::Status;

/// A running member of the group. Clones share one member; `close` ends it.
#[derive(Clone)]
pub struct Group {
    status: watch::Receiver<Status>,
}

impl Group {
    /// Opens the store, binds the port and returns; forming or joining a group goes on in the background.
    pub async fn start(
        settings: Settings,
        machine: Box<dyn Machine>,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Group, StartError> {
        let _ = (settings, machine, inbox);
        Err(StartError::Settings("not yet".to_owned()))
    }

    /// What this node knows of the group.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Has the group agree on a command; answers what `Machine::apply` answered on the leader.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        let _ = command;
        Err(ProposeError::Refused(String::new()))
    }

    /// ReadIndex: a quorum acknowledged this node's leadership after the call began.
    pub async fn confirm(&self) -> Result<(), NotLeading> {
        Err(NotLeading { why: String::new() })
    }

    /// Sends a message beside the log to the peer's `Inbox`.
    pub async fn ask(&self, id: u64, message: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, AskError> {
        let _ = (message, deadline);
        Err(AskError::NoSuchPeer(id))
    }

    /// Moves leadership to a voter that holds the whole log.
    pub async fn hand_over(&self, to: u64) -> Result<(), NotLeading> {
        let _ = to;
        Err(NotLeading { why: String::new() })
    }

    /// Takes a voter out of the group; its id is never used again.
    pub async fn remove(&self, id: u64) -> Result<(), NotLeading> {
        let _ = id;
        Err(NotLeading { why: String::new() })
    }

    /// This node's Raft id; 0 while an empty node has not yet been given one.
    pub fn id(&self) -> u64 {
        self.status.borrow().id
    }

    /// Stops taking part and closes the store.
    pub async fn close(&self) {}
}
