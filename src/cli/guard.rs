//! `matriarch guard`: hidden; the daemon starts it.

use crate::guard::process::{self, GuardArgs};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Stand between a daemon and its PostgreSQL.
#[derive(Args, Debug)]
pub struct Guard {
    /// The Raft directory
    #[arg(long)]
    dir: PathBuf,
    /// The data directory
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Guard {
    pub(super) fn execute(self) -> ExitCode {
        process::main(&GuardArgs {
            dir: self.dir,
            data_dir: self.data_dir,
        })
    }
}
