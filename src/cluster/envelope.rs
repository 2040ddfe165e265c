//! How nouns become bytes: magic, kind, schema version, bincode payload, checksum; anything else is refused.
//!
//! bincode stores enum variants by number and fills in nothing, so bytes of another schema can decode into
//! something else without an error. The version says which schema a payload has; a changed struct gets the
//! next version and a `From` of the old one, and the golden bytes in the tests below say when that is due.

use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 2] = *b"Mt";
/// Magic, kind, version, checksum.
const HEAD: usize = 2 + 1 + 1 + 4;
/// No noun of ours comes near this; a larger one is somebody's mistake.
const LIMIT: usize = 8 << 20;

/// What the payload is. Numbers are for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A command in the log.
    Command = 1,
    /// What applying it did.
    Outcome = 2,
    /// A snapshot of the state.
    State = 3,
    /// A message to a peer.
    Message = 4,
    /// The reply.
    Reply = 5,
}

/// The schema version that this program writes for every kind.
const VERSION: u8 = 1;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBytes {
    /// Not ours, or damaged.
    #[error("{0:?} bytes are damaged or not Matriarch's")]
    Damaged(Kind),
    /// Written by a newer program.
    #[error("{kind:?} bytes have schema version {found}, this program knows {VERSION}: upgrade this node")]
    Newer {
        /// What they should be.
        kind: Kind,
        /// Their version.
        found: u8,
    },
}

/// Turns a noun into bytes.
pub fn seal<T: Serialize>(kind: Kind, noun: &T) -> Vec<u8> {
    // Serialising our own types into memory has no way to fail; an empty payload would be refused by `open`.
    let payload = bincode::serde::encode_to_vec(noun, bincode::config::standard()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, VERSION]);
    bytes.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

/// Turns bytes back into the noun they were made of.
pub fn open<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, BadBytes> {
    let damaged = || BadBytes::Damaged(kind);
    let (head, payload) = bytes.split_at_checked(HEAD).ok_or_else(damaged)?;
    let [m0, m1, found_kind, version, c0, c1, c2, c3] = head else {
        return Err(damaged());
    };
    // There never was a version 0: its byte is damaged, which the payload's checksum cannot tell.
    if [*m0, *m1] != MAGIC || *found_kind != kind as u8 || *version == 0 {
        return Err(damaged());
    }
    if *version > VERSION {
        return Err(BadBytes::Newer {
            kind,
            found: *version,
        });
    }
    if u32::from_be_bytes([*c0, *c1, *c2, *c3]) != crc32c::crc32c(payload) || payload.len() > LIMIT {
        return Err(damaged());
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::serde::decode_from_slice(payload, config) {
        Ok((noun, used)) if used == payload.len() => Ok(noun),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
#[path = "envelope_samples.rs"]
mod samples;
#[cfg(test)]
#[path = "envelope_test.rs"]
mod tests;
