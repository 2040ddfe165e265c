//! The loop that runs on every node: probe -> report -> lease -> duty -> step.
//!
//! ```text
//!   guard events --+                         +--> report (watch) --> reporter: one task a voter
//!   SQL probe -----+--> Agent::pass: duty ---+--> facts (watch)  --> REST, command line
//!   agreed state --+                         +--> at most one Job: initdb, start, promote, clone, rewind, stop
//! ```
//!
//! The loop is level-triggered: every pass recomputes the duty from what is true now and starts at most one job
//! towards it; events only wake it sooner. A pass never waits for PostgreSQL, so a hanging server cannot cost the
//! lease. What must not be forgotten (the highest epoch used, which copy of the data this is, unfinished work on
//! the data directory) stands in the [`ledger`] *before* it is done.
//!
//! Invariant: a postmaster is started or promoted as primary only by a job that has (1) written the epoch to the
//! ledger as used and (2) given the guard the lease's deadline, in this order; and a second one never under the
//! same epoch.

mod agent;
pub mod bearer;
mod bypass;
mod callbacks;
pub mod charge;
mod data;
mod disk;
mod facts;
mod fitness;
mod gap;
mod guest;
mod handover;
mod hands;
mod job;
mod jobs;
mod judge;
mod keepsake;
pub mod last_word;
pub mod ledger;
mod lines;
mod lookout;
pub mod machine;
pub mod orders;
mod outlook;
mod pace;
mod pause;
mod place;
mod probe;
pub mod reporter;
mod restart;
mod restart_request;
mod settle;
mod slots;
mod standby;
mod steps;
mod synchronous;
pub mod tenancy;
mod wal_gone;
mod words;

pub use agent::{Agent, AgentError, AgentParts};
pub use facts::info;
pub use hands::Hands;
pub use jobs::random_run;
pub use orders::{NodeOrder, NodeOrders};
