//! The byte pump of one session: both directions, one task, no buffer while the other side takes everything.
//!
//! Bytes are read into a buffer that all sessions of a thread share, looked at there and written on from there. What the
//! other side does not take at once is kept in the session, and as long as something is kept nothing more is read from
//! its source: a slow reader slows its own server down, and costs one buffer at most.
//!
//! A read that does not fill the buffer has emptied the socket, so a query costs two waits, two reads and two writes.

use super::house::{Backend, Counts, Entry, House, Hung};
use super::session::{Follower, Forward, unknown_commit};
use super::words::Refusal;
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

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One side has gone.
    Gone,
    /// Its primary is not the primary any more.
    Deposed,
    /// The proxy ends.
    Stopping,
    /// A side does not speak PostgreSQL's protocol.
    Garbled,
    /// A commit's wait for standbys was given up, and nobody can tell whether one of them has it.
    InDoubt,
}

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
    pub(crate) _load: Entry<Endpoint>,
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
            let up = relay.upwards(context);
            let down = relay.downwards(context);
            match (up, down) {
                (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
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
        if !followed {
            return Err(End::Garbled);
        }
        self.follow(&mut answer)?;
        (self.to_client, self.to_server) = (answer, inbox);
        Ok(())
    }

    /// Something outside has changed.
    fn look_again(&self) -> Option<End> {
        if self.is_deposed() {
            return Some(End::Deposed);
        }
        let stopping = *self.house.stopping.borrow();
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

    /// Client to server, one read at most.
    fn upwards(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.to_server.is_empty() {
            return flush(&mut self.server, &mut self.to_server, context);
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
            pass(&mut self.server, bytes, &mut self.to_server, context)
        })
    }

    /// Server to client likewise; but an answer goes out only if its server was the primary when it had arrived.
    fn downwards(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.to_client.is_empty() {
            if !self.may_answer() {
                return Poll::Pending;
            }
            self.hung.bell.wants_lease.store(false, Ordering::Relaxed);
            return flush(&mut self.client, &mut self.to_client, context);
        }
        SHARED.with_borrow_mut(|shared| {
            let bytes = match read(&mut self.server, shared, context) {
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            };
            self.counts.bytes_out.add(bytes.len());
            match self.follow(bytes) {
                Ok(Forward { held: true, now, .. }) => {
                    self.to_client.extend(bytes.iter().take(now));
                    return Poll::Ready(Err(End::InDoubt));
                }
                // A server's farewell goes out with the rest: no session is taken elsewhere.
                Ok(_) => {}
                Err(end) => return Poll::Ready(Err(end)),
            }
            if self.may_answer() {
                return pass(&mut self.client, bytes, &mut self.to_client, context);
            }
            self.to_client.extend_from_slice(bytes);
            Poll::Pending
        })
    }

    fn follow(&mut self, bytes: &mut [u8]) -> Result<Forward, End> {
        let Some(follower) = &mut self.follower else {
            let (now, held) = (bytes.len(), false);
            return Ok(Forward {
                now,
                held,
                farewell: false,
            });
        };
        let was_ready = follower.is_ready();
        let forward = follower.backend(bytes).map_err(|_| End::Garbled)?;
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
        Ok(forward)
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

    /// The last words to the client, as far as it takes them at once.
    pub(crate) fn close(self, end: End) {
        let refusal = match end {
            End::Deposed => Refusal::Deposed,
            End::Stopping => Refusal::Stopping,
            End::InDoubt => return self.part_in_doubt(),
            End::Gone | End::Garbled => return,
        };
        // What is kept may end anywhere, and what a deposed primary has answered is not forwarded any more.
        let at_boundary = self
            .follower
            .as_ref()
            .is_some_and(|follower| follower.may_speak());
        if !at_boundary || !self.to_client.is_empty() {
            return;
        }
        let _ = self.client.try_write(&refusal.spoken());
        // A socket that is closed with bytes unread is reset, and the words would be lost.
        SHARED.with_borrow_mut(|shared| {
            let _ = self.client.try_read(shared);
        });
    }
}

impl Relay {
    /// What came before the completion in doubt goes out, and in the completion's place the truth: nobody knows.
    fn part_in_doubt(mut self) {
        self.to_client.extend_from_slice(&unknown_commit());
        let _ = self.client.try_write(&self.to_client);
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
