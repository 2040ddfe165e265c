//! Log entries in a sled tree, cut into pieces small enough to stay inside sled's one synced file.
//!
//! sled moves a page that passes 128 KiB into a file of its own which it never syncs. A leaf holds at most about
//! seventeen values, so values of at most 4 KiB keep every page in the main file.
//!
//! ```text
//!  key: index (8 bytes, big-endian)               value: head  = number of further pieces (u32) + first bytes
//!  key: index ++ piece number (4, big-endian)     value: the following bytes
//! ```
//! The head is written last and deleted last from the top (first from the bottom), and sled recovers a prefix of its
//! history: a head on disk means that all its pieces are there. Pieces without a head are leftovers of an append that
//! was never acknowledged; readers pass over them and purging removes them.

use std::path::{Path, PathBuf};

use sled::IVec;

use crate::log::Entry;
use crate::{StorageError, envelope};

/// Bytes of an entry in one sled value.
const PIECE_BYTES: usize = 4096;

/// The entries of a log.
#[derive(Clone)]
pub(crate) struct Entries {
    tree: sled::Tree,
    path: PathBuf,
}

impl Entries {
    pub(crate) fn new(tree: sled::Tree, path: &Path) -> Self {
        Self {
            tree,
            path: path.to_owned(),
        }
    }

    /// Writes one entry.
    pub(crate) fn insert(&self, index: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let (first, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES));
        let mut pieces = 0_u32;
        for (number, piece) in (1_u32..).zip(rest.chunks(PIECE_BYTES)) {
            self.put(&piece_key(index, number), piece)?;
            pieces = number;
        }
        let head = [&pieces.to_le_bytes(), first].concat();
        self.put(&index.to_be_bytes(), &head)
    }

    /// See [`crate::Log::read`].
    pub(crate) fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let mut found: Vec<Entry> = Vec::new();
        let mut total = 0_usize;
        if from >= to {
            return Ok(found);
        }
        for item in self.tree.range(from.to_be_bytes()..to.to_be_bytes()) {
            let (key, value) = item.map_err(|error| self.failed("read the log", &error))?;
            let Some(index) = head_index(&key) else { continue };
            if found
                .last()
                .is_some_and(|(last, _)| last.checked_add(1) != Some(index))
            {
                break;
            }
            let bytes = self.assemble(index, &value)?;
            total = total.saturating_add(bytes.len());
            if total > max_bytes && !found.is_empty() {
                break;
            }
            found.push((index, bytes));
        }
        Ok(found)
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Result<Option<Entry>, StorageError> {
        for item in self.tree.iter().rev() {
            let (key, value) = item.map_err(|error| self.failed("read the end of the log", &error))?;
            if let Some(index) = head_index(&key) {
                return Ok(Some((index, self.assemble(index, &value)?)));
            }
        }
        Ok(None)
    }

    /// Removes `index` and everything after it, from the top, so that an interruption leaves no hole.
    pub(crate) fn remove_from(&self, index: u64) -> Result<(), StorageError> {
        self.remove(self.tree.range(index.to_be_bytes()..).keys().rev())
    }

    /// Removes everything below `index`, from the bottom.
    pub(crate) fn remove_below(&self, index: u64) -> Result<(), StorageError> {
        self.remove(self.tree.range(..index.to_be_bytes()).keys())
    }

    /// Reads everything once: every value whole, no hole, and nothing missing at `floor` if something was purged.
    pub(crate) fn check(&self, floor: u64) -> Result<(), StorageError> {
        let mut expected = (floor > 0).then_some(floor);
        for item in self.tree.range(floor.to_be_bytes()..) {
            let (key, value) = item.map_err(|error| self.failed("read the log", &error))?;
            let Some(index) = head_index(&key) else { continue };
            if expected.is_some_and(|expected| expected != index) {
                let expected = expected.unwrap_or_default();
                return Err(StorageError::corrupt(
                    &self.path,
                    format!("the log goes on with entry {index} where entry {expected} should be"),
                ));
            }
            self.assemble(index, &value)?;
            expected = index.checked_add(1);
        }
        Ok(())
    }

    fn remove(&self, keys: impl Iterator<Item = sled::Result<IVec>>) -> Result<(), StorageError> {
        for key in keys {
            let removed = key.and_then(|key| self.tree.remove(key));
            removed.map_err(|error| self.failed("shorten the log", &error))?;
        }
        Ok(())
    }

    fn put(&self, key: &[u8], payload: &[u8]) -> Result<(), StorageError> {
        let stored = self.tree.insert(key, envelope::seal(key, payload));
        stored
            .map(drop)
            .map_err(|error| self.failed("append to the log", &error))
    }

    fn assemble(&self, index: u64, head: &[u8]) -> Result<Vec<u8>, StorageError> {
        let what = format!("log entry {index}");
        let payload = envelope::open(&index.to_be_bytes(), head, &self.path, &what)?;
        let Some((pieces, first)) = payload.split_first_chunk::<4>() else {
            return Err(StorageError::corrupt(&self.path, format!("{what} is too short")));
        };
        let mut bytes = first.to_vec();
        for number in 1..=u32::from_le_bytes(*pieces) {
            let key = piece_key(index, number);
            let piece = self
                .tree
                .get(key)
                .map_err(|error| self.failed("read the log", &error))?;
            let Some(piece) = piece else {
                return Err(StorageError::corrupt(
                    &self.path,
                    format!("{what} lacks its piece {number}"),
                ));
            };
            bytes.extend_from_slice(envelope::open(&key, &piece, &self.path, &what)?);
        }
        Ok(bytes)
    }

    fn failed(&self, what: &str, error: &sled::Error) -> StorageError {
        StorageError::sled(&self.path, what, error)
    }
}

fn piece_key(index: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&index.to_be_bytes());
    tail.copy_from_slice(&number.to_be_bytes());
    key
}

/// The index, when the key is that of a head.
fn head_index(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}
