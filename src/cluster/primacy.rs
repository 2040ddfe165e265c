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
/// keeps it until another one is agreed, because renewing the same primary is always safe and moving is not. Where
/// commits wait for standbys, the way from one to the next leads through `Fencing`, unless the holder said itself that
/// its epoch is over.
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
    /// Nobody may write: leases of the last holder are not renewed, and whoever holds data promises not to stream from
    /// an epoch below this one, then says where its log ends (`decide/fence.rs`).
    Fencing {
        /// The last holder.
        member: MemberName,
        /// The epoch it held.
        last: Epoch,
        /// The epoch that is promised.
        epoch: Epoch,
        /// How the last holder was to get there.
        origin: Origin,
        /// The timeline it was given.
        timeline: Option<Timeline>,
    },
}

impl Primacy {
    /// The holder and its epoch.
    pub fn held(&self) -> Option<(&MemberName, Epoch)> {
        match self {
            Self::Held { member, epoch, .. } => Some((member, *epoch)),
            Self::Vacant | Self::Fencing { .. } => None,
        }
    }

    /// Who holds it, or held it last, and its epoch.
    pub fn last(&self) -> Option<(&MemberName, Epoch)> {
        match self {
            Self::Held { member, epoch, .. } => Some((member, *epoch)),
            Self::Fencing { member, last, .. } => Some((member, *last)),
            Self::Vacant => None,
        }
    }

    /// How the last holder was to become primary, and on which timeline.
    pub fn origin(&self) -> Option<(Origin, Option<Timeline>)> {
        match self {
            Self::Held { origin, timeline, .. } | Self::Fencing { origin, timeline, .. } => {
                Some((*origin, *timeline))
            }
            Self::Vacant => None,
        }
    }

    /// The epoch that is being promised, while nobody may write.
    pub fn fencing(&self) -> Option<Epoch> {
        match self {
            Self::Fencing { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }
}
