//! The small trait behind which any engine can keep a Raft log.

use crate::{Snapshot, StorageError};

/// Called exactly once, from the flush thread, in the order of the appends: `Ok` when the append is durable.
///
/// It must not call back into the store and must not block: every later acknowledgement waits behind it.
pub type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// A log entry: its index and its bytes.
pub type Entry = (u64, Vec<u8>);

/// The facts kept beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meta {
    /// The Raft vote; must be durable before it is spoken.
    Vote,
    /// How far the log was known to be committed; may be stale.
    Committed,
    /// The last purged log position; written by [`Log::purge_to`].
    Purged,
    /// Who this Raft node is.
    Node,
    /// How the cluster was formed.
    Formation,
}

impl Meta {
    /// Every fact, for checks over all of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Vote,
        Self::Committed,
        Self::Purged,
        Self::Node,
        Self::Formation,
    ];

    /// The key on disk; never change one.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
            Self::Node => "node",
            Self::Formation => "formation",
        }
    }
}

/// A durable log of numbered entries with a few durable facts beside it.
///
/// Calls may block on the disk. After an `Io` error every later call answers with that error. One thread writes;
/// any number may read.
pub trait Log: Send + Sync + 'static {
    /// Appends entries, in ascending order and after the last one: visible to readers at once, durable when `done` is called.
    ///
    /// To replace entries, [`Log::truncate_from`] first.
    fn append(&self, entries: Vec<Entry>, done: Done);

    /// The contiguous entries from the first one at or after `from` up to `to` (exclusive), stopping before the sum of
    /// their bytes passes `max_bytes`, but never with nothing if there is one.
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError>;

    /// The last entry.
    fn last(&self) -> Result<Option<Entry>, StorageError>;

    /// Removes `index` and everything after it; durable on return.
    fn truncate_from(&self, index: u64) -> Result<(), StorageError>;

    /// Stores `pointer` as [`Meta::Purged`], durably, then deletes everything up to and including `index`.
    /// What has been purged stays purged: going back does nothing.
    fn purge_to(&self, index: u64, pointer: Vec<u8>) -> Result<(), StorageError>;

    /// Stores a fact; durable on return.
    fn put(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError>;

    /// Stores a fact that becomes durable with the next sync of anything else.
    fn put_lazy(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError>;

    /// Reads a fact.
    fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError>;

    /// Stores a snapshot and what describes it as the newest, beside the log; durable on return.
    fn save_snapshot(&self, meta: &[u8], data: &[u8]) -> Result<(), StorageError>;

    /// The newest snapshot.
    fn load_snapshot(&self) -> Result<Option<Snapshot>, StorageError>;

    /// Waits until everything written before is durable.
    fn sync(&self) -> Result<(), StorageError>;
}
