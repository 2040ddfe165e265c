//! Magic, version and checksum around every stored value.

use crate::error::StorageError;
use std::path::Path;

/// Bytes in front of a payload: magic (4), version (1), crc32c of the payload (4).
const HEAD: usize = 9;
const MAGIC: [u8; 4] = *b"MtrV";
const VERSION: u8 = 1;

/// Wraps a payload.
pub(crate) fn seal(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Unwraps what `seal` made; `name` says what it is, for the error.
pub(crate) fn open(path: &Path, name: &str, bytes: &[u8]) -> Result<Vec<u8>, StorageError> {
    let corrupt = |what: &str| StorageError::Corrupt {
        path: path.to_owned(),
        what: format!("{name}: {what}"),
    };
    let (head, payload) = bytes.split_at_checked(HEAD).ok_or_else(|| corrupt("too short"))?;
    let [m0, m1, m2, m3, version, c0, c1, c2, c3] = head else {
        return Err(corrupt("too short"));
    };
    if [*m0, *m1, *m2, *m3] != MAGIC {
        return Err(corrupt("wrong magic"));
    }
    if *version > VERSION {
        let (found, known) = (u32::from(*version), u32::from(VERSION));
        return Err(StorageError::NewerFormat {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if *version == 0 {
        return Err(corrupt("version 0"));
    }
    if u32::from_be_bytes([*c0, *c1, *c2, *c3]) != crc32c::crc32c(payload) {
        return Err(corrupt("wrong checksum"));
    }
    Ok(payload.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(
            seal(b"abc"),
            [b"MtrV\x01".as_slice(), &0x364B_3FB7_u32.to_be_bytes(), b"abc"].concat()
        );
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let sealed = seal(b"a vote");
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Path::new("x"), "vote", &bytes).is_err(), "bit {bit}");
        }
        assert_eq!(open(Path::new("x"), "vote", &sealed).unwrap(), b"a vote");
    }
}
