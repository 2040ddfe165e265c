//! Puts a data directory aside instead of removing it, and removes what was put aside.

use super::{Postgres, PostgresError, files};
use std::path::{Path, PathBuf};

/// The place of an unfinished copy inside a mount point.
const COPY_INSIDE: &str = "data.matriarch-new";

/// Names in a mount point that are not part of a database cluster.
pub(super) fn is_ours(name: &str) -> bool {
    let moved = name
        .rsplit_once(".moved-")
        .is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    moved || name == COPY_INSIDE || name == "lost+found"
}

impl Postgres {
    /// Puts the data aside, be it what an interrupted rewind left; answers where old data now waits to be removed,
    /// be it from an earlier attempt.
    pub fn move_aside(&self) -> Result<Option<PathBuf>, PostgresError> {
        let dir = self.data_dir();
        let rewinding = files::beside(dir, ".rewinding");
        let filled = files::names(dir)?.is_some_and(|names| names.iter().any(|name| !is_ours(name)));
        // What was being rewound may be the only copy of something, unless there is data beside it.
        let old = if filled {
            files::remove_tree(&rewinding)?;
            dir
        } else if files::exists(&rewinding) {
            &rewinding
        } else {
            return Ok(self.last_aside());
        };
        let free = self.aside_number().map_or(1, |last| last + 1);
        let aside = self.aside(free);
        if files::is_mount_point(old) {
            self.empty_into(old, &aside)?;
        } else {
            files::rename(old, &aside)?;
        }
        Ok(Some(aside))
    }

    /// A mount point cannot be renamed, but what it holds can, within its file system. What makes a server take the rest
    /// for a database cluster goes first.
    fn empty_into(&self, dir: &Path, aside: &Path) -> Result<(), PostgresError> {
        files::make_private_dir(aside, self.owner())?;
        let mut names = files::names(dir)?.unwrap_or_default();
        names.retain(|name| !is_ours(name));
        names.sort_by_key(|name| name != "PG_VERSION");
        for name in names {
            files::rename(&dir.join(&name), &aside.join(&name))?;
        }
        files::sync_dir(dir)
    }

    /// Brings a whole copy from its place in a mount point to where it belongs; a server refuses it until it is whole.
    pub(super) fn spread(&self, copy: &Path) -> Result<(), PostgresError> {
        let dir = self.data_dir();
        let mut names = files::names(copy)?.unwrap_or_default();
        names.sort_by_key(|name| name == "PG_VERSION");
        for name in names {
            files::rename(&copy.join(&name), &dir.join(&name))?;
        }
        files::sync_dir(copy)?;
        files::remove_tree(copy)
    }

    /// Where a copy is made: beside the data directory, or inside it where it is a mount point.
    pub(super) fn copy_place(&self) -> PathBuf {
        if files::is_mount_point(self.data_dir()) {
            self.data_dir().join(COPY_INSIDE)
        } else {
            files::beside(self.data_dir(), ".matriarch-new")
        }
    }

    /// Removes data that was put aside.
    pub fn discard_aside(&self, path: &Path) -> Result<(), PostgresError> {
        let ours = self.aside_prefix().is_some_and(|prefix| {
            (path.parent() == self.data_dir().parent() || path.parent() == Some(self.data_dir()))
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
        super::memory::free(path);
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
            for name in files::names(dir)?.unwrap_or_default() {
                if !is_ours(&name) {
                    files::remove(&dir.join(name))?;
                }
            }
            return Ok(());
        }
        let failed = files::beside(dir, ".failed");
        super::memory::free(&failed);
        files::remove_tree(&failed)?;
        files::rename(dir, &failed)
    }

    fn aside(&self, number: u32) -> PathBuf {
        let dir = self.data_dir();
        match self.aside_prefix().filter(|_| files::is_mount_point(dir)) {
            Some(prefix) => dir.join(format!("{prefix}{number}")),
            None => files::beside(dir, &format!(".moved-{number}")),
        }
    }

    fn aside_prefix(&self) -> Option<String> {
        let name = self.data_dir().file_name()?.to_string_lossy().into_owned();
        Some(format!("{name}.moved-"))
    }

    fn aside_number(&self) -> Option<u32> {
        let prefix = self.aside_prefix()?;
        let dir = self.data_dir();
        let home = if files::is_mount_point(dir) {
            dir
        } else {
            dir.parent()?
        };
        let names = files::names(home).ok()??;
        names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.parse().ok())
            .max()
    }

    pub(super) fn last_aside(&self) -> Option<PathBuf> {
        self.aside_number().map(|number| self.aside(number))
    }
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn what_is_no_part_of_a_database_cluster() {
        for name in ["data.moved-1", "data.matriarch-new", "lost+found"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["PG_VERSION", "base", "data.moved-x", "moved-1"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
