//! The count of syncs, kept inside the database and beside it, so that a shortened database is noticed.
//!
//! sled reads a damaged end of its file as the end of its history. Before each sync the count goes into the
//! database; after it, into the file `synced` (written, not synced: it may lag behind, it can never run ahead). A
//! database whose count is below the file's has lost something that was durable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{StorageError, envelope, files};

const NAME: &[u8] = b"synced";

/// The two counts.
pub(crate) struct Progress {
    meta: sled::Tree,
    file: File,
    path: PathBuf,
    count: u64,
}

impl Progress {
    /// Where the count beside the database is.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("synced")
    }

    /// Goes on counting in a checked database.
    pub(crate) fn open(dir: &Path, meta: sled::Tree) -> Result<Self, StorageError> {
        let path = Self::path(dir);
        if files::read(&path)?.is_none() {
            files::replace(&path, &[&envelope::seal(NAME, &0_u64.to_le_bytes())])?;
        }
        let file = File::options()
            .write(true)
            .open(&path)
            .map_err(|error| StorageError::io(&path, "open the file", &error))?;
        let count = inside(&meta, &path)?;
        Ok(Self {
            meta,
            file,
            path,
            count,
        })
    }

    /// Checks that the database holds every sync that was reported.
    pub(crate) fn check(dir: &Path, meta: &sled::Tree, database: &Path) -> Result<(), StorageError> {
        let inside = inside(meta, database)?;
        match beside(dir)? {
            None if inside == 0 => Ok(()),
            None => Err(StorageError::corrupt(&Self::path(dir), "the file is missing")),
            Some(beside) if beside <= inside => Ok(()),
            Some(beside) => Err(StorageError::corrupt(
                database,
                format!("it ends at sync {inside}, but sync {beside} had been completed"),
            )),
        }
    }

    /// The next sync is about to cover everything inserted so far.
    pub(crate) fn begin(&mut self) -> Result<(), StorageError> {
        self.count = self.count.saturating_add(1);
        let sealed = envelope::seal(NAME, &self.count.to_le_bytes());
        let stored = self.meta.insert(NAME, sealed);
        stored
            .map(drop)
            .map_err(|error| StorageError::sled(&self.path, "count the sync", &error))
    }

    /// The sync has succeeded.
    pub(crate) fn finish(&mut self) -> Result<(), StorageError> {
        let sealed = envelope::seal(NAME, &self.count.to_le_bytes());
        self.file
            .write_all_at(&sealed, 0)
            .map_err(|error| StorageError::io(&self.path, "write the file", &error))
    }
}

/// The count beside the database; `None` before the first sync of a new store.
pub(crate) fn beside(dir: &Path) -> Result<Option<u64>, StorageError> {
    let path = Progress::path(dir);
    files::read(&path)?.map(|bytes| parse(&bytes, &path)).transpose()
}

fn inside(meta: &sled::Tree, path: &Path) -> Result<u64, StorageError> {
    let stored = meta
        .get(NAME)
        .map_err(|error| StorageError::sled(path, "read the count of syncs", &error))?;
    stored.map_or(Ok(0), |bytes| parse(&bytes, path))
}

fn parse(bytes: &[u8], path: &Path) -> Result<u64, StorageError> {
    let payload = envelope::open(NAME, bytes, path, "the count of syncs")?;
    let count = payload.try_into().map(u64::from_le_bytes);
    count.map_err(|_| StorageError::corrupt(path, "the count of syncs has a wrong length"))
}
