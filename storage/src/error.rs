//! Why a store refuses, named by what the operator does next; every sentence names the path.

use std::path::PathBuf;

/// A refusal. Cloned to every caller that waited for the same sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Bytes are not what was written.
    #[error(
        "{path} is damaged ({what}); stop this node, move the Raft directory away and start it: \
         it joins its group again as a new voter"
    )]
    Corrupt {
        /// The damaged file or store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A newer program wrote it.
    #[error("{path} has format {found}, this program knows {known}: run the program version that wrote it")]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// It belongs to another cluster.
    #[error("{path} belongs to cluster '{found}', not to '{expected}': correct scope or raft.data_dir")]
    OtherCluster {
        /// The store.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process: is this node running already?")]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The disk or the system failed.
    #[error("{path}: {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        what: String,
    },
    /// An earlier failure was final, or the store was closed.
    #[error("the store in {path} takes nothing any more: {why}")]
    Closed {
        /// The store.
        path: PathBuf,
        /// The first failure.
        why: String,
    },
}
