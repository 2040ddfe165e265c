//! The few durable facts beside the log.

use std::path::{Path, PathBuf};

use crate::log::Meta;
use crate::{StorageError, envelope};

/// The largest fact: with all of them that large, their page still stays inside sled's one synced file.
const FACT_BYTES: usize = 8192;

/// Facts in a sled tree.
#[derive(Clone)]
pub(crate) struct Facts {
    tree: sled::Tree,
    path: PathBuf,
}

impl Facts {
    pub(crate) fn new(tree: sled::Tree, path: &Path) -> Self {
        Self {
            tree,
            path: path.to_owned(),
        }
    }

    /// Stores a fact. The place of the purged pointer keeps the floor that purging gave it.
    pub(crate) fn put(&self, key: Meta, value: &[u8]) -> Result<(), StorageError> {
        match key {
            Meta::Purged => self.put_purged(self.floor()?, value),
            _ => self.store(key, value),
        }
    }

    /// Stores the purged pointer together with the first index that is still wanted: one value, so that neither can be
    /// on disk without the other.
    pub(crate) fn put_purged(&self, floor: u64, pointer: &[u8]) -> Result<(), StorageError> {
        self.store(Meta::Purged, &[&floor.to_le_bytes(), pointer].concat())
    }

    /// Reads a fact.
    pub(crate) fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError> {
        match key {
            Meta::Purged => Ok(self.purged()?.map(|(_, pointer)| pointer)),
            _ => self.load(key),
        }
    }

    /// The first index that has not been purged; zero when nothing has.
    pub(crate) fn floor(&self) -> Result<u64, StorageError> {
        Ok(self.purged()?.map_or(0, |(floor, _)| floor))
    }

    /// Reads every fact once.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        Meta::ALL.into_iter().try_for_each(|key| self.get(key).map(drop))
    }

    fn purged(&self) -> Result<Option<(u64, Vec<u8>)>, StorageError> {
        let Some(bytes) = self.load(Meta::Purged)? else {
            return Ok(None);
        };
        let Some((floor, pointer)) = bytes.split_first_chunk::<8>() else {
            return Err(StorageError::corrupt(
                &self.path,
                "the purged pointer is too short",
            ));
        };
        Ok(Some((u64::from_le_bytes(*floor), pointer.to_vec())))
    }

    fn store(&self, key: Meta, value: &[u8]) -> Result<(), StorageError> {
        let name = key.name();
        if value.len() > FACT_BYTES {
            return Err(StorageError::TooLarge {
                key: name,
                size: value.len(),
                limit: FACT_BYTES,
            });
        }
        let stored = self.tree.insert(name, envelope::seal(name.as_bytes(), value));
        stored
            .map(drop)
            .map_err(|error| StorageError::sled(&self.path, "store a fact", &error))
    }

    fn load(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError> {
        let name = key.name();
        let stored = self
            .tree
            .get(name)
            .map_err(|error| StorageError::sled(&self.path, "read a fact", &error))?;
        let open = |sealed: sled::IVec| {
            envelope::open(name.as_bytes(), &sealed, &self.path, name).map(<[u8]>::to_vec)
        };
        stored.map(open).transpose()
    }
}
