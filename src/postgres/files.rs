//! Files written whole or not at all, belonging to the owner of the data directory.

use super::error::PostgresError;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The user that PostgreSQL runs as, when that is not us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// `path` with `suffix` behind its last part.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    PathBuf::from(text)
}

/// Gives `path` to the owner, if PostgreSQL runs as somebody else.
pub(super) fn give(path: &Path, owner: Option<Owner>) -> Result<(), PostgresError> {
    let Some(owner) = owner else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)).map_err(PostgresError::file(
        "give it to the owner of the data directory",
        path,
    ))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), PostgresError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(PostgresError::file("flush the directory", path))
}

/// Makes the entry of `path` in its directory durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), PostgresError> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// The file system sees the owner in this thread until it is dropped.
///
/// A running server reads what appears in its directory at once: a file of root's there, be it for the moment until
/// it is given away, ends a standby that looks for new timelines, and fails a base backup.
struct AsOwner;

impl AsOwner {
    fn begin(owner: Owner) -> Self {
        setfsgid(Gid::from_raw(owner.gid));
        setfsuid(Uid::from_raw(owner.uid));
        Self
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        setfsuid(Uid::effective());
        setfsgid(Gid::effective());
    }
}

/// Creates a file that must not exist yet, mode 0600, the owner's from its first moment where the directory allows.
pub(super) fn create(path: &Path, text: &str, owner: Option<Owner>) -> Result<(), PostgresError> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    };
    let opened = match owner {
        Some(owner) => {
            let as_owner = AsOwner::begin(owner);
            let opened = open();
            drop(as_owner);
            // Our password file may be in a directory of our own.
            opened.or_else(|why| {
                if why.kind() == ErrorKind::PermissionDenied {
                    open()
                } else {
                    Err(why)
                }
            })
        }
        None => open(),
    };
    let mut file = opened.map_err(PostgresError::file("create the file", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(PostgresError::file("write the file", path))?;
    give(path, owner)
}

/// Replaces a file in one step that survives a crash.
pub(super) fn replace(path: &Path, text: &str, owner: Option<Owner>) -> Result<(), PostgresError> {
    let fresh = beside(path, ".matriarch-tmp");
    remove_file(&fresh)?;
    create(&fresh, text, owner)?;
    rename(&fresh, path)
}

/// The same, only if the text differs; answers whether it did.
pub(super) fn replace_changed(path: &Path, text: &str, owner: Option<Owner>) -> Result<bool, PostgresError> {
    if read(path)?.as_deref() == Some(text) {
        return Ok(false);
    }
    replace(path, text, owner).map(|()| true)
}

/// The text of a file, `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, PostgresError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        Err(why) => Err(PostgresError::file("read the file", path)(why)),
    }
}

/// Removes a file that may be absent.
pub(super) fn remove_file(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => {
            Err(PostgresError::file("remove the file", path)(why))
        }
        _ => Ok(()),
    }
}

/// Removes a directory that may be absent, with all it holds; symbolic links in it are not followed.
pub(super) fn remove_tree(path: &Path) -> Result<(), PostgresError> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => {
            Err(PostgresError::file("remove the directory", path)(why))
        }
        _ => Ok(()),
    }
}

/// Removes a file or a directory with all it holds.
pub(super) fn remove(path: &Path) -> Result<(), PostgresError> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        remove_tree(path)
    } else {
        remove_file(path)
    }
}

/// The same without holding up anybody else: a large directory takes a while.
pub(super) async fn remove_tree_aside(path: &Path) -> Result<(), PostgresError> {
    let path = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_tree(&path)).await;
    removed.unwrap_or_else(|why| {
        Err(PostgresError::Misconfigured(format!(
            "a removal was given up: {why}"
        )))
    })
}

/// Renames within one directory, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), PostgresError> {
    fs::rename(from, to).map_err(PostgresError::file("rename it", from))?;
    sync_parent(to)
}

/// An empty directory of mode 0700, made with its parents where they are missing.
pub(super) fn make_private_dir(path: &Path, owner: Option<Owner>) -> Result<(), PostgresError> {
    fs::create_dir_all(path).map_err(PostgresError::file("create the directory", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(PostgresError::file("set the mode of the directory", path))?;
    give(path, owner)?;
    sync_parent(path)
}

/// Whether anything of that name exists, be it a dangling link.
pub(super) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a directory is the root of a mounted file system, and so cannot be renamed.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(parent)) => own != parent,
        _ => false,
    }
}

/// Names in a directory; `None` when it is absent.
pub(super) fn names(path: &Path) -> Result<Option<Vec<String>>, PostgresError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(PostgresError::file("list the directory", path)(why)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(PostgresError::file("list the directory", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}
