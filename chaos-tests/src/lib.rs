//! The judge: whole clusters of real daemons and real PostgreSQL, faults that prove they happened, and an oracle.
//!
//! ```text
//!   tests/life/*        bin/bench
//!        \________________/
//!                |
//!              Herd ------------- until(what, deadline, condition)
//!           /    |    \
//!        Node   Node   Node       start, kill, freeze, wipe; every fault waits for its witness
//!          |      |      |
//!        daemon, guard, PostgreSQL           Writer (goes where writes are accepted)
//!                                            Pinned (stays with one node whatever happens)
//!                                                 \        /
//!                                                  oracle: lost, repeated, holes, overlaps, gap
//! ```
//!
//! Rules of this crate:
//!
//! - A herd has its own temporary directory and its own `127.a.b.x` addresses, so runs may overlap. Dropping it, also in
//!   a panic, ends every process that works in that directory or names it in its arguments, and removes it.
//! - A fault returns only when `/proc` shows that it happened.
//! - A write that failed after it was sent is *unknown*: the oracle demands nothing of it. An acknowledged one must exist
//!   exactly once. All times are this machine's boot-time clock, so the clients' times can be compared.
//! - Nothing here looks into the daemon: it is driven through its command line, its REST port, its log and signals.
//!
//! Caveats: killing every process of a node is a crash, not a power cut (the kernel still closes the sockets). Power
//! cuts, and networks that can be cut, are in `chaos`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this crate is test code: an expectation that fails ends the test with its message"
)]

pub mod addresses;
pub mod chaos;
pub mod companions;
pub mod crowd;
pub mod disk;
pub mod freezer;
pub mod herd;
pub mod kennel;
pub mod lone_proxy;
pub mod node;
pub mod node_file;
pub mod oracle;
pub mod plain;
pub mod processes;
pub mod rest;
pub mod sink;
pub mod stories;
mod sys;
pub mod writer;

pub use disk::Disk;
pub use herd::{FORM_S, Herd};
pub use node::Node;
pub use node_file::Options;
pub use oracle::Verdict;
pub use writer::{Pinned, Writer};
