//! The stored forms of Raft's own values, and their way from and to openraft's.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use crate::types::{
    Command, Entry, LeaderId, LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote,
};
use crate::wire::envelope::Sealed;

/// Where an entry stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdBytes {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

impl From<&LogId> for LogIdBytes {
    fn from(id: &LogId) -> Self {
        LogIdBytes {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<LogIdBytes> for LogId {
    fn from(id: LogIdBytes) -> Self {
        LogId {
            leader_id: LeaderId {
                term: id.term,
                node_id: id.node,
            },
            index: id.index,
        }
    }
}

/// Which candidate a node voted for, and whether a quorum did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteBytes {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

impl From<&Vote> for VoteBytes {
    fn from(vote: &Vote) -> Self {
        VoteBytes {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteBytes> for Vote {
    fn from(vote: VoteBytes) -> Self {
        let leader_id = LeaderId {
            term: vote.term,
            node_id: vote.node,
        };
        Vote {
            leader_id,
            committed: vote.committed,
        }
    }
}

/// One member of a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberBytes {
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
}

/// Voters (two sets while a change is under way) and all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipBytes {
    pub(crate) voters: Vec<Vec<u64>>,
    pub(crate) members: Vec<MemberBytes>,
}

impl From<&Membership> for MembershipBytes {
    fn from(membership: &Membership) -> Self {
        let member = |(id, m): (&u64, &Member)| MemberBytes {
            id: *id,
            addr: m.addr.clone(),
            incarnation: m.incarnation,
            generation: m.generation,
        };
        MembershipBytes {
            voters: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().collect())
                .collect(),
            members: membership.nodes().map(member).collect(),
        }
    }
}

impl TryFrom<MembershipBytes> for Membership {
    type Error = std::io::Error;

    fn try_from(bytes: MembershipBytes) -> Result<Self, Self::Error> {
        let voters: Vec<BTreeSet<u64>> = bytes
            .voters
            .into_iter()
            .map(|set| set.into_iter().collect())
            .collect();
        let member = |m: MemberBytes| {
            (
                m.id,
                Member {
                    addr: m.addr,
                    incarnation: m.incarnation,
                    generation: m.generation,
                },
            )
        };
        let members: BTreeMap<u64, Member> = bytes.members.into_iter().map(member).collect();
        Membership::new(voters, members)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, format!("membership: {e}")))
    }
}

/// What an entry carries. Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PayloadBytes {
    Blank,
    Command(Vec<u8>),
    Membership(MembershipBytes),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryBytes {
    pub(crate) id: LogIdBytes,
    pub(crate) payload: PayloadBytes,
}

impl From<&Entry> for EntryBytes {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadBytes::Blank,
            EntryPayload::Normal(command) => PayloadBytes::Command(command.0.clone()),
            EntryPayload::Membership(membership) => PayloadBytes::Membership(membership.into()),
        };
        EntryBytes {
            id: (&entry.log_id).into(),
            payload,
        }
    }
}

impl EntryBytes {
    /// openraft's entry. (A `TryFrom` would collide with the standard library's, the entry being generic.)
    pub(crate) fn into_entry(self) -> std::io::Result<Entry> {
        let payload = match self.payload {
            PayloadBytes::Blank => EntryPayload::Blank,
            PayloadBytes::Command(command) => EntryPayload::Normal(Command(command)),
            PayloadBytes::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Entry {
            log_id: self.id.into(),
            payload,
        })
    }
}

/// What a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) last: Option<LogIdBytes>,
    pub(crate) membership_at: Option<LogIdBytes>,
    pub(crate) membership: MembershipBytes,
}

impl From<&SnapshotMeta> for SnapshotHead {
    fn from(meta: &SnapshotMeta) -> Self {
        SnapshotHead {
            last: meta.last_log_id.as_ref().map(Into::into),
            membership_at: meta.last_membership.log_id().as_ref().map(Into::into),
            membership: meta.last_membership.membership().into(),
        }
    }
}

impl TryFrom<SnapshotHead> for SnapshotMeta {
    type Error = std::io::Error;

    fn try_from(head: SnapshotHead) -> Result<Self, Self::Error> {
        let at = head.membership_at.map(Into::into);
        Ok(SnapshotMeta {
            last_log_id: head.last.map(Into::into),
            last_membership: StoredMembership::new(at, head.membership.try_into()?),
        })
    }
}

/// Who this node is; written before it first takes part under that id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeBytes {
    pub(crate) addr: String,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    /// Which group of its cluster's name it belongs to: 1 for the one that was formed, more after each recovery.
    pub(crate) foundation: u64,
    /// False: the incarnation is claimed but no leader has admitted it yet.
    pub(crate) admitted: bool,
}

/// The founding set this node agreed to; written before openraft first starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormationBytes {
    /// Addresses of all founders, sorted.
    pub(crate) founders: Vec<String>,
    /// (address, incarnation it would join with) of the partners seen when forming.
    pub(crate) seen: Vec<(String, u64)>,
}

impl Sealed for LogIdBytes {
    const KIND: u8 = 1;
}
impl Sealed for VoteBytes {
    const KIND: u8 = 2;
}
impl Sealed for EntryBytes {
    const KIND: u8 = 3;
}
impl Sealed for SnapshotHead {
    const KIND: u8 = 4;
}
impl Sealed for NodeBytes {
    const KIND: u8 = 5;
}
impl Sealed for FormationBytes {
    const KIND: u8 = 6;
}
