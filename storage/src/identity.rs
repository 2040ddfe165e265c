//! The file that says which cluster a store belongs to.

use std::path::Path;

use crate::{StorageError, envelope, files};

const NAME: &[u8] = b"identity";

/// Checks that the store in `dir` is one of ours and of `cluster`; `false` when there is none yet.
pub(crate) fn check(dir: &Path, cluster: &str) -> Result<bool, StorageError> {
    let path = dir.join("identity");
    let Some(sealed) = files::read(&path)? else {
        return Ok(false);
    };
    let payload = envelope::open(NAME, &sealed, &path, "the identity")?;
    let found = String::from_utf8_lossy(payload);
    if found != cluster {
        return Err(StorageError::OtherCluster {
            path,
            found: found.into_owned(),
            expected: cluster.to_owned(),
        });
    }
    Ok(true)
}

/// Makes `dir` a store of `cluster`.
pub(crate) fn write(dir: &Path, cluster: &str) -> Result<(), StorageError> {
    files::replace(
        &dir.join("identity"),
        &[&envelope::seal(NAME, cluster.as_bytes())],
    )
}
