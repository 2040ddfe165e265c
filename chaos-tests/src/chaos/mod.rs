//! Chaos: faults at random on a real cluster in a network of its own, clients that remember, and a verdict.
//!
//! ```text
//!   seed -> schedule -+            +-> history --+
//!                     v            |             v
//!   run:   arena <- fault     load (clients)  verdict <- truth (what is there in the end)
//!         /  |   \                               |
//!   network disk freezer           watch ----> report
//! ```
//!
//! - `arena`: three nodes around a switch, each with a disk and a control group; this program lives among the clients.
//! - `fault`: names; `hurt_*` make one happen and return with the proof; a `Remedy` undoes it.
//! - `load*`: the clients. What they were told is in `history`, with times of the boot-time clock.
//! - `verdict`, `losses`, `serial`, `registers`: the oracle, pure functions of history, truth and faults.
//!
//! Invariants: nothing is decided by chance but from the seed; a fault that hit nothing is never counted; an answer
//! that did not come is unknown, and of the unknown nothing is demanded.
//!
//! Caveats: one kernel, so one boot-time clock for all nodes; a seed repeats the schedule, not the cluster's state at
//! that moment. Entering an arena moves the calling thread into other namespaces for good.
pub mod arena;
pub mod cable;
pub mod dice;
pub mod disk;
pub mod failing_syncs;
pub mod fault;
pub mod freezer;
pub mod history;
mod hurt_disk;
pub mod hurt_members;
mod hurt_moment;
mod hurt_network;
mod hurt_process;
mod hurt_sync;
pub mod load;
mod load_bank;
mod load_cancel;
mod load_lists;
mod load_register;
mod load_standby;
mod losses;
pub mod netns;
pub mod network;
pub mod registers;
pub mod report;
pub mod run;
pub mod schedule;
pub mod serial;
pub mod session;
pub mod truth;
pub mod verdict;
pub mod watch;
