//! The small file that says which format and which cluster a store has; read before the store is opened.

use crate::envelope;
use crate::error::StorageError;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

const FILE: &str = "identity";
const FORMAT: u32 = 1;

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StorageError + '_ {
    move |error| StorageError::Io {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

/// Checks the file, or writes it where the store is new.
pub(crate) fn check(dir: &Path, cluster: &str, has_log: bool) -> Result<(), StorageError> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound && !has_log => return create(dir, &path, cluster),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "it is missing beside a log".to_owned();
            return Err(StorageError::Corrupt { path, what });
        }
        Err(error) => return Err(io_error(&path)(error)),
    };
    let payload = envelope::open(&path, "identity", &bytes)?;
    let corrupt = || StorageError::Corrupt {
        path: path.clone(),
        what: "identity: unreadable".to_owned(),
    };
    let (format, name) = payload.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let found = u32::from_be_bytes(*format);
    if found > FORMAT {
        return Err(StorageError::NewerFormat {
            path,
            found,
            known: FORMAT,
        });
    }
    let name = std::str::from_utf8(name).map_err(|_| corrupt())?;
    if name != cluster {
        let (found, expected) = (name.to_owned(), cluster.to_owned());
        return Err(StorageError::OtherCluster {
            path,
            found,
            expected,
        });
    }
    Ok(())
}

fn create(dir: &Path, path: &Path, cluster: &str) -> Result<(), StorageError> {
    let payload = [FORMAT.to_be_bytes().as_slice(), cluster.as_bytes()].concat();
    write_durably(dir, path, &envelope::seal(&payload))
}

/// A file that is either the old or the new one after any crash: tmp, fsync, rename, fsync of the directory.
pub(crate) fn write_durably(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let next = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        sync_dir(dir)
    };
    write().map_err(io_error(path))
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
