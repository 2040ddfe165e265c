//! Nouns: what the cluster agrees on and what its nodes tell each other, as pure data.
//!
//! Nothing here asks the time, opens a file or talks to anybody. [`state::State`] is what the Raft log
//! builds up; [`command::Command`] is what enters the log; [`report::Report`] travels beside the log and
//! is forgotten. Replicated types are stored with bincode inside a versioned envelope: append enum variants
//! at the end only, and give a changed struct a new version (`envelope.rs`).

pub mod apply;
mod apply_check;
mod apply_handover;
pub mod command;
pub mod envelope;
pub mod facts;
pub mod handover;
pub mod history;
pub mod ids;
pub mod member;
pub mod order;
pub mod pause;
pub mod primacy;
pub mod report;
pub mod schedule;
pub mod settings;
pub mod state;
pub mod survivor;
pub mod sync;
pub mod vitals;
pub mod wal;

pub use command::{Act, Command, Outcome, Vote};
pub use facts::{Facts, LeaseFacts, RaftFacts, WalSender};
pub use handover::{Handover, UnderWay, When};
pub use history::{Event, Promotion};
pub use ids::{Epoch, Incarnation, MemberName, Moment, Revision};
pub use member::{Endpoint, Fitness, Member, MemberInfo, Tags};
pub use order::{Done, HandoverOrder, Order};
pub use pause::Pause;
pub use primacy::{Origin, Primacy};
pub use report::{
    Answer, Bearing, Fork, Grant, Offer, PeerMessage, PeerReply, PostgresReport, PostgresState, Promise,
    Report, Role, Seen, Sender, Standing, Synced, Tenure,
};
pub use settings::{PostgresSettings, Settings, Shared, SyncMode};
pub use state::State;
pub use sync::{Quorum, Sync};
pub use vitals::{GuardFacts, ProxyFacts, UNMOVED, Vitals, WatchdogFacts};
pub use wal::{Lsn, Timeline, WalEnd};
