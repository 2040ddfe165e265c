//! Who is primary: the whole high-availability state machine is this one enum.

use super::ids::{Epoch, MemberName};
use super::wal::Timeline;
use serde::{Deserialize, Serialize};

/// How the holder of an epoch becomes a running primary in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// By creating the database cluster, or by bringing its existing one into an empty cluster.
    Bootstrap,
    /// By promoting its standby to the reserved timeline.
    Promotion,
    /// By starting the same data again on the same timeline.
    Restart,
}

/// The right to be primary, and who holds it. It is vacant only until the first bootstrap: afterwards a holder
/// keeps it until another one is agreed, because renewing the same primary is always safe and moving is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Primacy {
    /// Nobody has ever held it.
    #[default]
    Vacant,
    /// `member` may write while it has a lease for `epoch`.
    Held {
        /// The primary.
        member: MemberName,
        /// Its fencing token.
        epoch: Epoch,
        /// How it gets there.
        origin: Origin,
        /// The timeline it must be on: reserved by a promotion, kept by a restart, `None` before the first.
        timeline: Option<Timeline>,
    },
}

impl Primacy {
    /// The holder and its epoch.
    pub fn held(&self) -> Option<(&MemberName, Epoch)> {
        match self {
            Self::Held { member, epoch, .. } => Some((member, *epoch)),
            Self::Vacant => None,
        }
    }
}
