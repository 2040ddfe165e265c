//! The PROXY protocol, version 2: a balancer in front says whose connection it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const HEAD: usize = 16;
/// Addresses and whatever a balancer adds behind them; the protocol's own advice is that receivers take this much.
const LONGEST: usize = 2_048;

/// What a connection that is nobody else's begins with.
pub(crate) const LOCAL: [u8; HEAD] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A look at the bytes that have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// Not all there yet.
    More,
    /// The client's address, where one is said, in so many bytes.
    Found(Option<IpAddr>, usize),
    /// No PROXY protocol.
    Garbage,
}

/// Looks at the beginning of a connection that has to begin like this.
pub(crate) fn look(bytes: &[u8]) -> Preface {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes.get(..common) != SIGNATURE.get(..common) {
        return Preface::Garbage;
    }
    let Some(&[.., version, family, high, low]) = bytes.first_chunk::<HEAD>() else {
        return Preface::More;
    };
    let length = HEAD + usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 || version & 0xf > 1 || length > LONGEST {
        return Preface::Garbage;
    }
    let Some(rest) = bytes.get(HEAD..length) else {
        return Preface::More;
    };
    // LOCAL: the balancer itself asks whether we are there.
    let local = version & 0xf == 0;
    let from = match family >> 4 {
        _ if local => None,
        1 => rest
            .first_chunk::<4>()
            .filter(|_| rest.len() >= 12)
            .map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
        2 => rest
            .first_chunk::<16>()
            .filter(|_| rest.len() >= 36)
            .map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
        _ => None,
    };
    Preface::Found(from, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preface(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, rest].concat()
    }

    #[test]
    fn addresses_are_read_however_the_bytes_are_cut() {
        let v4 = preface(0x21, 0x11, &[10, 0, 0, 9, 10, 0, 0, 1, 1, 1, 2, 2]);
        let v6 = preface(0x21, 0x21, &[[1; 16], [2; 16], [3; 16]].concat());
        for (bytes, from) in [
            (v4, Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)))),
            (v6, Some(IpAddr::V6(Ipv6Addr::from([1; 16])))),
            (preface(0x20, 0, b""), None),
            (LOCAL.to_vec(), None),
            (preface(0x21, 0x31, &[0; 216]), None),
            (preface(0x21, 0x11, &[10, 0]), None),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(look(&bytes[..end]), Preface::More);
            }
            assert_eq!(look(&bytes), Preface::Found(from, bytes.len()));
        }
    }

    #[test]
    fn what_does_not_begin_like_this_is_refused_at_its_first_byte() {
        assert_eq!(look(b"PROXY TCP4 "), Preface::Garbage);
        assert_eq!(look(&[0]), Preface::Garbage);
        assert_eq!(look(&preface(0x11, 0, b"")), Preface::Garbage);
        assert_eq!(look(&preface(0x21, 0x11, &[0; 4_000])), Preface::Garbage);
    }
}
