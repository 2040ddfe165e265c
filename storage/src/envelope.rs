//! The envelope around every stored value: magic, version, checksum, payload.
//!
//! ```text
//!  0      4         6         10
//!  | MtrS | version | crc32c  | payload ...     integers little-endian
//! ```
//! The checksum covers name, version and payload; the name (the key, or what the file is) stays outside, so that a
//! value found under another key is damage too. Later versions keep these first ten bytes.

use std::path::Path;

use crate::StorageError;

const MAGIC: [u8; 4] = *b"MtrS";

/// The newest format this release writes and reads.
pub(crate) const VERSION: u16 = 1;

/// Wraps `payload` as the value of `name`.
pub(crate) fn seal(name: &[u8], payload: &[u8]) -> Vec<u8> {
    seal_as(VERSION, name, payload)
}

pub(crate) fn seal_as(version: u16, name: &[u8], payload: &[u8]) -> Vec<u8> {
    let version = version.to_le_bytes();
    let mut sealed = Vec::with_capacity(10 + payload.len());
    sealed.extend_from_slice(&MAGIC);
    sealed.extend_from_slice(&version);
    sealed.extend_from_slice(&checksum(name, version, payload).to_le_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of the value of `name`; `path` and `what` are for the sentence when it is not one.
pub(crate) fn open<'a>(
    name: &[u8],
    sealed: &'a [u8],
    path: &Path,
    what: &str,
) -> Result<&'a [u8], StorageError> {
    let damaged = |how: &str| StorageError::corrupt(path, format!("{what} {how}"));
    let (magic, rest) = sealed
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("is too short"))?;
    let (version, rest) = rest
        .split_first_chunk::<2>()
        .ok_or_else(|| damaged("is too short"))?;
    let (crc, payload) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("is too short"))?;
    if *magic != MAGIC {
        return Err(damaged("does not begin with Matriarch's mark"));
    }
    if u32::from_le_bytes(*crc) != checksum(name, *version, payload) {
        return Err(damaged("does not match its checksum"));
    }
    let found = u16::from_le_bytes(*version);
    if found > VERSION {
        return Err(StorageError::NewerFormat {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(payload)
}

fn checksum(name: &[u8], version: [u8; 2], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(name), &version), payload)
}
