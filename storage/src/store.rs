//! The log and the facts in sled, behind the [`Log`] trait.

use crate::error::StorageError;
use crate::flusher::Flusher;
use crate::identity::{self, io_error, sync_dir};
use crate::snapshots::Snapshots;
use crate::witness::Witness;
use crate::{Done, Log, Meta, envelope};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Memory for sled's pages; the log is small and mostly written.
const CACHE: u64 = 4 << 20;

/// How often and how long a lock is waited for, half a second in all.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sync to the disk before anything is acknowledged. Off only in the test that shows what it is for.
    pub fdatasync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fdatasync: true }
    }
}

/// An open store; clones share it, the last one closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    // Before `db`: the flush thread holds a handle of it and must have ended when the lock is given up.
    flusher: Flusher,
    log: sled::Tree,
    meta: sled::Tree,
    db: sled::Db,
    snapshots: Snapshots,
    dir: PathBuf,
    path: PathBuf,
}

impl Store {
    /// Opens or creates the store of `cluster` in `dir`. Refuses, and changes nothing, when it is damaged, newer, of
    /// another cluster, or open elsewhere.
    pub fn open(dir: &Path, cluster: &str, options: Options) -> Result<Self, StorageError> {
        std::fs::create_dir_all(dir).map_err(io_error(dir))?;
        let path = dir.join("log");
        identity::check(dir, cluster, path.exists())?;
        let db = open_patiently(&path)?;
        let error = |error| sled_error(&path, error);
        let (log, meta) = (
            db.open_tree("log").map_err(error)?,
            db.open_tree("meta").map_err(error)?,
        );
        db.flush().map_err(error)?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(io_error(&path))?;
        file.sync_all().map_err(io_error(&path))?;
        for dir in [path.as_path(), dir] {
            sync_dir(dir).map_err(io_error(dir))?;
        }
        let witness = Witness::open(dir, meta.clone(), &path)?;
        let flusher = Flusher::start(db.clone(), witness, file, &path, options.fdatasync)?;
        let snapshots = Snapshots::open(dir.join("snapshots"))?;
        let inner = Inner {
            flusher,
            log,
            meta,
            db,
            snapshots,
            dir: dir.to_owned(),
            path,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.verify()?;
        Ok(store)
    }

    /// The snapshot files.
    pub fn snapshots(&self) -> Snapshots {
        self.inner.snapshots.clone()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Bytes that the log takes on disk.
    pub fn size_on_disk(&self) -> u64 {
        self.inner.db.size_on_disk().unwrap_or(0)
    }

    /// Reads everything once, so that damage is found at the start and not in the middle of an election.
    fn verify(&self) -> Result<(), StorageError> {
        for meta in [
            Meta::Vote,
            Meta::Committed,
            Meta::Purged,
            Meta::Node,
            Meta::Formation,
        ] {
            self.get(meta)?;
        }
        let mut expected = None;
        for item in &self.inner.log {
            let (key, value) = item.map_err(|error| self.error(error))?;
            let index = self.index(&key)?;
            if expected.is_some_and(|expected| index != expected) {
                return Err(self.corrupt(format!("entry {index} follows a gap")));
            }
            envelope::open(&self.inner.path, &format!("entry {index}"), &value)?;
            expected = index.checked_add(1);
        }
        self.snapshots().load().map(|_| ())
    }

    fn error(&self, error: sled::Error) -> StorageError {
        sled_error(&self.inner.path, error)
    }

    fn corrupt(&self, what: String) -> StorageError {
        StorageError::Corrupt {
            path: self.inner.path.clone(),
            what,
        }
    }

    fn index(&self, key: &[u8]) -> Result<u64, StorageError> {
        let bytes: [u8; 8] = key
            .try_into()
            .map_err(|_| self.corrupt(format!("a key of {} bytes", key.len())))?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<(u64, Vec<u8>), StorageError> {
        let index = self.index(key)?;
        Ok((
            index,
            envelope::open(&self.inner.path, &format!("entry {index}"), value)?,
        ))
    }

    fn insert_all(&self, entries: Vec<(u64, Vec<u8>)>) -> Result<(), StorageError> {
        self.inner.flusher.check()?;
        let mut batch = sled::Batch::default();
        for (index, payload) in entries {
            batch.insert(&index.to_be_bytes(), envelope::seal(&payload));
        }
        self.inner
            .log
            .apply_batch(batch)
            .map_err(|error| self.error(error))
    }

    fn remove_range(&self, range: impl std::ops::RangeBounds<[u8; 8]>) -> Result<(), StorageError> {
        let mut batch = sled::Batch::default();
        for key in self.inner.log.range(range).keys() {
            batch.remove(key.map_err(|error| self.error(error))?);
        }
        self.inner
            .log
            .apply_batch(batch)
            .map_err(|error| self.error(error))
    }
}

impl Log for Store {
    fn append(&self, entries: Vec<(u64, Vec<u8>)>, done: Done) {
        match self.insert_all(entries) {
            Ok(()) => self.inner.flusher.request(done),
            Err(why) => done(Err(why)),
        }
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
        if from >= to {
            return Ok(found);
        }
        let mut bytes = 0_usize;
        for item in self.inner.log.range(from.to_be_bytes()..to.to_be_bytes()) {
            let (key, value) = item.map_err(|error| self.error(error))?;
            let entry = self.entry(&key, &value)?;
            if found
                .last()
                .is_some_and(|(last, _)| last.checked_add(1) != Some(entry.0))
            {
                return Err(self.corrupt(format!("entry {} follows a gap", entry.0)));
            }
            bytes = bytes.saturating_add(entry.1.len());
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }

    fn last(&self) -> Result<Option<(u64, Vec<u8>)>, StorageError> {
        let last = self.inner.log.last().map_err(|error| self.error(error))?;
        last.map(|(key, value)| self.entry(&key, &value)).transpose()
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.inner.flusher.check()?;
        self.remove_range(index.to_be_bytes()..)?;
        self.inner.flusher.wait()
    }

    fn purge_to(&self, index: u64, pointer: Vec<u8>) -> Result<(), StorageError> {
        self.put(Meta::Purged, pointer)?;
        self.remove_range(..=index.to_be_bytes())
    }

    fn put(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        self.put_lazy(key, value)?;
        self.inner.flusher.wait()
    }

    fn put_lazy(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        self.inner.flusher.check()?;
        self.inner
            .meta
            .insert(key.key(), envelope::seal(&value))
            .map_err(|error| self.error(error))?;
        Ok(())
    }

    fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self
            .inner
            .meta
            .get(key.key())
            .map_err(|error| self.error(error))?;
        value
            .map(|value| envelope::open(&self.inner.path, &format!("{key:?}"), &value))
            .transpose()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.inner.flusher.wait()
    }
}

/// sled's own threads give up the lock of a store that was just closed a moment later.
fn open_patiently(path: &Path) -> Result<sled::Db, StorageError> {
    for _ in 0..LOCK_TRIES {
        match open_sled(path) {
            Err(StorageError::Locked { .. }) => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
    open_sled(path)
}

fn open_sled(path: &Path) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
        .print_profile_on_drop(false);
    // sled panics on some kinds of damage; to the operator that is damage like any other.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())).map_or_else(
        |_| {
            Err(StorageError::Corrupt {
                path: path.to_owned(),
                what: "sled cannot read it".to_owned(),
            })
        },
        |opened| opened.map_err(|error| sled_error(path, error)),
    )
}

fn sled_error(path: &Path, error: sled::Error) -> StorageError {
    let path = path.to_owned();
    match error {
        sled::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            StorageError::Locked { path }
        }
        sled::Error::Io(error) if error.to_string().contains("acquire lock") => StorageError::Locked { path },
        sled::Error::Io(error) => StorageError::Io {
            path,
            what: error.to_string(),
        },
        sled::Error::Unsupported(what) | sled::Error::ReportableBug(what) => {
            StorageError::Corrupt { path, what }
        }
        error @ (sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_)) => {
            StorageError::Corrupt {
                path,
                what: error.to_string(),
            }
        }
    }
}
