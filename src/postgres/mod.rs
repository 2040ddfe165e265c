//! The hands: everything that touches PostgreSQL's programs, files and SQL, and nothing that decides.
//!
//! ```text
//!   Setup -> Postgres::new     programs found, version and owner checked; nothing touched
//!   files    inspect, write_conf, append_hba, set_standby_signal, move_aside, reserve_timelines, fork_of
//!   programs initdb, base_backup, rewind, wal_end, vet        (run.rs: one way to run one)
//!   commands of the operator: callbacks and scripts     (command.rs)
//!   SQL      Session: probe, promote, reload, slots, checkpoint, roles
//! ```
//!
//! Invariants:
//! - Starting and stopping the server is the guard's; this folder only says how ([`StartSpec`]).
//! - A directory under the name `data_dir` is either a whole database cluster or one that PostgreSQL refuses to
//!   start: copies are made in `<data_dir>.matriarch-new`, rewinds in `<data_dir>.rewinding`, each renamed when done.
//! - Old data is never removed before its replacement is complete; it waits in `<data_dir>.moved-<n>`.
//! - No password stands on a command line, in an error or in a log: programs read our password file.
//! - As root, every program runs as the owner of the data directory, and every file we write there is the owner's from
//!   its first moment: a server reads what appears at once, and ends on what it may not read.
//! - A reserved timeline that no promotion used is taken back before the next start; PostgreSQL would follow it.
//! - A program that is given up ends with everything it started.
//!
//! Caveats: a data directory that is a mount point cannot be renamed. Its old data and an unfinished copy wait in
//! directories inside it, a rewind is made in place. A standby without a WAL receiver knows its timeline only as of its last
//! restart point: what was read from disk before the start ([`Postgres::wal_end`]) may be newer.

mod archive;
mod aside;
mod backup;
mod command;
mod conf;
mod conf_file;
mod conf_place;
mod conninfo;
mod control;
mod drain;
mod error;
mod files;
mod find;
mod found;
mod half_segments;
mod initdb;
mod memory;
mod probe;
mod processes;
mod proof;
mod rewind;
mod roles;
mod run;
mod session;
mod setup;
mod slots;
mod stale_pid;
mod streams;
mod sys;
mod timelines;
mod vet;
mod wal_end;
mod wal_kept;
mod ways;

pub use command::words;
pub use control::{Control, DataDir};
pub use error::PostgresError;
pub use find::Version;
pub use memory::free_below as free_memory_below;
pub use probe::Probe;
pub use proof::Proof;
pub use session::Session;
pub use setup::{Login, ServerConf, Setup, StartSpec, Upstream, slot_name};
pub use streams::Streams;
pub use vet::Refused;

use files::Owner;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The local PostgreSQL: its programs and its data directory.
#[derive(Clone)]
pub struct Postgres {
    parts: Arc<Parts>,
}

struct Parts {
    setup: Setup,
    bin_dir: PathBuf,
    version: Version,
    owner: Option<Owner>,
}

impl Postgres {
    /// Finds the programs, checks version and ownership; touches nothing.
    pub fn new(setup: Setup) -> Result<Self, PostgresError> {
        let (bin_dir, version) = find::programs(setup.bin_dir.as_deref(), &setup.bin_names)?;
        let owner = find::owner(&setup.data_dir)?;
        Ok(Self {
            parts: Arc::new(Parts {
                setup,
                bin_dir,
                version,
                owner,
            }),
        })
    }

    /// The same programs and data with other settings.
    pub fn renewed(&self, setup: Setup) -> Self {
        Self {
            parts: Arc::new(Parts {
                setup,
                bin_dir: self.parts.bin_dir.clone(),
                version: self.parts.version.clone(),
                owner: self.parts.owner,
            }),
        }
    }

    /// Where a program is.
    fn program(&self, name: &str) -> PathBuf {
        find::place(&self.parts.bin_dir, &self.parts.setup.bin_names, name)
    }

    /// Version of the programs.
    pub fn version(&self) -> Version {
        self.parts.version.clone()
    }

    fn setup(&self) -> &Setup {
        &self.parts.setup
    }

    fn data_dir(&self) -> &Path {
        &self.parts.setup.data_dir
    }

    /// Where the configuration files are.
    fn config_dir(&self) -> &Path {
        &self.parts.setup.config_dir
    }

    /// The file that the server is told to read.
    fn main_conf(&self) -> PathBuf {
        self.config_dir().join("postgresql.conf")
    }

    fn owner(&self) -> Option<Owner> {
        self.parts.owner
    }

    /// How the guard starts the server.
    pub fn start_spec(&self, command_line: &[(String, String)]) -> StartSpec {
        let dir = self.data_dir().display();
        let mut args = vec![
            "-D".to_owned(),
            dir.to_string(),
            format!("--config-file={}", self.main_conf().display()),
        ];
        if self.has_config_apart() {
            // The operator's own file may name another directory.
            args.push(format!("--data-directory={dir}"));
        }
        args.extend(
            command_line
                .iter()
                .map(|(name, value)| format!("--{name}={value}")),
        );
        StartSpec {
            program: self.program("postgres"),
            args,
            env: Vec::new(),
            data_dir: self.data_dir().to_owned(),
            user: self.owner().map(|owner| (owner.uid, owner.gid)),
        }
    }
}
