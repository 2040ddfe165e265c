//! What a data directory holds, as its control file and its names tell.

use super::conf::MARKER;
use super::{Postgres, PostgresError, aside, files};
use crate::clock;
use crate::cluster::{Lsn, Timeline};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// Reading one small file takes no longer, or the disk is gone.
const DEADLINE_MS: u64 = 10_000;
/// Parameters that a standby must not have lower than its primary, and their names in the control file.
const AT_LEAST: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting"),
    ("max_worker_processes", "max_worker_processes setting"),
    ("max_wal_senders", "max_wal_senders setting"),
    ("max_prepared_transactions", "max_prepared_xacts setting"),
    ("max_locks_per_transaction", "max_locks_per_xact setting"),
];
/// Names that only an unfinished database cluster has without a PG_VERSION.
const TRACES: [&str; 4] = ["base", "global", "pg_wal", "pg_tblspc"];

/// What was found under the name of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// Nothing.
    Absent,
    /// An empty directory.
    Empty,
    /// A database cluster that is not whole; why it is thought so.
    Incomplete(String),
    /// A database cluster.
    Present(Control),
    /// Something that is not ours to touch: one sentence for the operator.
    NotOurs(String),
}

/// The control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Database system identifier.
    pub system_id: u64,
    /// Timeline of the latest checkpoint.
    pub timeline: Timeline,
    /// As pg_controldata says it: `in production`, `shut down`, ...
    pub state: String,
    /// It was a standby when it last ran, or is to be one at its next start.
    pub standby: bool,
    /// Position of the latest checkpoint's record.
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// Bytes of one WAL segment.
    pub segment: u64,
    /// Bytes of one WAL page.
    pub page: u64,
    /// Hint bits are logged.
    pub wal_log_hints: bool,
    /// Data pages carry checksums.
    pub checksums: bool,
    /// What a standby of this data must have at least: parameter and value, as its primary had them.
    pub at_least: BTreeMap<&'static str, u64>,
}

impl Control {
    /// Reads the text of pg_controldata in the C locale.
    fn parse(text: &str) -> Result<Self, String> {
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key, value.trim()))
            .collect();
        let state: String = field(&fields, "Database cluster state")?;
        Ok(Self {
            standby: matches!(state.as_str(), "shut down in recovery" | "in archive recovery"),
            system_id: field(&fields, "Database system identifier")?,
            timeline: Timeline(field(&fields, "Latest checkpoint's TimeLineID")?),
            state,
            checkpoint: field(&fields, "Latest checkpoint location")?,
            redo: field(&fields, "Latest checkpoint's REDO location")?,
            segment: field(&fields, "Bytes per WAL segment")?,
            page: field(&fields, "WAL block size")?,
            wal_log_hints: field::<String>(&fields, "wal_log_hints setting")? == "on",
            checksums: field::<u32>(&fields, "Data page checksum version")? != 0,
            at_least: AT_LEAST
                .iter()
                .map(|(name, key)| field(&fields, key).map(|value| (*name, value)))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn field<T: FromStr>(fields: &BTreeMap<&str, &str>, key: &str) -> Result<T, String> {
    let value = fields.get(key).ok_or_else(|| format!("it printed no '{key}'"))?;
    value
        .parse()
        .map_err(|_| format!("it printed '{value}' as '{key}'"))
}

impl Postgres {
    /// Looks at the data directory; blocking, a few milliseconds.
    pub fn inspect(&self) -> Result<DataDir, PostgresError> {
        let dir = self.data_dir();
        let shown = dir.display();
        let rewinding = files::beside(dir, ".rewinding");
        if !files::exists(dir) {
            let left = files::exists(&rewinding);
            return Ok(if left {
                DataDir::Incomplete(format!(
                    "a rewind was interrupted and left {}",
                    rewinding.display()
                ))
            } else {
                DataDir::Absent
            });
        }
        if !dir.is_dir() {
            return Ok(DataDir::NotOurs(format!(
                "postgresql.data_dir: {shown} is not a directory; remove it"
            )));
        }
        let mut names = files::names(dir)?.unwrap_or_default();
        names.retain(|name| !aside::is_ours(name));
        if names.is_empty() {
            return Ok(DataDir::Empty);
        }
        let Some(version) = files::read(&dir.join("PG_VERSION"))? else {
            return Ok(if names.iter().any(|name| TRACES.contains(&name.as_str())) {
                DataDir::Incomplete(format!("{shown} has no PG_VERSION"))
            } else {
                DataDir::NotOurs(format!(
                    "postgresql.data_dir: {shown} holds files that are not a PostgreSQL database cluster; empty it or \
                     name another directory"
                ))
            });
        };
        let (theirs, ours) = (version.trim(), self.version().major);
        if theirs != ours.to_string() {
            return Ok(DataDir::NotOurs(format!(
                "postgresql.data_dir: {shown} was made by PostgreSQL {theirs}, the programs in {} are of {ours}; set \
                 postgresql.bin_dir to those of {theirs}",
                self.parts.bin_dir.display()
            )));
        }
        let control = dir.join("global/pg_control");
        if !files::exists(&control) {
            return Ok(DataDir::Incomplete(format!("{} is missing", control.display())));
        }
        let mut control = self.control()?;
        let signals = ["standby.signal", "recovery.signal"];
        // Our own primaries have the file beside them; a copy of one that has not run yet has the label of its backup.
        let ours = files::exists(&dir.join(MARKER)) && !files::exists(&dir.join("backup_label"));
        control.standby |= !ours && signals.iter().any(|name| files::exists(&dir.join(name)));
        Ok(DataDir::Present(control))
    }

    /// The control file; blocking.
    pub fn control(&self) -> Result<Control, PostgresError> {
        self.control_in(self.data_dir())
    }

    /// The control file of a data directory that was moved aside; blocking.
    pub(super) fn control_in(&self, dir: &Path) -> Result<Control, PostgresError> {
        let failed = |why: String| PostgresError::Program {
            program: "pg_controldata",
            why,
        };
        let path = self.program("pg_controldata");
        let mut command = Command::new(&path);
        command.arg("-D").arg(dir).env("LC_ALL", "C").current_dir("/");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(owner) = self.owner() {
            use std::os::unix::process::CommandExt;
            command.uid(owner.uid).gid(owner.gid);
        }
        let mut child = command
            .spawn()
            .map_err(PostgresError::file("run the program", &path))?;
        let deadline = clock::now().plus(DEADLINE_MS);
        // Its output fits into the pipe, so it ends without being read.
        let status = loop {
            match child
                .try_wait()
                .map_err(PostgresError::file("wait for the program", &path))?
            {
                Some(status) => break status,
                None if clock::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(PostgresError::Late {
                        what: "pg_controldata".to_owned(),
                        seconds: DEADLINE_MS / 1_000,
                    });
                }
            }
        };
        let text = |stream: Option<&mut dyn Read>| {
            let mut bytes = Vec::new();
            if let Some(stream) = stream {
                // What could not be read is missing from the text, and said so below.
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let output = text(child.stdout.as_mut().map(|stream| stream as &mut dyn Read));
        if !status.success() {
            let words = text(child.stderr.as_mut().map(|stream| stream as &mut dyn Read));
            return Err(failed(words.trim().to_owned()));
        }
        Control::parse(&output).map_err(failed)
    }
}
