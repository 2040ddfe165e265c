//! Takes a session to another server: the log-in, then all that was said there and is not known here.
//!
//! The client is not asked: its own exchange of secrets with the first server cannot be repeated, since both sides of
//! SCRAM contribute a random part. So the proxy logs in for the user by one of these, or not at all:
//!
//! - the server asks for nothing: `trust`, or `cert` on a connection whose TLS shows the proxy's certificate, mapped to
//!   the users that it may be (`pg_ident.conf`);
//! - the user's password stands in `proxy.auth_file`: SCRAM-SHA-256, md5 and password are answered. What a server stores
//!   of a password proves nothing to another server, so a file of hashes is of no use here.
//!
//! It may begin while that server is a standby still, so that nobody waits for a log-in once it is the primary: then the
//! session stands there ([`Step::Standing`]) until it is asked for again ([`Login::arrive`]).
//!
//! Nothing of this makes a session that its client could not have made: a user comes in only after the first server has
//! let it in, and only as the user that it is there.

use super::frame::{Framer, Garbled, Piece};
use super::key::BackendKey;
use super::notice::field;
use super::parameters::Parameters;
use super::replay::Replay;
use super::userlist::Credentials;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

/// More than a server ever says before it is asked something.
const MOST: usize = 1 << 20;
/// Reported settings that a session may change; the others tell what the server is.
const SETTABLE: [&[u8]; 9] = [
    b"client_encoding",
    b"application_name",
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"default_transaction_read_only",
    b"scram_iterations",
    b"search_path",
    b"standard_conforming_strings",
];

/// A name and its value.
type Setting = (Vec<u8>, Vec<u8>);

/// Why a session could not be taken to another server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server wants a proof of identity that the proxy has not got.
    #[error("the server wants {0}, and the proxy has none of this user")]
    Secret(&'static str),
    /// The server did not prove that it knows the password, or its part of SCRAM is wrong.
    #[error("the log-in failed: {0}")]
    Scram(String),
    /// The server said no.
    #[error("the server refused: {message} ({code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// In the server's language.
        message: String,
    },
    /// The server is not like the one before.
    #[error("{0} is not the same on the new server")]
    Differs(String),
    /// It is a standby.
    #[error("the new server does not accept writes")]
    Standby,
    /// It does not speak PostgreSQL's protocol, or not what is expected of it.
    #[error("the server's answer was not understood")]
    Garbled,
}

impl LoginError {
    /// The server starts, stops or has no place at the moment, or has not been told yet that it is the primary.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.as_str(), "57P03" | "53300"),
            Self::Standby => true,
            _ => false,
        }
    }
}

impl From<Garbled> for LoginError {
    fn from(_: Garbled) -> Self {
        Self::Garbled
    }
}

/// Where a session logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the primary.
    Primary,
    /// At a standby that is to become the primary.
    Standby,
    /// At a pooler in front of the primary: it repeats what its server said of itself once.
    Pooler,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// The server has to say more.
    More,
    /// These bytes go to the server.
    Send(Vec<u8>),
    /// The session is there, at a standby that is to become the primary.
    Standing,
    /// The session is there, and rests.
    Done(Landed),
}

/// What [`super::Follower::landed`] has to know.
#[derive(Debug)]
pub struct Landed {
    pub(super) key: Option<BackendKey>,
    pub(super) parameters: Parameters,
}

#[derive(Debug)]
enum Stage {
    /// Who is it?
    Authenticating,
    /// So many ReadyForQuery, and ParseComplete, are still to come.
    Repeating { ready: usize, parsed: usize },
    /// The server becomes the primary, or says whether it is.
    Standing,
}

/// See the module.
pub struct Login {
    replay: Replay,
    credentials: Credentials,
    framer: Framer,
    body: Vec<u8>,
    scram: Option<ScramSha256>,
    /// The server has proven that it knows the password, or SCRAM was not begun.
    proven: bool,
    admitted: bool,
    at: At,
    stage: Stage,
    parameters: Parameters,
    key: Option<BackendKey>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Begins; the bytes are the first that go to the server.
    pub fn new(replay: Replay, credentials: Credentials, at: At) -> (Self, Vec<u8>) {
        let first = replay.startup.to_vec();
        let login = Self {
            replay,
            credentials,
            framer: Framer::default(),
            body: Vec::new(),
            scram: None,
            proven: true,
            admitted: false,
            at,
            stage: Stage::Authenticating,
            parameters: Parameters::default(),
            key: None,
        };
        (login, first)
    }

