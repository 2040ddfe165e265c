//! Snapshots as files: the newest whole one counts, one older is kept, nothing half-written is ever looked at.

use crate::envelope;
use crate::error::StorageError;
use crate::identity::{io_error, write_durably};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How many files are kept.
const KEEP: usize = 2;

/// Meta bytes and data of a snapshot.
pub type Parts = (Vec<u8>, Vec<u8>);

/// The snapshot files of one store.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, StorageError> {
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        Ok(Self { dir })
    }

    /// Saves a snapshot durably as the newest one.
    pub fn save(&self, meta: &[u8], data: &[u8]) -> Result<(), StorageError> {
        let number = self
            .list()?
            .first()
            .map_or(1, |(number, _)| number.saturating_add(1));
        let path = self.dir.join(format!("{number:020}.snapshot"));
        let length = u64::try_from(meta.len()).unwrap_or(u64::MAX).to_be_bytes();
        let payload = [length.as_slice(), meta, data].concat();
        write_durably(&self.dir, &path, &envelope::seal(&payload))?;
        for (_, old) in self.list()?.into_iter().skip(KEEP) {
            fs::remove_file(&old).map_err(io_error(&old))?;
        }
        Ok(())
    }

    /// The newest snapshot: its meta bytes and its data. A damaged one is refused, not skipped: what an older
    /// one lacks was purged from the log.
    pub fn load(&self) -> Result<Option<Parts>, StorageError> {
        let Some((_, path)) = self.list()?.into_iter().next() else {
            return Ok(None);
        };
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        let payload = envelope::open(&path, "snapshot", &bytes)?;
        split(&payload).map(Some).ok_or_else(|| StorageError::Corrupt {
            path,
            what: "snapshot: wrong lengths".to_owned(),
        })
    }

    /// All snapshot files, newest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StorageError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(io_error(&self.dir)(error)),
        };
        for entry in entries {
            let path = entry.map_err(io_error(&self.dir))?.path();
            if let Some(number) = number(&path) {
                found.push((number, path));
            }
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Ok(found)
    }
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?
        .to_str()?
        .strip_suffix(".snapshot")?
        .parse()
        .ok()
}

fn split(payload: &[u8]) -> Option<Parts> {
    let (length, rest) = payload.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (meta, data) = rest.split_at_checked(length)?;
    Some((meta.to_vec(), data.to_vec()))
}
