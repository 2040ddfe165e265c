//! What the user of this crate brings: the replicated machine and the receiver of messages beside the log.

use crate::status::Lead;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// The replicated state machine. Deterministic: the same commands in the same order give the same bytes.
pub trait Machine: Send + 'static {
    /// Applies one committed command and answers its proposer. `lead` is the reign under which the log entry was
    /// written (its log id's leader): a command that says it was decided in another reign is refused by the machine.
    fn apply(&mut self, lead: Lead, command: &[u8]) -> Result<Vec<u8>, Halt>;
    /// The whole state.
    fn snapshot(&self) -> Vec<u8>;
    /// Replaces the whole state.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt>;
}

/// The machine cannot go on (an unknown command, say): this node stops taking part, it never guesses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Halt {
    /// One sentence for the log and for `Status::fatal`.
    pub why: String,
}

/// Receiver of messages that peers send beside the log.
pub trait Inbox: Send + Sync + 'static {
    /// Whether this peer may take part; the sentence says why not and what to do. Asked of every request.
    fn admits(&self, _peer: &Peer) -> Result<(), String> {
        Ok(())
    }
    /// Answers one message of an authenticated peer, which may have lain here unread for so long.
    fn handle(
        &self,
        from: Peer,
        message: Vec<u8>,
        lain: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>>;
}

/// A member of the group as its peers know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Raft id; a wiped node comes back with another one.
    pub id: u64,
    /// Member name as learnt from its hello; empty before the first one.
    pub name: String,
    /// `host:port`.
    pub addr: String,
}
