//! What can go wrong with the store, named by what the caller does next.

use std::path::{Path, PathBuf};

/// Why the store refused or failed; each message is one sentence that names the place.
///
/// `Corrupt`, `NewerFormat`, `OtherCluster` and `Locked` are answers to opening: nothing was changed on disk and a
/// person has to act. `Io` after opening is fatal: what the disk holds is unknown, the process must leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Bytes are not what was written, or durable bytes are missing.
    #[error("{} is damaged: {what}; it was left as it is, restore it or empty the Raft directory and let this node join again", path.display())]
    Corrupt {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A later release wrote this.
    #[error("{} has format {found}, this release knows formats up to {known}: start the release that wrote it", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u16,
        /// The newest version this release can read.
        known: u16,
    },
    /// The store belongs to another cluster.
    #[error("{} belongs to cluster \"{found}\", not to \"{expected}\": correct `scope` or `raft.data_dir`", path.display())]
    OtherCluster {
        /// The identity file.
        path: PathBuf,
        /// The name in the file.
        found: String,
        /// The name of our cluster.
        expected: String,
    },
    /// Another process, or another handle of this one, has it open.
    #[error("{} is in use by another process: stop it or use another `raft.data_dir`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The operating system refused; after opening this is fatal.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried and the system's words.
        what: String,
    },
    /// A small fact was too large to be kept beside the log.
    #[error(
        "a value of {size} bytes for {key} is larger than the {limit} bytes the store keeps beside its log"
    )]
    TooLarge {
        /// Which fact.
        key: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    /// An operating system error at `path` while doing `what`.
    pub(crate) fn io(path: &Path, what: &str, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            what: format!("cannot {what}: {error}"),
        }
    }

    /// Damage at `path`.
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// What sled said about its files at `path`.
    pub(crate) fn sled(path: &Path, what: &str, error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::io(path, what, error),
            other => Self::corrupt(path, format!("cannot {what}: {other}")),
        }
    }
}
