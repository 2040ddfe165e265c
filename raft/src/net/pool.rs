//! Idle connections to one peer on one lane, and the calls made over them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::beats::Beats;
use crate::machine::Peer;
use crate::net::auth::{self, Credentials, Refusal};
use crate::net::leisure;
use crate::net::socket::Frames;
use crate::net::throttle::Throttle;
use crate::types::Identity;
use crate::wire::envelope::{open, seal};
use crate::wire::message::{Lane, Request, Response};

/// Shortest and longest pause after a failed connection attempt.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(300));
/// A whole handshake, both sides.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(2);
/// A connection on which the peer's kernel confirms nothing for so long is over (TCP_USER_TIMEOUT, tcp(7)): to a machine that
/// was lost, what nobody answers would else be sent for minutes after its return. At leisure, and otherwise.
const UNHEARD_MS: (u32, u32) = (1_000, 5_000);
/// From a failed connection for what is in no hurry to the next.
const LEISURE_AGAIN: Duration = Duration::from_secs(10);
/// Connections one lane may be opening to one peer at a time.
const DIALS: usize = 2;
/// Idle connections kept per lane and peer.
const IDLE: usize = 8;

/// A call that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer certainly did not get the request.
    #[error("{0}")]
    NotSent(String),
    /// The peer may have acted on it.
    #[error("{0}")]
    Lost(String),
}

/// Told about every peer that proved its name.
pub(crate) type Introduce = Arc<dyn Fn(Peer) + Send + Sync>;

/// Told when a proven peer says that this node has no place in the group (any more).
pub(crate) type Farewell = Arc<dyn Fn(Goodbye) + Send + Sync>;

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// It was taken out; the peer's sentence.
    Removed(String),
    /// The cluster was recovered without it: the newer foundation, and where it was met.
    GivenUp { newer: u64, at: String },
}

/// What is known of the language of whoever lives at an address.
#[derive(Clone, Copy)]
pub(crate) struct Spoken {
    /// The newest protocol that both sides speak.
    protocol: u16,
    /// The lane for what is in no hurry could not be had; not tried again before this.
    not_before: Option<Instant>,
}

/// What all pools share.
pub(crate) struct Dialer {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) identity: Arc<RwLock<Identity>>,
    pub(crate) connect: Duration,
    pub(crate) introduce: Introduce,
    pub(crate) farewell: Farewell,
    pub(crate) throttle: Throttle,
    /// By the peer's address.
    pub(crate) spoken: Mutex<HashMap<String, Spoken>>,
    /// A modelled network in place of connections.
    #[cfg(test)]
    pub(crate) wire: std::sync::OnceLock<crate::model::net::Wire>,
}

impl Dialer {
    fn spoken(&self) -> MutexGuard<'_, HashMap<String, Spoken>> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn dial(&self, addr: &str, to: u64, lane: Lane) -> Result<Frames, String> {
        let tcp = timeout(self.connect, TcpStream::connect(addr))
            .await
            .map_err(|_| format!("{addr} does not accept a connection within {:?}", self.connect))?
            .map_err(|e| format!("{addr} cannot be connected: {e}"))?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let unheard_ms = match lane {
            Lane::Leisure => UNHEARD_MS.0,
            _ => UNHEARD_MS.1,
        };
        setsockopt(&tcp, sockopt::TcpUserTimeout, &unheard_ms).map_err(|e| e.to_string())?;
        let me = *self.identity.read().unwrap_or_else(PoisonError::into_inner);
        let shaken = timeout(HANDSHAKE, auth::call(&self.credentials, me, tcp, to, lane)).await;
        match shaken {
            Ok(Ok((frames, welcome))) => {
                let spoken = Spoken {
                    protocol: welcome.protocol,
                    not_before: None,
                };
                self.spoken().insert(addr.to_owned(), spoken);
                (self.introduce)(Peer {
                    id: welcome.id,
                    name: welcome.name,
                    addr: addr.to_owned(),
                });
                Ok(frames)
            }
            Ok(Err(refusal)) => {
                if let Refusal::Foreign { mine, theirs } = refusal
                    && theirs > mine
                {
                    let at = addr.to_owned();
                    (self.farewell)(Goodbye::GivenUp { newer: theirs, at });
                }
                if let Some(unsaid) = self.throttle.admit(&format!("{addr} {refusal}")) {
                    tracing::warn!(peer = addr, unsaid, "peer refused: {refusal}");
                }
                Err(format!("{addr}: {refusal}"))
            }
            Err(_) => Err(format!(
                "{addr} did not complete the handshake within {HANDSHAKE:?}"
            )),
        }
    }
}

