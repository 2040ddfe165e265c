//! The small process that stands between the daemon and PostgreSQL and enforces the lease.
//!
//! ```text
//!   daemon --socket (start, signal, kill, state)--> guard --fork, parent--> postmaster
//!      \---lease page (shared memory: epoch, deadline)--/      \--adopts--> its orphans
//! ```
//!
//! The guard is the same program under a hidden command, in a session of its own, with one thread, no network and
//! no runtime. It is the postmaster's parent and dies with it in the other direction too: the kernel sends the
//! postmaster SIGQUIT when the guard dies. It knows one number, the deadline at which nothing of a primary may live
//! any more. The daemon moves that number by writing to memory; nothing it does or omits otherwise can keep a
//! primary alive: it may hang, crash, be upgraded, be stopped.
//!
//! | when | what |
//! |---|---|
//! | deadline - 300 ms | SIGQUIT to the postmaster and every process of the data directory |
//! | deadline - 150 ms | SIGKILL to all of them, again and again until they are gone |
//! | all reaped | the epoch is *fenced*; the daemon is told |
//!
//! Invariants: a begun fence is never undone; a deadline is never shortened within an epoch; a postmaster is started
//! only when no process of its data directory lives; when the postmaster ends, for whatever reason, every process
//! that it leaves behind is killed and reaped before that end is reported as clean (a busy orphan was seen to
//! commit 1.3 s after its postmaster's death).
//!
//! Which processes belong to a data directory: those whose working directory it is, by device and inode, and whose
//! name is PostgreSQL's; and the guard's own children, whatever they are. An operator's shell in that directory is
//! none of them.
//!
//! Caveats: without privilege, memory is not locked and priority not raised. A guard that is stopped together with
//! the daemon cannot act: that hole is the watchdog's.

mod handle;
mod kin;
pub mod page;
pub mod process;
mod wire;

pub use handle::{Guard, GuardError, GuardOptions};
pub use wire::{GuardState, StartSpec};
