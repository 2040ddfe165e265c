//! The judge of agreement: openraft itself and nearly all of this crate, on paused time, in a world that a seed rules.
//!
//! ```text
//!   real      openraft, Group, propose and forward, form and seek, join and tend, observe (who leads, by a quorum's
//!             fresh acknowledgement), the serving side with pre-vote, LogStore, StateMachine, bytes on disk and wire
//!   modelled  the connections (`net`: instead of pool and handshake), the store's engine (`disk`), time, chance
//! ```
//!
//! Three or five nodes live in one thread on tokio's paused clock, which jumps to the next timer when nobody has anything
//! to do. openraft draws its waits from the seed (`runtime`), polls its branches in order, and so do we: one seed is one
//! run, exactly, without unstable features of tokio. A node crashes with everything that was not synced, a part of
//! what was written last excepted; the disk may be lost once, when the group is whole.
//!
//! Checked at every event (`judge`): one place of the log has one entry and one predecessor; a reign begins once and with
//! everything applied in earlier ones; everybody applies the same commands in the same order, none twice; a vote never goes
//! back; what was acknowledged is there and what was refused never is; who confirmed itself as leader knew all that had
//! been applied anywhere when it was asked, which is what leases rest on. And at the end: whole again in bounded time.
//!
//! `MODEL_SEEDS=1000` for more runs, `MODEL_SEED=7` tells one.

mod dice;
pub(crate) mod disk;
mod judge;
pub(crate) mod net;
mod run;
pub(crate) mod runtime;
mod seeds;
mod world;
