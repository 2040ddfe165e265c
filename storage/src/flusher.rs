//! The one thread that makes writes durable: it drains the queue, syncs once, answers all in order.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::StorageError;
use crate::log::Done;
use crate::nudge::Nudge;
use crate::progress::Progress;

/// Requests that may wait for a sync; more block their callers, which is how a slow disk slows its writers.
const QUEUE: usize = 1024;

/// Durability as a service.
pub(crate) struct Flusher {
    queue: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<OnceLock<StorageError>>,
}

/// Somebody who waits: for the next sync, or for the refusal of what could not even be written.
struct Request {
    done: Done,
    refused: Option<StorageError>,
}

/// What one sync consists of.
pub(crate) struct Disk {
    /// The database whose buffers go to the file first.
    pub(crate) db: sled::Db,
    /// Our own handle of sled's file; sled itself never waits for the device.
    pub(crate) file: File,
    /// Its path, for the sentence when the disk fails.
    pub(crate) path: PathBuf,
    /// Counts the syncs, in the database and beside it.
    pub(crate) progress: Progress,
    /// Watches over syncs that do not end.
    pub(crate) nudge: Nudge,
    /// Whether to wait for the device at all; false only where a test shows that it is needed.
    pub(crate) fdatasync: bool,
}

impl Flusher {
    pub(crate) fn start(disk: Disk) -> Result<Self, StorageError> {
        let failed = Arc::new(OnceLock::new());
        let (queue, requests) = sync_channel(QUEUE);
        let path = disk.path.clone();
        let thread = std::thread::Builder::new()
            .name("storage-flush".to_owned())
            .spawn({
                let failed = Arc::clone(&failed);
                move || run(disk, &requests, &failed)
            })
            .map_err(|error| StorageError::io(&path, "start the flush thread", &error))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            failed,
        })
    }

    /// Asks for a sync of everything written before this call; `done` hears of it. With `refused`, `done` hears of
    /// that instead, still in its turn, and unless it was only a bad request the store has ended.
    pub(crate) fn request(&self, done: Done, refused: Option<StorageError>) {
        if let Some(error) = &refused {
            fail(&self.failed, error);
        }
        let request = Request { done, refused };
        let returned = match &self.queue {
            Some(queue) => queue.send(request).err().map(|returned| returned.0),
            None => Some(request),
        };
        if let Some(Request { done, .. }) = returned {
            done(Err(self.error().unwrap_or(StorageError::Closed)));
        }
    }

    /// Ends the store because of `error`.
    pub(crate) fn fail(&self, error: &StorageError) {
        fail(&self.failed, error);
    }

    /// The error that ended this store, if one did.
    pub(crate) fn error(&self) -> Option<StorageError> {
        self.failed.get().cloned()
    }
}

impl Drop for Flusher {
    /// Ends the queue and waits until what it still holds has been answered.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let is_self = thread.thread().id() == std::thread::current().id();
            // After a failure the disk may hold the thread for ever.
            if !is_self && self.failed.get().is_none() && thread.join().is_err() {
                tracing::error!("the storage flush thread panicked");
            }
        }
    }
}

fn run(mut disk: Disk, requests: &Receiver<Request>, failed: &OnceLock<StorageError>) {
    while let Ok(first) = requests.recv() {
        let batch: Vec<Request> = std::iter::once(first)
            .chain(requests.try_iter().take(QUEUE))
            .collect();
        let outcome = match failed.get() {
            Some(error) => Err(error.clone()),
            None => disk.sync_watched(),
        };
        if let Err(error) = &outcome {
            fail(failed, error);
        }
        for Request { done, refused } in batch {
            done(refused.map_or_else(|| outcome.clone(), Err));
        }
    }
    if failed.get().is_none() {
        // What was written lazily since the last sync.
        if let Err(error) = disk.sync_watched() {
            tracing::error!(%error, "the store could not be synced while closing");
        }
    }
}

/// Ends the store: after a failed write or sync nobody knows what the disk holds, and trying again would only hide it.
fn fail(failed: &OnceLock<StorageError>, error: &StorageError) {
    let fatal = !matches!(error, StorageError::TooLarge { .. });
    if fatal && failed.set(error.clone()).is_ok() {
        tracing::error!(%error, "the store cannot be written any more");
    }
}

impl Disk {
    fn sync_watched(&mut self) -> Result<(), StorageError> {
        self.nudge.step();
        let outcome = self.sync();
        self.nudge.step();
        outcome
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.progress.begin()?;
        self.db
            .flush()
            .map_err(|error| StorageError::sled(&self.path, "write", &error))?;
        if self.fdatasync {
            self.file
                .sync_data()
                .map_err(|error| StorageError::io(&self.path, "sync", &error))?;
        }
        self.progress.finish()
    }
}
