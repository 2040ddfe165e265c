//! The store: a log in sled, its facts, its snapshots, opened only when whole and ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::entries::Entries;
use crate::facts::Facts;
use crate::flusher::{Disk, Flusher};
use crate::log::{Done, Entry, Log, Meta};
use crate::nudge::Nudge;
use crate::progress::Progress;
use crate::{Snapshot, Snapshots, StorageError, engine, files, identity};

/// How long a caller waits for the disk before it calls the store dead.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);

/// What may be chosen about a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether a sync waits for the device. `false` only to show in a test that the waiting is needed.
    pub fdatasync: bool,
    /// Memory for sled's pages.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fdatasync: true,
            cache_bytes: 4 << 20,
        }
    }
}

/// A durable log with its facts and snapshots; clones share it, the last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

// The order of the fields is the order of closing: the flush thread ends first, the lock is given back last.
struct Inner {
    flusher: Flusher,
    entries: Entries,
    facts: Facts,
    snapshots: Snapshots,
    /// Held while inserting and asking for the sync, so that acknowledgements come in the order of the log.
    order: Mutex<()>,
    /// Held for writing while entries are deleted, so that no reader meets half of one.
    shape: RwLock<()>,
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Opens the store of `cluster` in `dir`, or creates it there if `dir` is empty or absent.
    ///
    /// A store that is damaged, of a newer format, of another cluster or in use is refused and left as it is.
    pub fn open(dir: &Path, cluster: &str, options: Options) -> Result<Self, StorageError> {
        files::create_dir(dir)?;
        let lock = lock(&dir.join("lock"))?;
        let log = dir.join("log");
        if identity::check(dir, cluster)? {
            engine::rehearse(dir, &log, &options)?;
        } else {
            if log.exists() {
                return Err(StorageError::corrupt(
                    &dir.join("identity"),
                    "the file is missing",
                ));
            }
            identity::write(dir, cluster)?;
        }
        let (db, file) = engine::open(&log, &options)?;
        let path = log.join("db");
        let tree = |name: &str| {
            db.open_tree(name)
                .map_err(|error| StorageError::sled(&path, "open a tree", &error))
        };
        let entries = Entries::new(tree("log")?, &path);
        let meta = tree("meta")?;
        let facts = Facts::new(meta.clone(), &path);
        entries.remove_below(facts.floor()?)?;
        let nudge = Nudge::start(meta.clone(), &path)?;
        let progress = Progress::open(dir, meta)?;
        let snapshots = Snapshots::open(&dir.join("snapshots"))?;
        files::sync_dir(dir)?;
        let flusher = Flusher::start(Disk {
            db,
            file,
            path,
            progress,
            nudge,
            fdatasync: options.fdatasync,
        })?;
        let inner = Inner {
            flusher,
            entries,
            facts,
            snapshots,
            order: Mutex::default(),
            shape: RwLock::default(),
            dir: dir.to_owned(),
            _lock: lock,
        };
        let store = Self(Arc::new(inner));
        store.sync()?;
        Ok(store)
    }

    /// The snapshots beside the log.
    pub fn snapshots(&self) -> Snapshots {
        self.0.snapshots.clone()
    }

    /// Where the store is.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The bytes of all its files.
    pub fn size_on_disk(&self) -> u64 {
        files::size(&self.0.dir)
    }
}

impl Inner {
    fn alive(&self) -> Result<(), StorageError> {
        self.flusher.error().map_or(Ok(()), Err)
    }

    /// Runs `write`, then asks for a sync that covers it.
    fn write(&self, write: impl FnOnce() -> Result<(), StorageError>, done: Done) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = self.alive().and_then(|()| write()).err();
        self.flusher.request(done, refused);
    }

    /// Runs `write` and waits until it is durable.
    fn write_durably(&self, write: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
        let (answer, outcome) = sync_channel(1);
        self.write(write, Box::new(move |result| drop(answer.send(result))));
        match outcome.recv_timeout(SYNC_PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(StorageError::Closed),
            Err(RecvTimeoutError::Timeout) => {
                let what = format!(
                    "the disk did not finish a sync within {} s",
                    SYNC_PATIENCE.as_secs()
                );
                let error = StorageError::Io {
                    path: self.dir.clone(),
                    what,
                };
                self.flusher.fail(&error);
                Err(error)
            }
        }
    }

    fn reading<T>(&self, read: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
        self.alive()?;
        let _whole = self.shape.read().unwrap_or_else(PoisonError::into_inner);
        read()
    }

    fn deleting(&self, delete: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
        let _alone = self.shape.write().unwrap_or_else(PoisonError::into_inner);
        delete()
    }
}

impl Log for Store {
    fn append(&self, entries: Vec<Entry>, done: Done) {
        let insert = || {
            entries
                .iter()
                .try_for_each(|(index, bytes)| self.0.entries.insert(*index, bytes))
        };
        self.0.write(insert, done);
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        self.0.reading(|| self.0.entries.read(from, to, max_bytes))
    }

    fn last(&self) -> Result<Option<Entry>, StorageError> {
        self.0.reading(|| self.0.entries.last())
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.0
            .write_durably(|| self.0.deleting(|| self.0.entries.remove_from(index)))
    }

    fn purge_to(&self, index: u64, pointer: Vec<u8>) -> Result<(), StorageError> {
        let floor = index.saturating_add(1);
        self.0
            .write_durably(|| self.0.facts.put_purged(floor, &pointer))?;
        let _order = self.0.order.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.deleting(|| self.0.entries.remove_below(floor))
    }

    fn put(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        self.0.write_durably(|| self.0.facts.put(key, &value))
    }

    fn put_lazy(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        self.0.alive()?;
        self.0.facts.put(key, &value)
    }

    fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError> {
        self.0.reading(|| self.0.facts.get(key))
    }

    fn save_snapshot(&self, meta: &[u8], data: &[u8]) -> Result<(), StorageError> {
        self.0.snapshots.save(meta, data)
    }

    fn load_snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        self.0.snapshots.load()
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.0.write_durably(|| Ok(()))
    }
}

fn lock(path: &Path) -> Result<Flock<File>, StorageError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| StorageError::io(path, "open the lock", &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => StorageError::Locked {
            path: path.to_owned(),
        },
        other => StorageError::io(path, "take the lock", &other.into()),
    })
}
