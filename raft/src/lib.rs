//! Agreement: openraft carrying opaque bytes over one authenticated peer port.
//!
//! ```text
//!   Group ---- propose, confirm, hand_over ---> openraft ----> store/  (log, vote, snapshots: the storage crate)
//!     |                                          ^   |
//!     |  ask, Inbox (beside the log)             |   +-------> net/raft (heartbeats, appends, snapshots)
//!     |                                        serve           |
//!     +--- Status <--- observe <--- metrics      ^           pool: a connection per peer and lane
//!                                                |             |
//!   form + seek: who am I, whose group?        listen <== one port, auth + TLS ==> dial
//! ```
//!
//! What the rest of the program may rely on:
//!
//! - A proposal answered `Ok` is committed, and applied on the node that led. `Unknown` means look before deciding again.
//! - `Status::lead` is `Some` only while this node leads *with a quorum behind it*: its own first entry of this vote is
//!   applied and the last acknowledgement of a quorum is younger than `election_max`. openraft's own state says
//!   "leader" long after that and is never used for it. A stale reader is caught by `confirm`, which asks the quorum anew.
//! - An id belongs to one store for ever (`form`). A wiped node comes back under another one, and whoever calls an address
//!   under an id that no longer lives there is turned away.
//! - Bytes on disk and on the wire are this crate's own (`wire`), not openraft's.
//!
//! Caveats:
//!
//! - openraft is a pinned alpha. A new version passes the storage suite here and the chaos suite first.
//! - Two leaders may share a term (openraft's default leader id); `Lead` names both halves.
//! - Without TLS the frames after the handshake are neither encrypted nor sealed: the challenge keeps strangers out, not
//!   somebody who can rewrite packets.
//! - A two-voter group of which one store is lost has no quorum to admit its successor. Three voters do.
//! - openraft logs a line per missed heartbeat and about a hundred per second while nobody leads: filter it, see
//!   [`LOG_FILTER`]. What an operator needs to know is logged here.

mod beats;
mod courier;
mod errors;
mod farewell;
mod form;
mod group;
mod join;
mod machine;
mod metronome;
#[cfg(test)]
mod model;
mod net;
mod node;
mod observe;
mod portless;
mod propose;
mod recover;
mod seek;
mod serve;
mod settings;
mod start;
mod status;
mod store;
mod ticks;
mod types;
mod wire;

pub use beats::Hurry;
pub use courier::Courier;
pub use errors::{AskError, NotLeading, ProposeError, StartError};
pub use group::Group;
pub use machine::{Halt, Inbox, Machine, Peer};
pub use metronome::Metronome;
pub use recover::{Recovered, recover};
pub use settings::{Settings, TlsFiles};
pub use status::{Lead, Status};

/// Directive for the program's log filter: openraft's own lines, below errors, tell an operator nothing and come by the
/// hundred while a peer is away.
pub const LOG_FILTER: &str = "openraft=error";
