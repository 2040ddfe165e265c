//! Notices when sled has silently forgotten something: a count of syncs, kept inside the store and beside it.
//!
//! sled takes damage near the end of its file for a tail that was never written, drops it and opens: right after a
//! crash, wrong after a flipped bit, where it drops what was acknowledged. So every sync first raises a counter
//! inside the store and, once it is durable, writes the same number to a small file. That file itself is never
//! synced: after a power cut it may lag behind, which is harmless, but it is never ahead of what was durable.

use crate::envelope;
use crate::error::StorageError;
use crate::identity::{io_error, sync_dir};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

const KEY: &[u8] = b"syncs";
const FILE: &str = "synced";

pub(crate) struct Witness {
    tree: sled::Tree,
    file: File,
    count: u64,
}

impl Witness {
    /// Compares the two numbers; refuses a store that is behind what was once durable.
    pub(crate) fn open(dir: &Path, tree: sled::Tree, store: &Path) -> Result<Self, StorageError> {
        let path = dir.join(FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error(&path))?;
        sync_dir(dir).map_err(io_error(dir))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error(&path))?;
        let beside = if bytes.is_empty() {
            0
        } else {
            number(&path, &bytes)?
        };
        let inside = tree.get(KEY).map_err(|error| StorageError::Io {
            path: store.to_owned(),
            what: error.to_string(),
        })?;
        let inside = inside.map_or(Ok(0), |bytes| number(store, &bytes))?;
        if inside < beside {
            let what = format!("it was durable {beside} times and remembers {inside}");
            return Err(StorageError::Corrupt {
                path: store.to_owned(),
                what,
            });
        }
        Ok(Self {
            tree,
            file,
            count: inside,
        })
    }

    /// To be called before the store is made durable.
    pub(crate) fn before(&mut self) -> sled::Result<()> {
        self.count = self.count.saturating_add(1);
        self.tree
            .insert(KEY, envelope::seal(&self.count.to_be_bytes()))
            .map(|_| ())
    }

    /// To be called once it is.
    pub(crate) fn after(&self) -> io::Result<()> {
        self.file
            .write_all_at(&envelope::seal(&self.count.to_be_bytes()), 0)
    }
}

fn number(path: &Path, bytes: &[u8]) -> Result<u64, StorageError> {
    let payload = envelope::open(path, "count of syncs", bytes)?;
    let bytes = payload.try_into().map_err(|_| StorageError::Corrupt {
        path: path.to_owned(),
        what: "count of syncs: wrong length".to_owned(),
    })?;
    Ok(u64::from_be_bytes(bytes))
}