/// Connections to one peer on one lane.
pub(crate) struct Pool {
    dialer: Arc<Dialer>,
    beats: Arc<Beats>,
    addr: String,
    to: u64,
    lane: Lane,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    idle: Vec<Frames>,
    dialing: usize,
    failures: u32,
    not_before: Option<Instant>,
    last_error: String,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its answer. Dropping the future drops the connection with it.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        self.exchange(request, deadline, false).await
    }

    /// The same for an answer that may lie until this node is awake anyway: it wakes nobody.
    pub(crate) async fn call_at_leisure(
        self: &Arc<Self>,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        self.exchange(request, deadline, true).await
    }

    async fn exchange(
        self: &Arc<Self>,
        request: &Request,
        deadline: Duration,
        leisure: bool,
    ) -> Result<Response, CallError> {
        let bytes = self.sealed(request)?;
        #[cfg(test)]
        if let Some(wire) = self.dialer.wire.get() {
            let me = *self.dialer.identity.read().unwrap();
            let hello = auth::hello(&self.dialer.credentials, me, self.to, self.lane, [0; 32]);
            return wire.carry(&self.addr, hello, bytes, deadline).await;
        }
        let until = Instant::now() + deadline;
        let mut frames = self.connected(until).await?;
        let lost = |why: String| CallError::Lost(format!("{}: {why}", self.addr));
        let answer = match leisure {
            true => leisure::exchange(&self.beats, &mut frames, &bytes, until).await,
            false => timeout_at(until, frames.exchange(&bytes)).await.ok(),
        };
        let answer = match answer {
            Some(answer) => answer.map_err(|e| lost(e.to_string()))?,
            None => return Err(lost(format!("no answer within {deadline:?}"))),
        };
        let response = open(&answer).map_err(|e| lost(e.to_string()))?;
        self.put_back(frames);
        if let Response::Removed(why) = &response {
            (self.dialer.farewell)(Goodbye::Removed(why.clone()));
        }
        Ok(response)
    }

    /// Sends a request that nobody answers, over a lane of its own kind.
    pub(crate) async fn tell(
        self: &Arc<Self>,
        request: &Request,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let bytes = self.sealed(request)?;
        let until = Instant::now() + deadline;
        let mut frames = self.connected(until).await?;
        let lost = |why: String| CallError::Lost(format!("{}: {why}", self.addr));
        match timeout_at(until, frames.write(&bytes)).await {
            Ok(sent) => sent.map_err(|e| lost(e.to_string()))?,
            Err(_) => return Err(lost(format!("it takes nothing in within {deadline:?}"))),
        }
        self.put_back(frames);
        Ok(())
    }

    fn sealed(&self, request: &Request) -> Result<Vec<u8>, CallError> {
        let bytes = seal(request).map_err(|e| CallError::NotSent(e.to_string()))?;
        match bytes.len() > self.lane.frame_limit() {
            true => Err(CallError::NotSent(format!(
                "{} bytes are too large for one frame",
                bytes.len()
            ))),
            false => Ok(bytes),
        }
    }

    async fn connected(self: &Arc<Self>, until: Instant) -> Result<Frames, CallError> {
        match timeout_at(until, self.checkout()).await {
            Ok(frames) => frames.map_err(CallError::NotSent),
            Err(_) => Err(CallError::NotSent(format!("{} is not connected yet", self.addr))),
        }
    }

    async fn checkout(self: &Arc<Self>) -> Result<Frames, String> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                while let Some(frames) = state.idle.pop() {
                    if frames.is_quiet() {
                        return Ok(frames);
                    }
                }
                if state.not_before.is_some_and(|at| Instant::now() < at) {
                    return Err(state.last_error.clone());
                }
                if state.dialing < DIALS {
                    state.dialing += 1;
                    tokio::spawn(self.clone().dial());
                }
            }
            freed.await;
        }
    }

    /// Runs detached, so that a caller with a short deadline does not keep the connection from being made.
    async fn dial(self: Arc<Self>) {
        let dialed = self.dialer.dial(&self.addr, self.to, self.lane).await;
        match dialed {
            Ok(frames) => {
                {
                    let mut state = self.state();
                    state.dialing -= 1;
                    state.failures = 0;
                    state.not_before = None;
                }
                self.put_back(frames);
            }
            Err(why) => {
                let mut state = self.state();
                state.dialing -= 1;
                state.failures = state.failures.saturating_add(1);
                let pause = PAUSE.0 * 2u32.pow(state.failures.min(5) - 1);
                state.not_before = Some(Instant::now() + pause.min(PAUSE.1));
                state.last_error = why;
                drop(state);
                // Whoever lives there next may be an older one.
                if self.lane == Lane::Leisure
                    && let Some(spoken) = self.dialer.spoken().get_mut(&self.addr)
                {
                    spoken.not_before = Some(Instant::now() + LEISURE_AGAIN);
                }
                self.freed.notify_waiters();
            }
        }
    }

    fn put_back(&self, frames: Frames) {
        let mut state = self.state();
        if state.idle.len() < IDLE {
            state.idle.push(frames);
        }
        drop(state);
        self.freed.notify_one();
    }

    fn hurry(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.not_before = None;
    }
}

