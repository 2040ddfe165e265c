//! What a node knows of its guard and of its own part in the last change of primary, for its doors alone.

use super::ids::Epoch;

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
}

/// Observations of this node that no other node is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Its guard; `None` for a witness.
    pub guard: Option<GuardFacts>,
    /// Milliseconds from when the former primary was last seen serving to the opening of this node's gate; only while
    /// this node is the primary, and only where it saw both.
    pub gap_ms: Option<u64>,
}
