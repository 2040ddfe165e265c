//! What the daemon asks of its guard, what it hears from it, and how a request can fail.

use crate::cluster::{Epoch, Moment};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A postmaster to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSpec {
    /// The `postgres` program.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Variables set for it on top of the daemon's environment.
    pub env: Vec<(String, String)>,
    /// The data directory; also its working directory.
    pub data_dir: PathBuf,
    /// The user and group it runs as; `None` is the daemon's own.
    pub user: Option<(u32, u32)>,
    /// The epoch it is started as primary in: refused unless that epoch's deadline stands. `None` for a standby.
    pub epoch: Option<Epoch>,
}

/// The program that takes the guard's word to the peers when the daemon does not: it is called with the epoch and a
/// position near the end of the log behind `command`, then `args`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messenger {
    /// The program.
    pub program: PathBuf,
    /// Its first argument.
    pub command: String,
    /// Its last arguments.
    pub args: Vec<String>,
    /// Variables set for it on top of the guard's environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub dir: PathBuf,
}

/// The device that resets the machine unless it is fed, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogOrder {
    /// The device.
    pub device: PathBuf,
    /// The kernel's interface, or Patroni's words on a pipe.
    pub driver: WatchdogDriver,
    /// Without it nothing is started as primary.
    pub required: bool,
    /// The length of a lease.
    pub ttl_ms: u64,
    /// Seconds between the device's timeout and `ttl`; -1 is half of it.
    pub safety_margin_s: i64,
}

/// How a watchdog device is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchdogDriver {
    /// `linux/watchdog.h`.
    #[default]
    Kernel,
    /// `Ctimeout=N`, `1`, `V`: what Patroni's tests read from a pipe.
    Testing,
}

/// What became of the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchdogState {
    /// It is not used now.
    #[default]
    Off,
    /// It resets the machine when it was not fed for so long.
    Armed {
        /// Its timeout.
        timeout_s: u32,
    },
    /// It cannot be used.
    Unusable(WatchdogFault),
}

/// Why a watchdog cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum WatchdogFault {
    /// With this error number.
    #[error("it cannot be opened: {}", describe(*.0))]
    Open(i32),
    /// With this error number.
    #[error("it is no watchdog: {}", describe(*.0))]
    NoWatchdog(i32),
    /// The device keeps a timeout of its own.
    #[error("it keeps a timeout of {timeout_s} s, which does not fit a ttl of {ttl_ms} ms")]
    Timeout {
        /// The device's.
        timeout_s: u32,
        /// The lease's.
        ttl_ms: u64,
    },
    /// A device counts in seconds.
    #[error("a ttl of {0} ms leaves no room for a timeout of one second")]
    TtlTooShort(u64),
    /// With this error number.
    #[error("it does not take its food: {}", describe(*.0))]
    Feed(i32),
}

fn describe(errno: i32) -> &'static str {
    nix::errno::Errno::from_raw(errno).desc()
}

/// What the guard last told, and whether it is there at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// A guard is connected. When it is not, the other fields are the last known ones.
    pub connected: bool,
    /// The pid of the postmaster that runs under the guard.
    pub postmaster: Option<i32>,
    /// How many postmasters have exited; never goes back, also when the guard itself is replaced.
    pub exits: u64,
    /// How the last postmaster ended, for people.
    pub last_exit: Option<String>,
    /// No process of the data directory lives (looked at when told, and every second without a postmaster).
    pub clean: bool,
    /// A fence is being carried out.
    pub fencing: bool,
    /// The last epoch whose fence was carried out, with every process reaped.
    pub fenced: Option<Epoch>,
    /// The guard's turns when it told this; [`super::Guard::heartbeat`] has the present number.
    pub heartbeat: u64,
    /// The epoch and deadline the guard has accepted. Extensions send no event: the deadline is as of the last.
    pub armed: Option<(Epoch, Moment)>,
    /// What became of the watchdog.
    pub watchdog: WatchdogState,
    /// The guard understands [`super::Guard::order`]; one of an older version, still running, does not.
    pub takes_orders: bool,
    /// The guard understands [`super::Guard::adopt`].
    pub adopts: bool,
}

/// Why a request to the guard failed, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Nothing was done; the link is being repaired: try again after the next change of state.
    #[error("no guard is connected")]
    Absent,
    /// It may or may not have been done: look at the state once it is connected again.
    #[error("the connection to the guard broke before it answered")]
    Lost,
    /// It may or may not have been done, and the guard does not answer.
    #[error("the guard did not answer `{what}` within {ms} ms")]
    TimedOut {
        /// The request.
        what: &'static str,
        /// Its deadline.
        ms: u64,
    },
    /// The guard understood and refused; nothing was done.
    #[error("the guard refused: {0}")]
    Refused(String),
    /// The epoch is over on this node: its fence has begun.
    #[error("the fence of epoch {0} has begun, it cannot be armed again")]
    Fenced(Epoch),
    /// The deadline lies outside what the page can hold; a fault of the caller.
    #[error("{0} ms is no moment of this machine's boot-time clock")]
    Deadline(u64),
    /// No guard can be had: an operator has to look.
    #[error("{0}")]
    Unusable(String),
}
