//! What has to be said to another server, so that a session goes on there as it was.

use super::luggage::Luggage;
use super::marks::Fixed;
use super::parameters::Parameters;

/// Client encodings in which a part of a character looks like a letter or a backslash.
const UNSAFE_ENCODINGS: [&[u8]; 7] = [
    b"SJIS",
    b"SHIFT_JIS_2004",
    b"BIG5",
    b"GBK",
    b"GB18030",
    b"UHC",
    b"JOHAB",
];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The client's own StartupMessage.
    pub(super) startup: Box<[u8]>,
    /// What the server has reported.
    pub(super) parameters: Parameters,
    /// SET statements of settings that are not reported.
    pub(super) settings: Vec<Box<[u8]>>,
    /// Bodies of Parse.
    pub(super) statements: Vec<Box<[u8]>>,
}

impl Replay {
    /// The role that the session logs in as.
    pub fn user(&self) -> Option<&str> {
        std::str::from_utf8(option(&self.startup, b"user")?).ok()
    }
}

/// What a session carries, if it can be said at all.
pub(super) fn gather(startup: &[u8], parameters: &Parameters, luggage: &Luggage) -> Result<Replay, Fixed> {
    let encoding = parameters.get(b"client_encoding").unwrap_or_default();
    let strange = UNSAFE_ENCODINGS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(encoding));
    if strange || parameters.get(b"standard_conforming_strings") != Some(b"on") {
        return Err(Fixed::Unreadable);
    }
    if option(startup, b"replication").is_some() || option(startup, b"user").is_none() {
        return Err(Fixed::Lost);
    }
    Ok(Replay {
        startup: startup.into(),
        parameters: parameters.clone(),
        settings: luggage.settings().map(Box::from).collect(),
        statements: luggage.statements().map(Box::from).collect(),
    })
}

/// The value of a name in a StartupMessage: length, version, then pairs of strings.
fn option<'a>(startup: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut fields = startup.get(8..)?.split(|byte| *byte == 0);
    loop {
        let (known, value) = (fields.next()?, fields.next()?);
        if known == name {
            return Some(value);
        }
    }
}
