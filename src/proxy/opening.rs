//! The first packet of a connection: what a client asks for before anybody has answered it.

use super::session::BackendKey;
use super::{ask, cancel};

/// PostgreSQL's own limit for such a packet.
const LONGEST: usize = 10_000;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// A TLS record of type handshake: a client that negotiates nothing (`sslnegotiation=direct`).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// SSLRequest or GSSENCRequest: may the connection be encrypted?
    Encryption,
    /// TLS begins at once.
    DirectTls,
    /// CancelRequest for this backend.
    Cancel(BackendKey),
    /// The same, passed on by another node's proxy that does not know the key.
    PassedOn(BackendKey),
    /// StartupMessage of protocol 3.
    Start,
    /// StartupMessage of another protocol.
    Version,
    /// Another node's proxy asks what is known here.
    Ask,
}

/// A look at the bytes that have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Not all there yet.
    More,
    /// This, in so many bytes.
    Found(Opening, usize),
    /// Nothing that a client of PostgreSQL says.
    Garbage,
}

/// Looks at the beginning of a connection.
pub(crate) fn look(bytes: &[u8]) -> Look {
    match bytes.first() {
        None => return Look::More,
        Some(&TLS_HANDSHAKE) => return Look::Found(Opening::DirectTls, 0),
        // The length is below 65,536, so its first two bytes are zero: garbage is seen at its first byte.
        Some(0) => {}
        Some(_) => return Look::Garbage,
    }
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
        return Look::More;
    };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if !(8..=LONGEST).contains(&length) {
        return Look::Garbage;
    }
    let Some((code, _)) = rest.split_first_chunk::<4>() else {
        return Look::More;
    };
    let Some(body) = bytes.get(8..length) else {
        return Look::More;
    };
    let opening = match (u32::from_be_bytes(*code), length) {
        (SSL | GSS, 8) => Opening::Encryption,
        (code @ (CANCEL | cancel::PASSED_ON), 16..=268) => match BackendKey::of(body) {
            Some(key) if code == CANCEL => Opening::Cancel(key),
            Some(key) => Opening::PassedOn(key),
            None => return Look::Garbage,
        },
        (ask::REQUEST, 8) => Opening::Ask,
        (SSL | GSS | CANCEL | cancel::PASSED_ON | ask::REQUEST, _) => return Look::Garbage,
        (version, _) if version >> 16 == 3 && body.last() == Some(&0) => Opening::Start,
        (version, _) if version >> 16 == 3 => return Look::Garbage,
        _ => Opening::Version,
    };
    Look::Found(opening, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + body.len()).unwrap();
        [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn every_opening_is_known_however_it_is_cut() {
        let key = BackendKey::of(&[0, 0, 0, 7, 1, 2, 3, 4]).unwrap();
        for (bytes, opening) in [
            (packet(SSL, b""), Opening::Encryption),
            (packet(GSS, b""), Opening::Encryption),
            (packet(CANCEL, &[0, 0, 0, 7, 1, 2, 3, 4]), Opening::Cancel(key)),
            (packet(ask::REQUEST, b""), Opening::Ask),
            (packet(3 << 16, b"user\0a\0\0"), Opening::Start),
            (packet(3 << 16 | 2, b"user\0a\0\0"), Opening::Start),
            (packet(2 << 16, &[0; 288]), Opening::Version),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(look(&bytes[..end]), Look::More, "{opening:?} cut at {end}");
            }
            assert_eq!(look(&bytes), Look::Found(opening, bytes.len()));
        }
        assert_eq!(look(&[0x16, 3, 1]), Look::Found(Opening::DirectTls, 0));
    }

    #[test]
    fn garbage_is_seen_early() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0, 0, 0, 7],
            &[0, 0, 0x27, 0x11],
            &[0, 1, 0, 0],
            &packet(SSL, b"more"),
            &packet(CANCEL, b"abc"),
            &packet(3 << 16, b"user\0a"),
        ] {
            assert_eq!(look(bytes), Look::Garbage, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(0_u8.., 0..400)) {
            if let Look::Found(_, length) = look(&bytes) {
                proptest::prop_assert!(length <= bytes.len());
            }
        }
    }
}
