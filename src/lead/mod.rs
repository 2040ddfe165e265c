//! The loop that runs where the Raft leader is: newest reports -> view -> plan -> propose; and the granting of leases.
//!
//! Every node keeps a [`desk::Desk`] with the newest report of every member, because every report goes to every
//! voter: a new leader is already informed. Only the leader's desk grants leases and judges.
//!
//! ```text
//!  report --> desk.hear --> (leader) confirm with a quorum --> desk.grant --> answer with lease
//!                  \--> plan under the desk's lock --> withhold the epoch's lease --> propose
//! ```
//!
//! Invariant: once a verdict that moves primacy was reached, no lease for the old epoch is granted any more by
//! this leader. Verdict and grant are taken under one lock, so neither can slip between the other's check and
//! its effect; and the command carries the vote it was decided under, so that a verdict of an earlier reign is
//! refused when it is applied.

mod configure;
pub mod desk;
mod handover;
mod hearsay;
pub mod inbox;
mod membership;
mod orders;
mod outcome;
#[cfg(test)]
mod peers_test;
mod run;
mod said;

pub use desk::Desk;
pub use handover::judge_alone as asked_handover;
pub use inbox::{Gate, Mailroom};
pub use membership::see_off;
pub use orders::Orders;
pub use run::{is_stuck, patience_ms, run, watch_lead, watch_state};
