//! Everything that can enter the log: each command says on which revision and by which rule it was decided.

use super::handover::Handover;
use super::history::Promotion;
use super::ids::{Epoch, Incarnation, MemberName, Revision};
use super::member::{Fitness, MemberInfo};
use super::sync::Quorum;
use super::wal::Timeline;
use serde::{Deserialize, Serialize};

/// The newest level this program understands. A command of level n is proposed only when every member has registered a
/// level of at least n, and a message of level n is sent to members that have. Raise it with every new variant or field
/// of either.
pub const LEVEL: u16 = 4;
/// The level of the message [`super::PeerMessage::HeardOf`]; no command asks for it.
pub const HEARSAY_LEVEL: u16 = 4;

/// Identifies one reign of one Raft leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Raft's term.
    pub term: u64,
    /// The leader's Raft id.
    pub node: u64,
}

/// One decision, ready for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The revision the decision was made on; the command is `Stale` when it has passed. `None` for facts
    /// that hold whatever was decided meanwhile (a registration).
    pub expected: Option<Revision>,
    /// The vote under which its proposer led when it decided; the command is `Stale` when the log entry that
    /// carries it was written under another one, because somebody else may have granted leases in between.
    pub vote: Vote,
    /// Name of the rule that made it.
    pub rule: String,
    /// What the rule saw, for people.
    pub reason: String,
    /// Wall time of the proposer, milliseconds since 1970; data for people, never compared.
    pub at_ms: u64,
    /// What to do.
    pub act: Act,
}

/// What a command does. Append variants at the end only: bincode stores their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A member joins or says something new of itself.
    Register(MemberInfo),
    /// Give `member` the right to create the database cluster in `epoch`, with this dynamic configuration.
    Bootstrap {
        /// Who creates it.
        member: MemberName,
        /// Its epoch.
        epoch: Epoch,
        /// Dynamic configuration as JSON text.
        config: String,
        /// Its `ttl`, milliseconds.
        ttl_ms: u64,
    },
    /// The database cluster exists: its identifier is fixed for ever.
    Initialized {
        /// Who created it.
        member: MemberName,
        /// In which epoch.
        epoch: Epoch,
        /// Database system identifier.
        system_id: u64,
        /// The timeline it is on.
        timeline: Timeline,
    },
    /// `member` becomes primary in `epoch` by promotion to the reserved `timeline`.
    Promote {
        /// The new primary.
        member: MemberName,
        /// The new epoch.
        epoch: Epoch,
        /// The timeline it must reach.
        timeline: Timeline,
    },
    /// The last holder starts its PostgreSQL again as primary in a new epoch, on the same timeline.
    Restart {
        /// The primary.
        member: MemberName,
        /// The new epoch.
        epoch: Epoch,
    },
    /// The primary of an epoch has reached its timeline.
    Promoted(Promotion),
    /// A member gained or lost the right to be promoted.
    Judge {
        /// Whom it is about.
        member: MemberName,
        /// The new judgement.
        fitness: Fitness,
    },
    /// Replace the dynamic configuration (JSON text).
    Configure {
        /// The whole new configuration.
        config: String,
        /// Its `ttl`, milliseconds.
        ttl_ms: u64,
        /// Its `pause`.
        paused: bool,
    },
    /// Every grant made under an older, longer ttl has run out.
    TtlSettled {
        /// The ttl in force, milliseconds.
        ttl_ms: u64,
    },
    /// Forget a member.
    Forget {
        /// Whom.
        member: MemberName,
    },
    /// End the present epoch for good: no lease of it is renewed, and every copy of the data promises not to stream
    /// from an epoch below the new one.
    Fence {
        /// The new epoch.
        epoch: Epoch,
    },
    /// `member` becomes primary by promotion where commits wait for standbys: as `Promote`, but on the proof of the
    /// copies that were heard, and with the quorum that acknowledges from then on.
    Elect {
        /// The new primary.
        member: MemberName,
        /// The copy of the data that was heard.
        copy: Option<Incarnation>,
        /// The new epoch.
        epoch: Epoch,
        /// The timeline it must reach.
        timeline: Timeline,
        /// What acknowledges its commits.
        quorum: Quorum,
    },
    /// Elections respect this quorum too from now on, and the primary may then put it in force. `None` turns
    /// synchronous replication off.
    Resync {
        /// What acknowledges.
        quorum: Option<Quorum>,
    },
    /// The primary has proved that the newest quorum has all that any older one acknowledged.
    Settle {
        /// The primary's epoch.
        epoch: Epoch,
        /// Which change was proved.
        serial: u64,
    },
    /// An operator asks for another primary; whether it begins now stands in it. In place of one that has not begun.
    Ask(Handover),
    /// The handover whose time has come begins.
    Begin {
        /// The epoch that ends.
        epoch: Epoch,
        /// Who is to be promoted.
        to: MemberName,
    },
    /// The handover is not carried out, or not any further.
    CallOff {
        /// The revision that recorded it.
        asked: Revision,
    },
    /// After a pause the primary's deadline stands again, or its epoch is over.
    Resumed {
        /// The revision of the resume.
        since: Revision,
    },
    /// An operator takes a member out: it counts for nothing any more, and is forgotten once nothing waits for it.
    Dismiss {
        /// Whom.
        member: MemberName,
    },
    /// An operator lets a member that was taken out join again.
    Readmit {
        /// Whom.
        member: MemberName,
    },
}

impl Act {
    /// The command level that a member must understand before this may be proposed.
    pub fn level(&self) -> u16 {
        match self {
            Self::Fence { .. } | Self::Elect { .. } | Self::Resync { .. } | Self::Settle { .. } => 2,
            Self::Ask(_) | Self::Begin { .. } | Self::CallOff { .. } | Self::Resumed { .. } => 3,
            Self::Configure { paused: true, .. } => 3,
            Self::Dismiss { .. } | Self::Readmit { .. } => 3,
            _ => 1,
        }
    }
}

/// What applying a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It holds from this revision on.
    Applied(Revision),
    /// Something else was decided first; nothing changed. Carries the revision now in force.
    Stale(Revision),
    /// It contradicts the state; nothing changed. Says why.
    Refused(String),
}
