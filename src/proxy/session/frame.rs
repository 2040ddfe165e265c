//! Where one direction of a session is in its messages: a kind, a length, and so many bytes.

use std::ops::Range;

/// The kind and the length that begin every message.
const HEAD: usize = 5;
/// No message of PostgreSQL is longer (its `MaxAllocSize`).
const LONGEST: u32 = 0x3fff_ffff;

/// The stream is no PostgreSQL protocol: nothing behind this point can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no message of PostgreSQL's protocol")]
pub struct Garbled;

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A message begins; so many bytes are its body.
    Head { kind: u8, length: usize },
    /// This range of the bytes is body.
    Body(Range<usize>),
    /// The message is all there.
    End { kind: u8 },
}

/// Walks over a stream that comes cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Framer {
    head: [u8; HEAD],
    have: u8,
    /// So much of the body is still to come.
    left: u32,
}

impl Framer {
    /// What was seen so far ends with a whole message.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// The kind of the message that is under way.
    pub(super) fn kind(&self) -> Option<u8> {
        let [kind, ..] = self.head;
        (!self.at_boundary()).then_some(kind)
    }

    /// No more of the message that is under way is to come.
    pub(super) fn is_complete(&self) -> bool {
        usize::from(self.have) == HEAD && self.left == 0
    }

    /// The next piece of `bytes` from `at` on, which is moved behind it; `None` when more bytes are needed.
    pub(super) fn next(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Piece>, Garbled> {
        while usize::from(self.have) < HEAD {
            let Some(byte) = bytes.get(*at) else {
                return Ok(None);
            };
            if let Some(place) = self.head.get_mut(usize::from(self.have)) {
                *place = *byte;
            }
            *at += 1;
            self.have += 1;
            if usize::from(self.have) == HEAD {
                return self.begin().map(Some);
            }
        }
        let [kind, ..] = self.head;
        if self.left == 0 {
            self.have = 0;
            return Ok(Some(Piece::End { kind }));
        }
        let here = bytes.len().saturating_sub(*at);
        if here == 0 {
            return Ok(None);
        }
        let here = u32::try_from(here).unwrap_or(u32::MAX).min(self.left);
        let from = *at;
        self.left -= here;
        *at += usize::try_from(here).unwrap_or(0);
        Ok(Some(Piece::Body(from..*at)))
    }

    fn begin(&mut self) -> Result<Piece, Garbled> {
        let [kind, length @ ..] = self.head;
        let body = u32::from_be_bytes(length).checked_sub(4).ok_or(Garbled)?;
        if body > LONGEST {
            return Err(Garbled);
        }
        self.left = body;
        Ok(Piece::Head {
            kind,
            length: usize::try_from(body).map_err(|_| Garbled)?,
        })
    }
}
