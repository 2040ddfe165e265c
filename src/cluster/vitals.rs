//! What a node knows of its guard and of its own part in the last change of primary, for its doors alone.

use super::ids::Epoch;
use serde::{Deserialize, Serialize};

/// What became of the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogFacts {
    /// It is not used now.
    #[default]
    Off,
    /// It resets the machine unless it is fed.
    Armed,
    /// It cannot be used.
    Failed,
}

/// The small process that stands between the daemon and PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardFacts {
    /// It is there; when it is not, the rest is as last heard.
    pub connected: bool,
    /// How many postmasters have ended under it.
    pub exits: u64,
    /// The newest epoch whose fence it carried out.
    pub fenced: Option<Epoch>,
    /// The watchdog it feeds.
    pub watchdog: WatchdogFacts,
    /// A watchdog is required and cannot be had, so that this node may not be primary.
    pub barred: bool,
}

/// Why a session was not taken to the next primary, in the metrics' words.
pub const UNMOVED: [&str; 13] = [
    "not_followed",
    "busy",
    "unreadable",
    "functions",
    "listens",
    "temporary",
    "locks",
    "cursor",
    "settings",
    "statements",
    "too_much",
    "no_server",
    "refused",
];

/// What the built-in proxy has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyFacts {
    /// Sessions of writers now.
    pub rw: u64,
    /// Sessions of readers now.
    pub ro: u64,
    /// New connections that wait for a server now.
    pub waiting: u64,
    /// Connections that have not said what they want.
    pub handshakes: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Sessions that were led to a server.
    pub led: u64,
    /// What was no request of PostgreSQL, or half of one.
    pub garbage: u64,
    /// Clients that were sent away because of a limit.
    pub crowded: u64,
    /// Clients that were sent away because nobody served in time.
    pub unserved: u64,
    /// Sessions that were ended because their primary was deposed.
    pub cut: u64,
    /// Requests to cancel.
    pub cancels: u64,
    /// Sessions that were taken to the next primary.
    pub moved: u64,
    /// Those that were not and ended, by the reason of the same place in [`UNMOVED`].
    pub unmoved: [u64; UNMOVED.len()],
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// Observations of this node that no other node is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Its guard; `None` for a witness.
    pub guard: Option<GuardFacts>,
    /// Milliseconds from when the former primary was last seen serving to the opening of this node's gate; only while
    /// this node is the primary, and only where it saw both.
    pub gap_ms: Option<u64>,
    /// Its proxy; `None` where there is none, or it is not there.
    pub proxy: Option<ProxyFacts>,
}
