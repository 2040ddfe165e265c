//! What goes wrong with PostgreSQL, by what the caller does next.

use std::path::{Path, PathBuf};

/// One clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The operator must change something first; trying again is useless.
    #[error("{0}")]
    Misconfigured(String),
    /// The file system refused; worth another try.
    #[error("{}: cannot {what}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// One of PostgreSQL's programs failed; its last words are in the text.
    #[error("{program} failed: {why}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its last lines on standard error.
        why: String,
    },
    /// Something took longer than its deadline.
    #[error("{what} took longer than {seconds} s")]
    Late {
        /// What.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// The local server cannot be connected to; it may be starting.
    #[error("no connection to the local PostgreSQL at {at}: {why}")]
    Unreachable {
        /// Where.
        at: String,
        /// Why not.
        why: String,
    },
    /// The local server refused a statement.
    #[error("PostgreSQL refused to {what}: {why}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        why: String,
    },
}

impl PostgresError {
    /// For `map_err` on operations with files.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