/// All pools of a node.
pub(crate) struct Pools {
    dialer: Arc<Dialer>,
    beats: Arc<Beats>,
    pools: Mutex<HashMap<(String, u64, Lane), Arc<Pool>>>,
}

impl Pools {
    pub(crate) fn new(dialer: Dialer, beats: Arc<Beats>) -> Pools {
        Pools {
            dialer: Arc::new(dialer),
            beats,
            pools: Mutex::default(),
        }
    }

    /// Between two heartbeats.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.beats.heartbeat()
    }

    /// From here on messages travel over a modelled network.
    #[cfg(test)]
    pub(crate) fn travel_by(&self, wire: crate::model::net::Wire) {
        assert!(self.dialer.wire.set(wire).is_ok());
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<(String, u64, Lane), Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool of one peer and lane. Connects nothing by itself.
    pub(crate) fn pool(&self, addr: &str, to: u64, lane: Lane) -> Arc<Pool> {
        let make = || Pool {
            dialer: self.dialer.clone(),
            beats: self.beats.clone(),
            addr: addr.to_owned(),
            to,
            lane,
            state: Mutex::default(),
            freed: Notify::new(),
        };
        self.pools()
            .entry((addr.to_owned(), to, lane))
            .or_insert_with(|| Arc::new(make()))
            .clone()
    }

    /// Whoever calls us can be called: forget the pauses of its address.
    pub(crate) fn hurry(&self, addr: &str) {
        for (_, pool) in self.pools().iter().filter(|((a, _, _), _)| a == addr) {
            pool.hurry();
        }
    }

    /// The lane for what is in no hurry: a peer that does not have it, or of which that is not known yet, hears it as ever.
    pub(crate) fn leisure(&self, addr: &str) -> Lane {
        let spoken = self.dialer.spoken().get(addr).copied();
        let has_it = |spoken: Spoken| {
            let again = spoken.not_before.is_none_or(|at| at <= Instant::now());
            spoken.protocol >= Lane::Leisure.since() && again
        };
        match spoken.is_some_and(has_it) {
            true => Lane::Leisure,
            false => Lane::Message,
        }
    }

    /// Forgets the pools of ids that are no members (any more).
    pub(crate) fn keep_only(&self, wanted: impl Fn(&str, u64) -> bool) {
        self.pools().retain(|(addr, id, _), _| wanted(addr, *id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::*;

    fn pools() -> Pools {
        let credentials = Credentials {
            cluster: "demo".to_owned(),
            name: "a".to_owned(),
            addr: "a:1".to_owned(),
            password: "x".to_owned(),
            tls: RwLock::new(None),
        };
        let dialer = Dialer {
            credentials: Arc::new(credentials),
            identity: Arc::default(),
            connect: Duration::from_secs(1),
            introduce: Arc::new(|_| {}),
            farewell: Arc::new(|_| {}),
            throttle: Throttle::default(),
            spoken: Mutex::default(),
            wire: std::sync::OnceLock::new(),
        };
        Pools::new(
            dialer,
            Arc::new(Beats::new(Duration::from_millis(50), Duration::from_millis(200))),
        )
    }

    #[tokio::test]
    async fn what_is_in_no_hurry_goes_as_ever_to_a_peer_that_may_be_an_older_one() {
        // Bound, and listening to nobody.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        let pools = pools();
        let lane = |protocol: Option<u16>| {
            if let Some(protocol) = protocol {
                let spoken = Spoken {
                    protocol,
                    not_before: None,
                };
                pools.dialer.spoken().insert(addr.clone(), spoken);
            }
            pools.leisure(&addr)
        };
        assert_eq!(lane(None), Lane::Message);
        assert_eq!(lane(Some(1)), Lane::Message);
        assert_eq!(lane(Some(2)), Lane::Leisure);
        let call = pools.pool(&addr, 0, Lane::Leisure);
        let answer = call
            .call(&Request::Message(Vec::new()), Duration::from_secs(10))
            .await;
        assert!(matches!(answer, Err(CallError::NotSent(_))), "{answer:?}");
        assert_eq!(lane(None), Lane::Message, "whoever lives there next may be older");
        tokio::time::pause();
        tokio::time::advance(LEISURE_AGAIN).await;
        assert_eq!(lane(None), Lane::Leisure, "or is back");
    }
}
