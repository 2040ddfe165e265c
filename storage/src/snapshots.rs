//! Snapshots of the state machine as files of their own: written aside, synced, renamed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{StorageError, envelope, files};

/// Snapshots kept, the newest included; the older one is for people, it is never loaded by itself.
const KEPT: usize = 2;

const NAME: &[u8] = b"snapshot";

/// What describes a snapshot, and its data.
pub type Snapshot = (Vec<u8>, Vec<u8>);

/// The snapshots of a store; clones share them.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
    saving: Arc<Mutex<()>>,
}

impl Snapshots {
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        files::create_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            saving: Arc::default(),
        })
    }

    /// Stores a snapshot and what describes it, durably, as the newest.
    pub fn save(&self, meta: &[u8], data: &[u8]) -> Result<(), StorageError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let older = self.list()?;
        let number = older.last().map_or(1, |(number, _)| number.saturating_add(1));
        let length = u64::try_from(meta.len()).unwrap_or(u64::MAX).to_le_bytes();
        let sealed = envelope::seal(NAME, &[&length, meta, data].concat());
        files::replace(&self.dir.join(format!("{number:016}.snapshot")), &[&sealed])?;
        for (_, path) in older.iter().rev().skip(KEPT - 1) {
            fs::remove_file(path)
                .map_err(|error| StorageError::io(path, "remove the old snapshot", &error))?;
        }
        Ok(())
    }

    /// The newest snapshot; a damaged one is an error, never a reason to take the older one.
    pub fn load(&self) -> Result<Option<Snapshot>, StorageError> {
        let _no_removal = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, path)) = self.list()?.pop() else {
            return Ok(None);
        };
        let Some(sealed) = files::read(&path)? else {
            return Ok(None);
        };
        let payload = envelope::open(NAME, &sealed, &path, "the snapshot")?;
        let parts = payload.split_first_chunk::<8>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
        });
        let (meta, data) = parts.ok_or_else(|| StorageError::corrupt(&path, "the snapshot is too short"))?;
        Ok(Some((meta.to_vec(), data.to_vec())))
    }

    /// Number and path of each snapshot, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StorageError> {
        let failed = |error| StorageError::io(&self.dir, "list the snapshots", &error);
        let mut found = Vec::new();
        for item in fs::read_dir(&self.dir).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| stem.parse().ok());
            if let (Some(number), Some("snapshot")) = (number, path.extension().and_then(|e| e.to_str())) {
                found.push((number, path));
            }
        }
        found.sort();
        Ok(found)
    }
}
