//! Wakes sled when it sleeps over a failed write.
//!
//! sled 0.34 forgets, on one of its paths, to wake those who wait for a write that has failed; they would wait for
//! ever. Any later insert notices the failure and wakes them, so this thread inserts while a sync takes too long.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::StorageError;

/// A sync in flight at two looks in a row, this far apart, is taking too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tells the watching thread when syncs begin and end; dropping it ends the thread.
pub(crate) struct Nudge {
    /// Odd while a sync is in flight.
    phase: Arc<AtomicU64>,
    _alive: SyncSender<()>,
}

impl Nudge {
    pub(crate) fn start(meta: sled::Tree, path: &Path) -> Result<Self, StorageError> {
        let phase = Arc::new(AtomicU64::new(0));
        let (alive, ended) = sync_channel::<()>(0);
        let watched = Arc::clone(&phase);
        let watch = move || {
            let mut before = 0;
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = watched.load(Ordering::Relaxed);
                if now % 2 == 1 && now == before {
                    // Its error, if there is one, is what wakes the flush thread, which reports it.
                    drop(meta.insert("nudge", &[]));
                }
                before = now;
            }
        };
        std::thread::Builder::new()
            .name("storage-nudge".to_owned())
            .spawn(watch)
            .map_err(|error| StorageError::io(path, "start the nudging thread", &error))?;
        Ok(Self { phase, _alive: alive })
    }

    /// A sync begins or has ended.
    pub(crate) fn step(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
    }
}
