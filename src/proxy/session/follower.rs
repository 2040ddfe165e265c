//! Follows one session: what passes in both directions says what it is about, and what it carries.

use super::frame::{Framer, Garbled, Piece};
use super::key::{BackendKey, Keys, disguise};
use super::login::Landed;
use super::luggage::Luggage;
use super::marks::Fixed;
use super::notice;
use super::parameters::Parameters;
use super::queue::{Asked, Queue};
use super::replay::{self, Replay};
use std::ops::Range;

/// A message of the server that is looked at and longer is passed by. PostgreSQL's own warnings are shorter in every language.
const LONGEST: usize = 16 << 10;
/// Bytes of a secret that a client can be given of ours; a longer one goes on as the server's.
pub const SECRET: usize = 32;

/// How much of the server's bytes may go to the client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// So many bytes, up to the end of a message if not all.
    pub now: usize,
    /// What follows them may say that a commit has succeeded that is on no standby. It is not fed again.
    pub held: bool,
    /// What follows them is the server's farewell to an idle session: an error that no question asked for.
    pub farewell: bool,
}

/// Whether the next completion may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    /// Not the next one: the server gave up waiting for a standby.
    Warned,
    /// Not the next one unless it is an error: a cancel request was delivered.
    Cancelled,
    /// One is held back.
    Held,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    from_client: Framer,
    from_server: Framer,
    startup: Box<[u8]>,
    secret: [u8; SECRET],
    keys: Option<Box<Keys>>,
    parameters: Parameters,
    queue: Queue,
    /// The status that the newest ReadyForQuery said.
    status: Option<u8>,
    /// The client is told that its session is over: it said so itself, or the server's newest word is an error.
    told: bool,
    doubt: Doubt,
    /// The body of the server's message is looked at.
    wanted: bool,
    /// As much of it as came earlier.
    body: Vec<u8>,
    luggage: Option<Box<Luggage>>,
}

impl Follower {
    /// Begins behind the client's StartupMessage, which is given whole. The secret takes the place of the server's in the key
    /// that the client gets.
    pub fn new(startup: &[u8], secret: [u8; SECRET]) -> Self {
        Self {
            from_client: Framer::default(),
            from_server: Framer::default(),
            startup: startup.into(),
            secret,
            keys: None,
            parameters: Parameters::default(),
            queue: Queue::default(),
            status: None,
            told: false,
            doubt: Doubt::None,
            wanted: false,
            body: Vec::new(),
            luggage: None,
        }
    }

    /// Looks at the client's SQL too, from the beginning, so that the session can be moved.
    pub fn follow_text(&mut self) {
        self.luggage = Some(Box::default());
    }

    /// Takes in bytes of the client, in order and cut anywhere, before they are forwarded.
    ///
    /// # Errors
    /// They are no PostgreSQL protocol; neither is anything behind them.
    pub fn frontend(&mut self, bytes: &[u8]) -> Result<(), Garbled> {
        let mut at = 0;
        while let Some(piece) = self.from_client.next(bytes, &mut at)? {
            match piece {
                Piece::Head { kind, .. } => {
                    if !b"BCDEFHPQSXcdfp".contains(&kind) {
                        return Err(Garbled);
                    }
                    if let Some(luggage) = &mut self.luggage {
                        luggage.begin(kind);
                    }
                }
                Piece::Body(range) => {
                    if let Some(luggage) = &mut self.luggage
                        && let Some((kind, part)) = self.from_client.kind().zip(bytes.get(range))
                    {
                        luggage.take(kind, part);
                    }
                }
                Piece::End { kind } => self.asked(kind),
            }
        }
        Ok(())
    }

