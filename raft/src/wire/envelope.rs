//! The envelope around every value that is stored or sent: what it is, which version, and whether it is whole.
//!
//! ```text
//! 'M' 'R' | kind u8 | version u8 | bincode payload ... | crc32c of all before, little endian
//! ```
//!
//! bincode neither names fields nor marks an end, so a value may decode as something it is not. The kind, the
//! version, the checksum and the refusal of trailing bytes make that an error. A new field is a new version of the
//! struct with a `From`; enum variants are only ever appended.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No value may claim to be larger than this, whatever its length prefix says.
pub(crate) const VALUE_LIMIT: usize = 80 << 20;
const MAGIC: [u8; 2] = *b"MR";
const HEAD: usize = 4;
const TAIL: usize = 4;

/// A value with an envelope of its own.
pub(crate) trait Sealed: Serialize + DeserializeOwned {
    /// Distinguishes it from every other sealed type.
    const KIND: u8;
    /// The version this program writes.
    const VERSION: u8 = 1;
}

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("the value is damaged: {0}")]
    Damaged(String),
    #[error("the value is of kind {found}, expected {expected}")]
    Kind { found: u8, expected: u8 },
    #[error(
        "the value is of version {found}, this program reads version {known}: it was written by a newer one"
    )]
    Version { found: u8, known: u8 },
}

impl From<EnvelopeError> for std::io::Error {
    fn from(e: EnvelopeError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, e)
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<VALUE_LIMIT>()
}

/// The value in its envelope.
pub(crate) fn seal<T: Sealed>(value: &T) -> Result<Vec<u8>, EnvelopeError> {
    let mut bytes = vec![MAGIC[0], MAGIC[1], T::KIND, T::VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .map_err(|e| EnvelopeError::Damaged(format!("it cannot be encoded: {e}")))?;
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

/// The value out of its envelope.
pub(crate) fn open<T: Sealed>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    let damaged = |why: &str| EnvelopeError::Damaged(why.to_owned());
    let end = bytes.len().checked_sub(TAIL).filter(|end| *end >= HEAD);
    let (body, crc) = end
        .and_then(|end| bytes.split_at_checked(end))
        .ok_or_else(|| damaged("it is too short"))?;
    if crc != crc32c::crc32c(body).to_le_bytes() {
        return Err(damaged("its checksum does not match"));
    }
    let Some(([m, r, kind, version], payload)) = body.split_first_chunk::<HEAD>() else {
        return Err(damaged("it is too short"));
    };
    if [*m, *r] != MAGIC {
        return Err(damaged("it does not begin with MR"));
    }
    if *kind != T::KIND {
        return Err(EnvelopeError::Kind {
            found: *kind,
            expected: T::KIND,
        });
    }
    if *version != T::VERSION {
        return Err(EnvelopeError::Version {
            found: *version,
            known: T::VERSION,
        });
    }
    let (value, used) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|e| EnvelopeError::Damaged(format!("it cannot be decoded: {e}")))?;
    if used != payload.len() {
        return Err(damaged("bytes are left over at its end"));
    }
    Ok(value)
}
