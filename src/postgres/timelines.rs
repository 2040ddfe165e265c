//! The history files in pg_wal: how timelines began, and which numbers may not be used again.

use super::{Postgres, PostgresError, files};
use crate::cluster::{Fork, Lsn, Timeline};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl Postgres {
    /// Makes sure that the next promotion ends on `target`: lower unused numbers get an empty history file.
    pub fn reserve_timelines(&self, current: Timeline, target: Timeline) -> Result<(), PostgresError> {
        for number in current.0.saturating_add(1)..target.0 {
            let path = self.history_path(Timeline(number));
            if !files::exists(&path) {
                files::create(&path, "", self.owner())?;
            }
        }
        files::sync_dir(&self.wal_dir())
    }

    /// Takes back reservations that no promotion has used: a server that starts as a standby takes the newest number
    /// for the timeline to follow, and refuses one whose empty history does not lead to its own.
    pub(super) fn release_timelines(&self) -> Result<(), PostgresError> {
        // A running server may be using them at this moment.
        if self.is_running() {
            return Ok(());
        }
        let names = files::names(&self.wal_dir())?.unwrap_or_default();
        let mut empty = Vec::new();
        // Names are sorted, so what is left in `empty` lies beyond the newest history that says something.
        for name in names.iter().filter(|name| name.ends_with(".history")) {
            let path = self.wal_dir().join(name);
            if files::read(&path)?.is_some_and(|text| text.is_empty()) {
                empty.push(path);
            } else {
                empty.clear();
            }
        }
        if empty.is_empty() {
            return Ok(());
        }
        empty.iter().try_for_each(|path| files::remove_file(path))?;
        files::sync_dir(&self.wal_dir())
    }

    /// Whether the process named in postmaster.pid lives and works in the data directory.
    fn is_running(&self) -> bool {
        let pid = files::read(&self.data_dir().join("postmaster.pid"))
            .ok()
            .flatten();
        let pid = pid.and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
        let place = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        let works = pid.and_then(|pid| place(Path::new(&format!("/proc/{pid}/cwd"))));
        works.is_some() && works == place(self.data_dir())
    }

    /// How a timeline began, as its history file says.
    pub fn fork_of(&self, timeline: Timeline) -> Option<Fork> {
        self.ancestors(timeline).last().map(|(parent, switch)| Fork {
            timeline,
            parent: *parent,
            switch: *switch,
        })
    }

    /// The timelines before this one, oldest first, each with the position where it was left.
    pub(super) fn ancestors(&self, timeline: Timeline) -> Vec<(Timeline, Lsn)> {
        let text = files::read(&self.history_path(timeline))
            .ok()
            .flatten()
            .unwrap_or_default();
        text.lines().filter_map(history_line).collect()
    }

    pub(super) fn wal_dir(&self) -> PathBuf {
        self.data_dir().join("pg_wal")
    }

    fn history_path(&self, timeline: Timeline) -> PathBuf {
        self.wal_dir().join(format!("{:08X}.history", timeline.0))
    }
}

fn history_line(line: &str) -> Option<(Timeline, Lsn)> {
    let mut words = line.split_whitespace();
    let parent = words.next()?.parse().ok()?;
    Some((Timeline(parent), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(
            history_line("1\t0/3000060\tno recovery target specified"),
            Some((Timeline(1), Lsn(0x0300_0060)))
        );
        assert_eq!(history_line(""), None);
        assert_eq!(history_line("# comment"), None);
    }
}
