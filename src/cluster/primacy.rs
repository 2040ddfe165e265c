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

/// The right to be primary, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Primacy {
    /// Nobody may write. The last holder and its epoch stay known until somebody else holds it.
    Vacant {
        /// Who held it last, and under which epoch.
        last: Option<(MemberName, Epoch)>,
    },
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
            Self::Vacant { .. } => None,
        }
    }

    /// The current or the last holder and its epoch.
    pub fn holder_or_last(&self) -> Option<(&MemberName, Epoch)> {
        match self {
            Self::Held { member, epoch, .. } => Some((member, *epoch)),
            Self::Vacant { last } => last.as_ref().map(|(name, epoch)| (name, *epoch)),
        }
    }
}
