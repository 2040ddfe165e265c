//! The byte pump of one session: both directions, one task, no buffer while the other side takes everything.
//!
//! Bytes are read into a buffer that all sessions of a thread share, looked at there and written on from there. What the
//! other side does not take at once is kept in the session, and as long as something is kept nothing more is read from
//! its source: a slow reader slows its own server down, and costs one buffer at most.
//!
//! Two things make a session pause. A completion that may be on no standby is kept back until one has it. And a session that
//! rests while its primary goes, or is lost, is taken to the next one; until it is there its client is not read. A session
//! that cannot be taken along is told one thing: what it asked may have been committed (40003), or surely was not (57P01).
//!
//! A read that does not fill the buffer has emptied the socket, so a query costs two waits, two reads and two writes.

use super::ending::End;
use super::house::{Backend, Counts, Entry, House, Hung};
use super::moving::{self, Cause, Leaving, Moved, Outcome, Stranded};
use super::session::{Follower, Forward};
use super::words;
use crate::cluster::{Endpoint, Epoch};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read takes at most; also the most that a session ever keeps for one direction.
const BUFFER: usize = 32 << 10;

/// The same while a connection begins.
const BEGINNING: usize = 2 << 10;

/// A server that goes, or is made to go, and a pooler whose server has gone.
const LEAVES: [&[u8]; 3] = [b"57P01", b"57P02", b"08P01"];

thread_local! {
    pub(super) static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// What a session waits for.
pub(crate) enum Pause {
    /// Whether these bytes may be told.
    Proof(Pin<Box<dyn Future<Output = bool> + Send>>, Vec<u8>),
    /// Another server. What the last one has said at the end.
    Move(Moving, Vec<u8>),
}

type Moving = Pin<Box<dyn Future<Output = Result<Outcome, Stranded>> + Send>>;

/// A session that is led to a server.
pub(crate) struct Relay {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    /// Where the server is.
    pub(crate) endpoint: Endpoint,
    /// The epoch whose primary it is led to; `None` for readers.
    pub(crate) epoch: Option<Epoch>,
    /// `None` where the two have agreed on encryption.
    pub(crate) follower: Option<Box<Follower>>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) house: Arc<House>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) hung: Hung,
    /// Counts at the server.
    pub(crate) load: Entry<Endpoint>,
    pub(crate) pause: Option<Pause>,
    /// The client was told by its server that the session is over.
    pub(crate) dismissed: bool,
    /// What the client was sent ends with a whole message, whatever the server has said behind it.
    pub(crate) cut: bool,
    /// The same although something is to be sent: nothing of that has gone out.
    pub(crate) withheld: bool,
    /// Why it could not be taken to the next primary, once that was tried.
    pub(crate) stranded: Option<Stranded>,
}

impl Future for Relay {
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        let relay = self.get_mut();
        if relay.hung.bell.was_rung(context.waker())
            && let Some(end) = relay.look_again()
        {
            return Poll::Ready(end);
        }
        loop {
            if let Poll::Ready(Err(end)) = relay.go_on(context) {
                return Poll::Ready(end);
            }
            // The server first: nothing more is taken from the client for one that has gone.
            let down = relay.downwards(context);
            if let Poll::Ready(Err(end)) = down {
                return Poll::Ready(end);
            }
            match (down, relay.upwards(context)) {
                (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
        }
    }
}

impl Relay {
    /// What was read from both sides before: the server's first answer, and what the client has said since.
    pub(crate) fn begin(&mut self, mut answer: Vec<u8>, inbox: Vec<u8>) -> Result<(), End> {
        self.counts.bytes_out.add(answer.len());
        self.counts.bytes_in.add(inbox.len());
        let follower = self.follower.as_mut();
        let followed = follower.is_none_or(|follower| follower.frontend(&inbox).is_ok());
        if !followed || self.follow(&mut answer).is_none() {
            return Err(End::Garbled);
        }
        self.withheld = !answer.is_empty();
        (self.to_client, self.to_server) = (answer, inbox);
        Ok(())
    }

    /// Something outside has changed.
    fn look_again(&mut self) -> Option<End> {
        if self.hung.bell.was_cancelled()
            && let Some(follower) = &mut self.follower
        {
            follower.cancel_sent();
        }
        let stopping = *self.house.stopping.borrow();
        match self.pause {
            Some(Pause::Move(..)) => return stopping.map(|_| End::Stopping),
            Some(Pause::Proof(..)) => {
                return (self.is_deposed() || stopping == Some(true)).then_some(End::InDoubt);
            }
            None => {}
        }
        if self.is_deposed() {
            return (!self.move_on(Cause::Deposed, &[])).then_some(End::Deposed);
        }
        let idle = self.follower.as_ref().is_some_and(|follower| follower.is_idle());
        match stopping {
            Some(true) => Some(End::Stopping),
            Some(false) if idle && self.to_client.is_empty() => Some(End::Stopping),
            _ => None,
        }
    }

