//! The small process that stands between the daemon and PostgreSQL and enforces the lease.
//!
//! The daemon may be upgraded, hang, be stopped or killed. So PostgreSQL is the child of another process, which
//! knows one number: the deadline at which nothing of a primary may live any more.
//!
//! ```text
//!   daemon                                   guard (one thread, no runtime, session of its own)
//!   ------                                   --------------------------------------------------
//!   Guard (handle) --- lease page, memfd --> Keeper: beat, reap, enforce, serve, wait
//!     |   arm = one store, wakes nobody        |- Lease   the accepted deadline, the fence
//!   Link (task) <-- guard.sock, JSON lines --> |- Door    the socket, one visitor
//!     reconnects, respawns                     |- Ward    postmaster + everything in its data directory
//!                                              |    |- launch   fork, exec
//!                                              |    '- sweep    find and kill
//!                                              |- Watchdog  the device, fed while the lease lives
//!                                              '- Herald   tells the peers when the daemon cannot
//! ```
//!
//! **The fence.** At deadline - 300 ms SIGQUIT, from deadline - 150 ms on SIGKILL, to the postmaster, to the guard's
//! children (it is the subreaper of all orphans) and to every process named or executed as `postgres` whose
//! working directory is the data directory, so also to a PostgreSQL that somebody else started. It ends when
//! all are reaped or gone, seen twice; only then is the epoch `fenced`. Once begun it is never undone: a later
//! extension counts for nothing, [`Guard::arm`] answers `Fenced` for that epoch and older ones, for ever.
//! The path of the fence allocates nothing, opens no file outside `/proc`, writes nothing that could block and
//! stops serving the daemon meanwhile.
//!
//! **Invariants**
//! - A deadline is enforced for the epoch it was written for, or not at all: it shares one atomic word with its
//!   epoch, so a writer killed between two stores lends no deadline to another epoch. It never shrinks within
//!   an epoch, and an older epoch changes nothing.
//! - Each connection gets a page of its own. What a displaced daemon writes reaches nobody.
//! - No postmaster is started before every process of its data directory is gone, and none while the fence is
//!   carried out. A lock on the data directory itself keeps two guards from acting on one.
//! - The end of the postmaster, however it comes, has everything it left behind killed and reaped; the exit is
//!   told at once, `clean` when that is done. PostgreSQL's log collector has 100 ms to write down the last words.
//! - The postmaster dies with its guard (SIGQUIT by parent-death signal). Who finds a new guard then asks it to
//!   `kill_all`: that is the proof that nothing is left.
//! - An adopted postmaster (started by somebody else before this node was there) is kept like a child in all but that:
//!   until its first restart under the guard, guard and daemon killed together leave it running past its deadline.
//!
//! **The word.** A fence is news for the leader. When the daemon does not take it within 100 ms, or there is none, the
//! guard starts a messenger, a sibling and no child of its own, which tells the peers (`herald`). What it needs
//! stands in orders that the daemon renews while it lives.
//!
//! **The watchdog** is fed every turn while the lease lives, never with food that lasts longer than the lease, and
//! disarmed only when nothing is left (`watchdog`). A fence feeds nobody.
//!
//! **Disarming** is for a standby and for a stopped PostgreSQL. The guard cannot tell a primary from a standby and
//! obeys, unless the fence has begun.
//!
//! **When it goes.** Told to quit with nothing running; ten seconds after the last of daemon, postmaster and
//! deadline; or when its socket was taken away while no daemon is connected (the Raft directory was wiped): then
//! nobody can ever come back to it, and it stops PostgreSQL first.
//!
//! **Upgrades.** A running guard outlives its program file. The greeting has a fixed shape with the protocol's
//! number; a daemon refuses a number it does not know, and says so.
//!
//! **Caveats.** Privileges are used where they exist (locked memory, real-time priority, out-of-memory score)
//! and missed silently elsewhere. Guard and daemon stopped together, or a machine that stands still, are the
//! watchdog's case. A process that hangs in the kernel cannot be killed; the fence goes on trying and is not
//! `fenced`. Two daemons on one Raft directory would displace each other in turns: the Raft store's lock is
//! what prevents that.

pub(crate) mod door;
mod handle;
mod herald;
mod keeper;
mod launch;
mod lease;
pub(crate) mod link;
mod page;
pub mod process;
mod state;
mod sweep;
mod ward;
mod watchdog;
mod wire;

pub use handle::{Guard, GuardOptions};
pub use launch::hidden_variables;
pub use nix::sys::signal::Signal;
pub use state::{
    GuardError, GuardState, Messenger, StartSpec, WatchdogDriver, WatchdogFault, WatchdogOrder, WatchdogState,
};
