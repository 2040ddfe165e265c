//! The one thread that makes things durable: drains whatever was asked, flushes and syncs once, answers in order.

use crate::Done;
use crate::error::StorageError;
use crate::witness::Witness;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Requests that may wait; a caller beyond that waits for a place, which slows proposers down to the disk's speed.
const QUEUE: usize = 4_096;

/// The queue's end that callers hold.
pub(crate) struct Flusher {
    queue: Option<SyncSender<Done>>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<OnceLock<String>>,
    path: PathBuf,
}

impl Flusher {
    pub(crate) fn start(
        db: sled::Db,
        witness: Witness,
        file: File,
        path: &Path,
        fdatasync: bool,
    ) -> Result<Self, StorageError> {
        let (queue, requests) = sync_channel(QUEUE);
        let failed = Arc::new(OnceLock::new());
        let mut disk = Disk {
            db,
            witness,
            file,
            path: path.to_owned(),
            fdatasync,
            failed: failed.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("storage-flush".to_owned())
            .spawn(move || disk.serve(&requests))
            .map_err(crate::identity::io_error(path))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            failed,
            path: path.to_owned(),
        })
    }

    /// `done` is called when everything written before this call is durable.
    pub(crate) fn request(&self, done: Done) {
        let refused = match &self.queue {
            Some(queue) => queue.send(done).err().map(|refused| refused.0),
            None => Some(done),
        };
        if let Some(done) = refused {
            done(Err(self.closed()));
        }
    }

    /// Waits until everything written before this call is durable.
    pub(crate) fn wait(&self) -> Result<(), StorageError> {
        let (answer, wait) = sync_channel(1);
        self.request(Box::new(move |result| {
            // The caller is waiting; nobody else can have dropped the other end.
            let _ = answer.send(result);
        }));
        wait.recv().unwrap_or_else(|_| Err(self.closed()))
    }

    /// Fails once any sync has failed.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.failed.get().is_some() {
            Err(self.closed())
        } else {
            Ok(())
        }
    }

    fn closed(&self) -> StorageError {
        let why = self
            .failed
            .get()
            .cloned()
            .unwrap_or_else(|| "it was closed".to_owned());
        StorageError::Closed {
            path: self.path.clone(),
            why,
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The last reference may be dropped by a callback, which runs on that very thread.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

struct Disk {
    db: sled::Db,
    witness: Witness,
    file: File,
    path: PathBuf,
    fdatasync: bool,
    failed: Arc<OnceLock<String>>,
}

impl Disk {
    fn serve(&mut self, requests: &Receiver<Done>) {
        while let Ok(first) = requests.recv() {
            let mut batch = vec![first];
            while let Ok(next) = requests.try_recv() {
                batch.push(next);
            }
            let result = self.sync();
            for done in batch {
                done(result.clone());
            }
        }
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if let Some(why) = self.failed.get() {
            return Err(StorageError::Closed {
                path: self.path.clone(),
                why: why.clone(),
            });
        }
        let synced = self.try_sync();
        synced.map_err(|what| {
            let _ = self.failed.set(what.clone());
            tracing::error!(path = %self.path.display(), "a sync failed, the store takes nothing any more: {what}");
            StorageError::Io { path: self.path.clone(), what }
        })
    }

    fn try_sync(&mut self) -> Result<(), String> {
        self.witness.before().map_err(|error| error.to_string())?;
        self.db.flush().map_err(|error| error.to_string())?;
        if self.fdatasync {
            self.file.sync_data().map_err(|error| error.to_string())?;
        }
        self.witness.after().map_err(|error| error.to_string())
    }
}