    fn is_deposed(&self) -> bool {
        self.epoch
            .is_some_and(|epoch| self.house.routes.borrow().epoch > epoch)
    }

    /// Looks whether what it waits for is there.
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        match &mut self.pause {
            None => return Poll::Pending,
            Some(Pause::Proof(proof, kept)) => {
                if !std::task::ready!(proof.as_mut().poll(context)) {
                    return Poll::Ready(Err(End::InDoubt));
                }
                self.to_client.append(kept);
                if let Some(follower) = &mut self.follower {
                    follower.settled();
                }
                self.cut = false;
            }
            Some(Pause::Move(moving, words)) => match std::task::ready!(moving.as_mut().poll(context)) {
                Ok(Outcome::Moved(moved)) => self.land(*moved),
                Ok(Outcome::Stay) => self.cut = false,
                Err(stranded) => {
                    self.stranded = Some(stranded);
                    let sent_away = stranded == Stranded::SentAway && !words.is_empty();
                    let end = if sent_away { End::SentAway } else { End::Deposed };
                    return Poll::Ready(Err(end));
                }
            },
        }
        self.pause = None;
        Poll::Ready(Ok(()))
    }

    /// Begins to look for another server, if the session can be taken there. `words` are the server's last.
    fn move_on(&mut self, cause: Cause, words: &[u8]) -> bool {
        let (Some(epoch), Some(follower)) = (self.epoch, &self.follower) else {
            return false;
        };
        if self.pause.is_some() || self.dismissed || !self.to_client.is_empty() || !self.to_server.is_empty()
        {
            return false;
        }
        let Ok(replay) = follower.movable() else {
            return false;
        };
        self.cut = true;
        let leaving = Leaving {
            cause,
            epoch,
            endpoint: self.endpoint.clone(),
        };
        let moving = moving::move_on(self.house.clone(), leaving, replay);
        self.pause = Some(Pause::Move(Box::pin(moving), words.to_vec()));
        true
    }

    fn land(&mut self, moved: Moved) {
        (self.server, self.endpoint, self.load) = (moved.stream, moved.endpoint, moved.load);
        self.epoch = Some(moved.epoch);
        self.cut = false;
        self.counts.moved.add(1);
        if let Some(follower) = &mut self.follower {
            follower.landed(moved.landed);
            if let (Some(handed), Some(key)) = (follower.handed_key(), follower.key()) {
                let backend = Backend {
                    server: self.endpoint.clone(),
                    key: key.clone(),
                };
                self.hung.note_key(handed.clone(), backend);
            }
        }
    }

    /// While the primary's gate is shut a new request waits for the next one, if the session can be taken there.
    fn is_held(&mut self) -> bool {
        let shut = self.epoch.is_some_and(|epoch| !self.house.is_open(epoch));
        shut && self.move_on(Cause::Shut, &[])
    }

    /// Client to server, one read at most.
    fn upwards(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.to_server.is_empty() {
            let flushed = flush(&mut self.server, &mut self.to_server, context);
            return flushed.map_err(|_| self.end_of_server());
        }
        if matches!(self.pause, Some(Pause::Move(..))) {
            return Poll::Pending;
        }
        if self.is_held() {
            return Poll::Ready(Ok(()));
        }
        SHARED.with_borrow_mut(|shared| {
            let bytes = read(&mut self.client, shared, context);
            let bytes = match bytes {
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            };
            self.counts.bytes_in.add(bytes.len());
            if let Some(follower) = &mut self.follower
                && follower.frontend(bytes).is_err()
            {
                return Poll::Ready(Err(End::Garbled));
            }
            let passed = pass(&mut self.server, bytes, &mut self.to_server, context);
            passed.map_err(|_| self.end_of_server())
        })
    }