    /// A message of the client is all there.
    fn asked(&mut self, kind: u8) {
        let asked = match &mut self.luggage {
            Some(luggage) => luggage.end(kind, &self.parameters),
            None => None,
        };
        match kind {
            b'Q' | b'F' => self.queue.ask(Asked::Query),
            b'S' => self.queue.ask(Asked::Sync),
            b'P' => self.queue.ask(asked.unwrap_or(Asked::Parse(None))),
            b'C' => self.queue.ask(asked.unwrap_or(Asked::Close(None))),
            b'B' | b'D' | b'E' | b'H' => self.queue.go_on(),
            b'c' | b'f' => self.queue.copied(),
            b'X' => self.told = true,
            _ => {}
        }
    }

    /// Takes in bytes of the server likewise, and changes the secret of its key in them.
    ///
    /// # Errors
    /// As [`Self::frontend`].
    pub fn backend(&mut self, bytes: &mut [u8]) -> Result<Forward, Garbled> {
        let (mut at, mut whole) = (0, None::<Range<usize>>);
        let mut forward = Forward {
            now: bytes.len(),
            held: self.doubt == Doubt::Held,
            farewell: false,
        };
        if forward.held {
            forward.now = 0;
        }
        loop {
            if self.from_server.at_boundary()
                && let Some(kind) = bytes.get(at)
                && forward.now > at
            {
                if matches!(self.doubt, Doubt::Warned | Doubt::Cancelled) && matches!(kind, b'C' | b'Z') {
                    self.doubt = Doubt::Held;
                    (forward.now, forward.held) = (at, true);
                } else if *kind == b'E' && self.luggage.is_some() && self.rests() {
                    (forward.now, forward.farewell) = (at, true);
                }
            }
            let Some(piece) = self.from_server.next(bytes, &mut at)? else {
                return Ok(forward);
            };
            match piece {
                Piece::Head { kind, length } => {
                    self.wanted = Self::expects(kind)? && length <= LONGEST;
                }
                Piece::Body(range) if self.wanted => {
                    let Some(part) = bytes.get_mut(range.clone()) else {
                        continue;
                    };
                    if self.from_server.kind() == Some(b'K') {
                        let from = self.body.len();
                        self.body.extend_from_slice(part);
                        disguise(part, from, &self.secret);
                    } else if self.body.is_empty() && self.from_server.is_complete() {
                        whole = Some(range);
                    } else {
                        self.body.extend_from_slice(part);
                    }
                }
                Piece::Body(_) => {}
                Piece::End { kind } => match whole.take().and_then(|range| bytes.get(range)) {
                    Some(body) => self.said(kind, body)?,
                    None => {
                        let body = std::mem::take(&mut self.body);
                        self.said(kind, &body)?;
                    }
                },
            }
        }
    }

    /// Whether a message that begins is looked at.
    fn expects(kind: u8) -> Result<bool, Garbled> {
        match kind {
            b'Z' | b'K' | b'S' | b'N' => Ok(true),
            b'A' | b'C' | b'D' | b'E' | b'G' | b'H' | b'I' | b'R' | b'T' | b'V' | b'W' | b'c' | b'd'
            | b'n' | b's' | b't' | b'v' | b'1' | b'2' | b'3' => Ok(false),
            _ => Err(Garbled),
        }
    }

    /// A message of the server is all there; the body only if it is wanted.
    fn said(&mut self, kind: u8, body: &[u8]) -> Result<(), Garbled> {
        match kind {
            b'Z' => return self.ready(body),
            b'K' => self.keys = Some(Box::new(Keys::of(body, &self.secret)?)),
            b'S' if self.parameters.report(body).is_none() => self.queue.lose(),
            b'N' if self.doubt != Doubt::Held && notice::gave_up_waiting(body) => self.doubt = Doubt::Warned,
            b'1' => {
                let body = self.queue.parsed();
                if let Some((luggage, body)) = self.luggage.as_mut().zip(body) {
                    luggage.parsed(body);
                }
            }
            b'3' => {
                let name = self.queue.closed();
                if let Some((luggage, name)) = self.luggage.as_mut().zip(name) {
                    luggage.closed(&name);
                }
            }
            b'C' => {
                if let Some(luggage) = &mut self.luggage {
                    luggage.done();
                }
            }
            b'E' => {
                self.told = true;
                self.queue.copied();
                if self.doubt == Doubt::Cancelled {
                    self.doubt = Doubt::None;
                }
                if let Some(luggage) = &mut self.luggage {
                    luggage.failed();
                }
            }
            b'G' => self.queue.copy_in(),
            b'W' => self.queue.lose(),
            _ => {}
        }
        Ok(())
    }

