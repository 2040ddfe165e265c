//! Puts a data directory aside instead of removing it, and removes what was put aside.

use super::{Postgres, PostgresError, files};
use std::path::{Path, PathBuf};

impl Postgres {
    /// Puts the data aside, be it what an interrupted rewind left; answers where old data now waits to be removed,
    /// be it from an earlier attempt.
    pub fn move_aside(&self) -> Result<Option<PathBuf>, PostgresError> {
        let dir = self.data_dir();
        let rewinding = files::beside(dir, ".rewinding");
        let filled = files::names(dir)?.is_some_and(|names| !names.is_empty());
        // What was being rewound may be the only copy of something, unless there is data beside it.
        let old = if filled {
            files::remove_tree(&rewinding)?;
            dir
        } else if files::exists(&rewinding) {
            &rewinding
        } else {
            return Ok(self.last_aside());
        };
        if files::is_mount_point(old) {
            return Err(PostgresError::Misconfigured(format!(
                "postgresql.data_dir: {} is a mount point and its data cannot be moved aside; empty it by hand, or name \
                 a directory in it",
                old.display()
            )));
        }
        let free = self.aside_number().map_or(1, |last| last + 1);
        let aside = self.aside(free);
        files::rename(old, &aside)?;
        Ok(Some(aside))
    }

    /// Removes data that was put aside.
    pub fn discard_aside(&self, path: &Path) -> Result<(), PostgresError> {
        let ours = self.aside_prefix().is_some_and(|prefix| {
            path.parent() == self.data_dir().parent()
                && path
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        });
        if !ours {
            return Err(PostgresError::Misconfigured(format!(
                "{} was not put aside from {} and is not removed",
                path.display(),
                self.data_dir().display()
            )));
        }
        files::remove_tree(path)?;
        files::sync_parent(path)
    }

    /// Puts a database cluster whose creation failed to `<data_dir>.failed`, in place of an older one there.
    pub fn remove_own_failed_bootstrap(&self) -> Result<(), PostgresError> {
        let dir = self.data_dir();
        if files::names(dir)?.is_none_or(|names| names.is_empty()) {
            return Ok(());
        }
        if files::is_mount_point(dir) {
            return Err(PostgresError::Misconfigured(format!(
                "postgresql.data_dir: {} holds a database cluster whose creation failed, and is a mount point; empty it \
                 by hand",
                dir.display()
            )));
        }
        let failed = files::beside(dir, ".failed");
        files::remove_tree(&failed)?;
        files::rename(dir, &failed)
    }

    fn aside(&self, number: u32) -> PathBuf {
        files::beside(self.data_dir(), &format!(".moved-{number}"))
    }

    fn aside_prefix(&self) -> Option<String> {
        let name = self.data_dir().file_name()?.to_string_lossy().into_owned();
        Some(format!("{name}.moved-"))
    }

    fn aside_number(&self) -> Option<u32> {
        let prefix = self.aside_prefix()?;
        let names = files::names(self.data_dir().parent()?).ok()??;
        names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.parse().ok())
            .max()
    }

    pub(super) fn last_aside(&self) -> Option<PathBuf> {
        self.aside_number().map(|number| self.aside(number))
    }
}