    /// Server to client likewise; but an answer goes out only if its server was the primary when it had arrived.
    fn downwards(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.to_client.is_empty() {
            if !self.may_answer() {
                return Poll::Pending;
            }
            self.hung.bell.wants_lease.store(false, Ordering::Relaxed);
            self.withheld = false;
            return flush(&mut self.client, &mut self.to_client, context);
        }
        if self.pause.is_some() {
            return Poll::Pending;
        }
        SHARED.with_borrow_mut(|shared| {
            let bytes = match read(&mut self.server, shared, context) {
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(_)) if self.move_on(Cause::Lost, &[]) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(self.end_of_server())),
                Poll::Pending => return Poll::Pending,
            };
            self.counts.bytes_out.add(bytes.len());
            let whole = self
                .follower
                .as_ref()
                .is_some_and(|follower| follower.may_speak());
            let Some(forward) = self.follow(bytes) else {
                return Poll::Ready(Err(End::Garbled));
            };
            let bytes = self.keep_back(forward, bytes);
            if self.may_answer() {
                return pass(&mut self.client, bytes, &mut self.to_client, context);
            }
            self.to_client.extend_from_slice(bytes);
            self.withheld = whole;
            // What it pauses for has to be looked at once.
            if self.pause.is_some() {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
    }

    /// What of an answer goes on now.
    fn keep_back<'a>(&mut self, forward: Forward, bytes: &'a [u8]) -> &'a [u8] {
        let Some((now, kept)) = bytes.split_at_checked(forward.now) else {
            return bytes;
        };
        if forward.held
            && let Some(epoch) = self.epoch
        {
            self.cut = true;
            self.pause = Some(Pause::Proof(self.house.desk.proof(epoch), kept.to_vec()));
            return now;
        }
        if let Some(follower) = self.follower.as_mut().filter(|_| forward.held) {
            // A reader waits for no standby.
            follower.settled();
        }
        self.dismissed |= forward.farewell;
        let leaves = forward.farewell && words::sqlstate(kept).is_some_and(|state| LEAVES.contains(&state));
        if leaves && now.is_empty() {
            self.dismissed = false;
            if self.move_on(Cause::Farewell, kept) {
                return now;
            }
            self.dismissed = true;
        }
        bytes
    }

    fn follow(&mut self, bytes: &mut [u8]) -> Option<Forward> {
        let Some(follower) = &mut self.follower else {
            return Some(Forward {
                now: bytes.len(),
                held: false,
                farewell: false,
            });
        };
        let was_ready = follower.is_ready();
        let forward = follower.backend(bytes).ok()?;
        if !was_ready
            && follower.is_ready()
            && let (Some(handed), Some(key)) = (follower.handed_key(), follower.key())
        {
            let backend = Backend {
                server: self.endpoint.clone(),
                key: key.clone(),
            };
            self.hung.note_key(handed.clone(), backend);
        }
        Some(forward)
    }

    /// What has arrived was written by a primary that was the only one then. Readers have no such promise.
    fn may_answer(&self) -> bool {
        let Some(epoch) = self.epoch else { return true };
        if self.house.has_lease(epoch) {
            return true;
        }
        // First the wish, then a second look: a lease that comes in between is seen by one of the two.
        self.hung.bell.wants_lease.store(true, Ordering::SeqCst);
        self.house.has_lease(epoch)
    }
}

/// One read; the end of a stream is the end of the session, as PostgreSQL has it.
fn read<'a>(
    from: &mut TcpStream,
    shared: &'a mut [u8],
    context: &mut Context<'_>,
) -> Poll<Result<&'a mut [u8], End>> {
    let mut buffer = ReadBuf::new(shared);
    let length = match Pin::new(from).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) => buffer.filled().len(),
        Poll::Ready(Err(_)) => 0,
        Poll::Pending => return Poll::Pending,
    };
    match shared.get_mut(..length) {
        Some(bytes) if length > 0 => Poll::Ready(Ok(bytes)),
        _ => Poll::Ready(Err(End::Gone)),
    }
}

/// Waits for more bytes of a connection that begins, and adds them. With room for more than there
/// is, since a read that does not fill its buffer is known to be the last.
pub(super) async fn more(from: &mut TcpStream, inbox: &mut Vec<u8>) -> io::Result<()> {
    std::future::poll_fn(|context| {
        SHARED.with_borrow_mut(|shared| {
            let shared = shared.get_mut(..BEGINNING).unwrap_or_default();
            let read = read(from, shared, context).map_ok(|bytes| inbox.extend_from_slice(bytes));
            read.map_err(|_| io::ErrorKind::UnexpectedEof.into())
        })
    })
    .await
}

/// Writes what the other side takes and keeps the rest.
fn pass(
    to: &mut TcpStream,
    bytes: &[u8],
    kept: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<Result<(), End>> {
    let written = match write(to, bytes, context) {
        Poll::Ready(Ok(written)) => written,
        Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
        Poll::Pending => 0,
    };
    kept.extend_from_slice(bytes.get(written..).unwrap_or_default());
    Poll::Ready(Ok(()))
}

/// Writes what was kept.
fn flush(to: &mut TcpStream, kept: &mut Vec<u8>, context: &mut Context<'_>) -> Poll<Result<(), End>> {
    match write(to, kept, context) {
        Poll::Ready(Ok(written)) if written < kept.len() => drop(kept.drain(..written)),
        // Its memory goes too: most sessions never need it again.
        Poll::Ready(Ok(_)) => *kept = Vec::new(),
        Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
        Poll::Pending => return Poll::Pending,
    }
    Poll::Ready(Ok(()))
}

fn write(to: &mut TcpStream, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Pin::new(to).poll_write(context, bytes)
}