    /// The server has become the primary: what to ask it, so that it says so.
    pub fn arrive(&mut self) -> Vec<u8> {
        self.at = At::Primary;
        let mut sync = Vec::new();
        say(&mut sync, b'S', &[]);
        sync
    }

    /// Takes in bytes of the server, cut anywhere.
    ///
    /// # Errors
    /// The session is not there, and the connection is of no use.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Step, LoginError> {
        let (mut at, mut out) = (0, Vec::new());
        while let Some(piece) = self.framer.next(bytes, &mut at)? {
            match piece {
                Piece::Head { length, .. } if length > MOST => return Err(LoginError::Garbled),
                Piece::Head { .. } => self.body.clear(),
                Piece::Body(range) => self.body.extend_from_slice(bytes.get(range).unwrap_or_default()),
                Piece::End { kind } => {
                    let body = std::mem::take(&mut self.body);
                    if self.hear(kind, &body, &mut out)? {
                        if self.at == At::Standby {
                            self.stage = Stage::Standing;
                            return Ok(Step::Standing);
                        }
                        return Ok(Step::Done(Landed {
                            key: self.key.take(),
                            parameters: std::mem::take(&mut self.parameters),
                        }));
                    }
                }
            }
        }
        Ok(if out.is_empty() {
            Step::More
        } else {
            Step::Send(out)
        })
    }

    /// One message; whether it was the last.
    fn hear(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) -> Result<bool, LoginError> {
        match kind {
            b'E' => {
                let text = |kind| String::from_utf8_lossy(field(body, kind).unwrap_or_default()).into_owned();
                return Err(LoginError::Refused {
                    code: text(b'C'),
                    message: text(b'M'),
                });
            }
            b'S' => self.parameters.report(body).ok_or(LoginError::Garbled)?,
            b'N' => {}
            b'R' if !self.admitted => self.authenticate(body, out)?,
            b'K' if self.admitted => {
                self.key = Some(BackendKey::of(body).ok_or(LoginError::Garbled)?);
            }
            b'v' => {}
            b'Z' if self.admitted => return self.ready(body, out),
            b'C' | b'T' | b'D' => {}
            b'1' => match &mut self.stage {
                Stage::Repeating { parsed, .. } if *parsed > 0 => *parsed -= 1,
                _ => return Err(LoginError::Garbled),
            },
            _ => return Err(LoginError::Garbled),
        }
        Ok(false)
    }

    fn authenticate(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), LoginError> {
        let (code, rest) = body.split_first_chunk::<4>().ok_or(LoginError::Garbled)?;
        let user = self.replay.user().unwrap_or_default();
        match u32::from_be_bytes(*code) {
            0 if self.proven => self.admitted = true,
            0 => return Err(LoginError::Scram("the server skipped its proof".to_owned())),
            3 => {
                let Credentials::Password(password) = &self.credentials else {
                    return Err(LoginError::Secret("a password"));
                };
                say(out, b'p', &[password.as_bytes(), &[0]]);
            }
            5 => {
                let salt = rest.try_into().map_err(|_| LoginError::Garbled)?;
                let Credentials::Password(password) = &self.credentials else {
                    return Err(LoginError::Secret("an md5 password"));
                };
                let hash = md5_hash(user.as_bytes(), password.as_bytes(), salt);
                say(out, b'p', &[hash.as_bytes(), &[0]]);
            }
            10 => self.begin_scram(rest, out)?,
            11 => {
                let scram = self.scram.as_mut().ok_or(LoginError::Garbled)?;
                scram.update(rest).map_err(failed)?;
                say(out, b'p', &[scram.message()]);
            }
            12 => {
                let mut scram = self.scram.take().ok_or(LoginError::Garbled)?;
                scram.finish(rest).map_err(failed)?;
                self.proven = true;
            }
            _ => return Err(LoginError::Secret("Kerberos, SSPI or another way of its own")),
        }
        Ok(())
    }

    fn begin_scram(&mut self, mechanisms: &[u8], out: &mut Vec<u8>) -> Result<(), LoginError> {
        let known = |name: &[u8]| name == SCRAM_SHA_256.as_bytes();
        if self.scram.is_some() || !mechanisms.split(|byte| *byte == 0).any(known) {
            return Err(LoginError::Garbled);
        }
        let Credentials::Password(password) = &self.credentials else {
            return Err(LoginError::Secret("a SCRAM password"));
        };
        let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = scram.message();
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
        say(out, b'p', &[SCRAM_SHA_256.as_bytes(), &[0], &length, first]);
        self.scram = Some(scram);
        self.proven = false;
        Ok(())
    }

    fn ready(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, LoginError> {
        if body != b"I" {
            return Err(LoginError::Garbled);
        }
        match &mut self.stage {
            Stage::Authenticating => {
                let wrong = self.differences(false)?;
                let asked = self.repeat(&wrong, out);
                self.stage = Stage::Repeating {
                    ready: asked,
                    parsed: self.replay.statements.len(),
                };
                if asked > 0 {
                    return Ok(false);
                }
            }
            Stage::Repeating { ready, parsed } => {
                *ready = ready.saturating_sub(1);
                if *ready > 0 {
                    return Ok(false);
                }
                if *parsed > 0 {
                    return Err(LoginError::Garbled);
                }
            }
            Stage::Standing => {}
        }
        self.differences(true)?;
        Ok(true)
    }

    /// What the server reports otherwise than the one before, of what a session may change.
    fn differences(&self, at_last: bool) -> Result<Vec<Setting>, LoginError> {
        let mut settable = Vec::new();
        for (name, wanted) in self.replay.parameters.iter() {
            let found = self.parameters.get(name).unwrap_or_default();
            let differs = || LoginError::Differs(String::from_utf8_lossy(name).into_owned());
            match name {
                _ if found == wanted => {}
                b"in_hot_standby" if self.at != At::Primary => {}
                b"in_hot_standby" if found == b"on" => return Err(LoginError::Standby),
                b"server_version" if major(found) == major(wanted) => {}
                _ if SETTABLE.contains(&name) && !at_last => settable.push((name.to_vec(), wanted.to_vec())),
                _ => return Err(differs()),
            }
        }
        // Texts that follow are in this encoding.
        settable.sort_by_key(|(name, _)| name != b"client_encoding");
        Ok(settable)
    }

    /// Says what has to be repeated; how many ReadyForQuery answer it.
    fn repeat(&self, wrong: &[Setting], out: &mut Vec<u8>) -> usize {
        for (name, value) in wrong {
            let (name, value) = (literal(name), literal(value));
            let call = [
                b"SELECT pg_catalog.set_config(",
                &*name,
                b", ",
                &value,
                b", false)\0",
            ];
            say(out, b'Q', &call);
        }
        for text in &self.replay.settings {
            say(out, b'Q', &[text, &[0]]);
        }
        for body in &self.replay.statements {
            say(out, b'P', &[body]);
        }
        let parses = usize::from(!self.replay.statements.is_empty());
        if parses > 0 {
            say(out, b'S', &[]);
        }
        wrong.len() + self.replay.settings.len() + parses
    }
}

fn failed(error: std::io::Error) -> LoginError {
    LoginError::Scram(error.to_string())
}

/// Until 9.6 the major version had two parts; nobody moves between those.
fn major(version: &[u8]) -> Option<&[u8]> {
    version.split(|byte| !byte.is_ascii_digit()).next()
}

/// A message.
fn say(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&u32::try_from(length + 4).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A literal of SQL.
fn literal(text: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(text.len() + 4);
    quoted.extend_from_slice(b"E'");
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            quoted.push(*byte);
        }
        quoted.push(*byte);
    }
    quoted.push(b'\'');
    quoted
}
