//! Judgement: pure functions without clock or IO, tested as text.
//!
//! `rules::plan` decides for the cluster and runs only where the Raft leader is; `duty::duty` decides for one
//! node and may only be stricter; `rejoin::rejoin` says how old data comes back. Whatever they need arrives as
//! an argument, so that a test, the daemon and a simulator call the very same code.

pub mod address;
pub mod candidate;
pub mod duty;
pub mod fence;
mod followers;
mod founding;
pub mod handover;
pub mod lease;
pub mod lines;
mod pause;
pub mod rejoin;
pub mod rules;
pub mod slots;
pub mod spared;
pub mod sync;
mod upkeep;
pub mod view;

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod random;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod script_sync;
#[cfg(test)]
pub(crate) mod script_words;