    fn ready(&mut self, body: &[u8]) -> Result<(), Garbled> {
        let [status @ (b'I' | b'T' | b'E')] = body else {
            return Err(Garbled);
        };
        // The first one ends the log-in, which is no question of the queue.
        if self.status.is_some() {
            self.queue.ready();
        }
        self.status = Some(*status);
        self.told = false;
        if self.rests()
            && let Some(luggage) = &mut self.luggage
        {
            luggage.idle(&self.parameters);
        }
        Ok(())
    }

    /// Everything was answered, and no transaction is open.
    fn rests(&self) -> bool {
        self.status == Some(b'I') && self.queue.is_empty()
    }

    /// A cancel request has been delivered to this session's server: the next completion is in doubt, since a client may have
    /// switched the warning off.
    pub fn cancel_sent(&mut self) {
        if self.doubt == Doubt::None && !self.rests() {
            self.doubt = Doubt::Cancelled;
        }
    }

    /// What was held is on a standby, and goes to the client.
    pub fn settled(&mut self) {
        self.doubt = Doubt::None;
    }

    /// The server's key, once it was said: what a cancel request has to show there.
    pub fn key(&self) -> Option<&BackendKey> {
        self.keys.as_ref().map(|keys| &keys.real)
    }

    /// The key that the client was given instead: what its cancel requests show.
    pub fn handed_key(&self) -> Option<&BackendKey> {
        self.keys.as_ref().map(|keys| &keys.handed)
    }

    /// Authenticated: the first ReadyForQuery was seen.
    pub fn is_ready(&self) -> bool {
        self.status.is_some()
    }

    /// It has asked something that was not answered, or not for sure: it may have been committed.
    pub fn is_asked(&self) -> bool {
        self.doubt != Doubt::None || !self.queue.is_empty()
    }

    /// Should the server go now, the client knows that its session is over, and how its last request ended.
    pub fn is_told_the_end(&self) -> bool {
        self.told && self.doubt == Doubt::None
    }

    /// Outside of a transaction, everything answered, nothing half said.
    pub fn is_idle(&self) -> bool {
        self.rests() && self.from_client.at_boundary() && self.may_speak()
    }

    /// What came from the server ends with a whole message: another may be put behind it.
    pub fn may_speak(&self) -> bool {
        self.from_server.at_boundary()
    }

    /// What has to be said to another server, so that the client does not notice the change.
    ///
    /// # Errors
    /// The session has to stay where it is.
    pub fn movable(&self) -> Result<Replay, Fixed> {
        let luggage = self.luggage.as_ref().ok_or(Fixed::NotFollowed)?;
        if let Some(why) = luggage.fixed() {
            return Err(why);
        }
        if self.queue.is_lost() {
            return Err(Fixed::Lost);
        }
        if !self.is_idle() || self.doubt != Doubt::None {
            return Err(Fixed::Busy);
        }
        replay::gather(&self.startup, &self.parameters, luggage)
    }

    /// The session goes on at another server.
    pub fn landed(&mut self, landed: Landed) {
        self.from_server = Framer::default();
        self.parameters = landed.parameters;
        if let Some((keys, real)) = self.keys.as_mut().zip(landed.key) {
            keys.real = real;
        }
        if let Some(luggage) = &mut self.luggage {
            // The farewell of the old server is nothing that was asked for.
            luggage.idle(&self.parameters);
        }
    }
}

#[cfg(test)]
#[path = "follower_test.rs"]
mod tests;
