//! A change of primary that an operator asked for: agreed before it begins, so that whoever leads Raft carries it on.

use super::ids::{Epoch, MemberName, Revision};
use serde::{Deserialize, Serialize};

/// A switchover or failover that was asked for and is not over yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// A failover: the last primary need not be there, and the candidate need not follow closely.
    pub failover: bool,
    /// From whom; a failover may not know.
    pub from: Option<MemberName>,
    /// To whom; the best one if nobody was named.
    pub to: Option<MemberName>,
    /// When it shall begin; at once if absent.
    pub at: Option<When>,
    /// An operator's explicit word: what was acknowledged to clients may be lost.
    pub accept_loss: bool,
    /// Set once it has begun.
    pub under_way: Option<UnderWay>,
    /// The revision that recorded it, which tells it from every other.
    pub asked: Revision,
}

/// A wall time: compared once, by the leader, in order to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// The same as it is shown, ISO 8601 with the offset it was given in.
    pub iso: String,
}

/// A handover that has begun: the primary of this epoch shall end it, for this member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// Who is to be promoted.
    pub to: MemberName,
}

impl Handover {
    /// What begins now, if it is the handover of this epoch.
    pub fn of(&self, epoch: Epoch) -> Option<&UnderWay> {
        self.under_way.as_ref().filter(|begun| begun.epoch == epoch)
    }

    /// What people call it.
    pub fn word(&self) -> &'static str {
        if self.failover { "failover" } else { "switchover" }
    }
}
