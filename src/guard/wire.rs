//! What daemon and guard say to each other over the socket: one JSON object a line, versioned by the hello.

use crate::cluster::{Epoch, Moment};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Raised when either side could misunderstand the other.
pub const VERSION: u32 = 1;
/// Name of the socket in the Raft directory.
pub const SOCKET: &str = "guard.sock";
/// No line is longer.
pub const LONGEST_LINE: usize = 256 * 1024;

/// How to start a postmaster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables to set.
    pub env: Vec<(String, String)>,
    /// The data directory, also the working directory.
    pub data_dir: PathBuf,
    /// User and group to become.
    pub user: Option<(u32, u32)>,
}

/// The first line, sent by the guard together with the page's descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The guard's protocol version.
    pub version: u32,
    /// Its process id.
    pub pid: u32,
}

/// What the daemon asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start a postmaster.
    Start(StartSpec),
    /// Send the postmaster a signal.
    Signal(i32),
    /// Kill and reap everything of the data directory.
    KillAll,
    /// Go, if nothing runs.
    Quit,
}

/// An order with a number to match its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The number.
    pub id: u64,
    /// The order.
    pub order: Order,
}

/// What the guard says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The answer to a request: a number (a process id or zero), or why not.
    Answer(u64, Result<i32, String>),
    /// How things are; sent whenever they change.
    State(GuardState),
}

/// How things are, as the guard last said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardState {
    /// The daemon is connected to a guard.
    pub connected: bool,
    /// The guard's process id.
    pub guard: u32,
    /// The postmaster's process id.
    pub postmaster: Option<i32>,
    /// How many postmasters have ended under this guard.
    pub exits: u64,
    /// How the last one ended, for people.
    pub last_exit: Option<String>,
    /// No process of the data directory lives.
    pub clean: bool,
    /// A fence is under way.
    pub fencing: bool,
    /// The epoch that was fenced last: nothing of it lives.
    pub fenced: Option<Epoch>,
    /// The armed epoch and its deadline.
    pub armed: Option<(Epoch, Moment)>,
}
