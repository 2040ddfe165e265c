//! Small durable file operations: atomic replacement, directory syncs, copies, sizes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::StorageError;

/// Creates a directory that only its owner may enter, and makes its name durable.
pub(crate) fn create_dir(path: &Path) -> Result<(), StorageError> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|error| StorageError::io(path, "create the directory", &error))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StorageError::io(path, "sync the directory", &error))
}

/// Makes the files in a directory durable, and their names.
pub(crate) fn sync_files(path: &Path) -> Result<(), StorageError> {
    let sync = || -> std::io::Result<()> {
        for item in fs::read_dir(path)? {
            File::open(item?.path())?.sync_all()?;
        }
        Ok(())
    };
    sync().map_err(|error| StorageError::io(path, "sync the files", &error))?;
    sync_dir(path)
}

/// Writes `parts` to `path` so that a crash leaves either the old file or the whole new one.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| StorageError::io(path, "write the file", &error))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The bytes of a file, `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io(path, "read the file", &error)),
    }
}

/// Removes a directory and everything in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io(path, "remove the directory", &error))
        }
        _ => Ok(()),
    }
}

/// Copies a directory tree.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> Result<(), StorageError> {
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        for item in fs::read_dir(from)? {
            let item = item?;
            let target = to.join(item.file_name());
            if item.file_type()?.is_dir() {
                copy_dir(&item.path(), &target).map_err(std::io::Error::other)?;
            } else {
                fs::copy(item.path(), target)?;
            }
        }
        Ok(())
    };
    copy().map_err(|error| StorageError::io(from, "copy the directory", &error))
}

/// The bytes of all files below a directory.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(items) = fs::read_dir(path) else { return 0 };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(data) if data.is_dir() => size(&item.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}
