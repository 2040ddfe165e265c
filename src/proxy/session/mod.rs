//! One client's session, understood: whether it rests, what it carries, and what it may be told. No IO and no clock.
//!
//! ```text
//!  client --bytes--> frontend()  +----------+  backend() <--bytes-- server
//!                                | Follower |
//!    how much may go on  <-------+----------+-------> key, is_idle, movable
//!                                     |                        |
//!                                  luggage                  Replay --> Login <--bytes--> another server
//! ```
//!
//! **Framing.** Behind the StartupMessage every message is a kind, a length and a body. The follower walks from head to head;
//! it looks into the few that say something (ReadyForQuery, ParameterStatus, BackendKeyData, notices; with
//! [`Follower::follow_text`] also the client's SQL), and copies only what comes in pieces. Requests are kept in order until
//! they are answered, so that a session counts as resting only when nothing is under way, in pipelines and COPY too.
//!
//! **Told "committed" only when it is.** A commit whose wait for a standby is cancelled succeeds, with a warning. The warning is
//! known by the function that raised it, since messages are translated. The completion behind it is held until [`Proofs`]
//! says that a standby has everything up to here; or the session ends with 40003, so that nobody was told anything.
//!
//! **Movable** is a session that rests and of which all that it has at its server is known: reported settings, SET of others
//! outside of transactions, prepared statements with a name. Everything else is a reason to stay ([`Fixed`]), and so is
//! every function that is not known to leave nothing behind. DISCARD ALL, which poolers send, takes most reasons away.
//!
//! Caveats. What runs unseen is not judged: triggers, rules, views, operators. `currval` behind a move fails if it was never
//! called before it. A client that compares `pg_backend_pid()` with the process id of its key sees another one (calling it
//! is a reason to stay, knowing the key's is not). Memory is bounded per session; what is over the bound makes it stay.

mod farewell;
mod follower;
mod frame;
mod key;
mod lexer;
mod login;
mod luggage;
mod marks;
mod notice;
mod parameters;
mod proofs;
mod queue;
mod reader;
mod replay;
mod userlist;
mod words;

pub use farewell::{moved_away, unanswered, unknown_commit};
pub use follower::{Follower, Forward, SECRET};
pub use frame::Garbled;
pub use key::BackendKey;
pub use login::{At, Landed, Login, LoginError, Step};
pub use marks::Fixed;
pub use proofs::{Answer, Batch, Proofs, Ticket};
pub use replay::Replay;
pub use userlist::{Credentials, Userlist};
