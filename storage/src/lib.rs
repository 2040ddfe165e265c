//! Bytes that survive: a Raft-shaped log, a few durable facts, and snapshot files. Knows neither Raft nor what it stores.
//!
//! ```text
//!   append, put --> sled trees `log` (u64 big endian) and `meta`   visible to readers at once
//!                \-> queue --> one flush thread: db.flush(), fdatasync(db), callbacks in order
//!   snapshots   --> files: tmp, fsync, rename, fsync of the directory
//! ```
//!
//! Invariants:
//! - *Durable before acknowledged.* sled's `flush()` writes and starts write-back but does not sync (its issues 1351
//!   and 1452; replaying only what a power cut keeps lost acknowledged entries in 25 of 25 trials). The flush
//!   thread therefore syncs sled's file through a handle of its own before it calls back.
//! - One thread flushes, and groups whatever was asked meanwhile, so requests are acknowledged in their order.
//! - A failed sync is final: what the kernel dropped after an error is unknowable, so every later call fails and
//!   the daemon leaves the service.
//! - Every value carries a magic, a version and a checksum. A store that is corrupt, newer, or of another cluster
//!   is refused with its path, never repaired: a repaired vote is a second vote.
//!
//! Caveats: sled truncates a damaged tail of its log at open and says nothing; `witness.rs` tells a tail that was
//! never synced from one that was. sled's own timer is off (`flush_every_ms(None)`),
//! so nothing becomes durable unless it is asked for.

mod envelope;
mod error;
mod flusher;
mod identity;
mod snapshots;
mod store;
mod witness;

pub use error::StorageError;
pub use snapshots::Snapshots;
pub use store::{Options, Store};

/// Called once, in order, from the flush thread, when the request is durable or has failed.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// The durable facts beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// Raft's vote.
    Vote,
    /// How far the log is known to be committed.
    Committed,
    /// How far the log was purged.
    Purged,
    /// Who this node is in its group.
    Node,
    /// The group that this node helped to form.
    Formation,
}

impl Meta {
    fn key(self) -> &'static [u8] {
        match self {
            Self::Vote => b"vote",
            Self::Committed => b"committed",
            Self::Purged => b"purged",
            Self::Node => b"node",
            Self::Formation => b"formation",
        }
    }
}

/// What a Raft implementation needs of a disk, and nothing more, so that another engine can pass the same tests.
pub trait Log: Send + Sync + 'static {
    /// Adds entries: visible to readers at once, durable when `done` is called.
    fn append(&self, entries: Vec<(u64, Vec<u8>)>, done: Done);
    /// Entries from `from` up to but not including `to`, contiguous, about `max_bytes` in all, at least one if
    /// there is one.
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, StorageError>;
    /// The last entry.
    fn last(&self) -> Result<Option<(u64, Vec<u8>)>, StorageError>;
    /// Removes `index` and everything after it; durable on return.
    fn truncate_from(&self, index: u64) -> Result<(), StorageError>;
    /// Stores `pointer` as [`Meta::Purged`] durably, then removes everything up to and including `index`.
    fn purge_to(&self, index: u64, pointer: Vec<u8>) -> Result<(), StorageError>;
    /// Stores a fact; durable on return.
    fn put(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError>;
    /// Stores a fact that becomes durable with the next sync.
    fn put_lazy(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError>;
    /// Reads a fact.
    fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError>;
    /// Makes everything so far durable.
    fn sync(&self) -> Result<(), StorageError>;
}
