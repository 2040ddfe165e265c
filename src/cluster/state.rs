//! The replicated state: decisions only, no clock reading, no observation, nothing derivable.

use super::handover::Handover;
use super::history::{Event, Promotion};
use super::ids::{Epoch, MemberName, Revision};
use super::member::Member;
use super::pause::Pause;
use super::primacy::Primacy;
use super::sync::Sync;
use super::wal::Timeline;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What all members agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How many commands have changed it.
    pub revision: Revision,
    /// Database system identifier, once the database cluster exists.
    pub system_id: Option<u64>,
    /// Everybody who has joined.
    pub members: BTreeMap<MemberName, Member>,
    /// Who is primary.
    pub primacy: Primacy,
    /// The highest epoch ever given out.
    pub epoch: Epoch,
    /// The timeline the database cluster was created on.
    pub first: Option<Timeline>,
    /// The highest timeline ever reserved.
    pub reserved: Timeline,
    /// The timelines this cluster made, oldest first.
    pub timelines: Vec<Promotion>,
    /// Changes of primacy, oldest first, at most [`State::EVENTS`].
    pub events: Vec<Event>,
    /// Dynamic configuration as JSON text, as it was typed; empty before the bootstrap.
    pub config: String,
    /// Lease length in milliseconds.
    pub ttl_ms: u64,
    /// The longest lease that may still be running; waits use this one.
    pub wait_ttl_ms: u64,
    /// Who must have a commit, and whom an election must hear.
    pub sync: Sync,
    /// The switchover or failover that was asked for and is not over yet.
    pub handover: Option<Handover>,
    /// Maintenance mode.
    pub pause: Pause,
    /// Who was taken out, with the Raft id it had then; let in again only by an operator's word.
    pub removed: BTreeMap<MemberName, u64>,
    /// Raft ids of everybody who was ever taken out: none comes back, because nobody knows what it forgot. A node that
    /// was down meanwhile has to learn that it is somebody else now.
    pub retired: BTreeSet<u64>,
}

impl State {
    /// How many events are kept.
    pub const EVENTS: usize = 1000;

    /// The member whose name differs from this one in case only: `synchronous_standby_names` is compared without it.
    pub fn namesake(&self, name: &MemberName) -> Option<&MemberName> {
        let is_namesake = |other: &&MemberName| *other != name && other.0.eq_ignore_ascii_case(&name.0);
        self.members.keys().find(is_namesake)
    }

    /// Whether this member is to leave, or has left.
    pub fn is_removed(&self, name: &MemberName) -> bool {
        self.removed.contains_key(name)
    }

    /// Whether this Raft id was taken out and is no member's any more.
    pub fn is_retired(&self, raft_id: u64) -> bool {
        let is_its = |member: &Member| member.info.raft_id == raft_id;
        self.retired.contains(&raft_id) && !self.members.values().any(is_its)
    }

    /// The member of that name.
    pub fn member(&self, name: &MemberName) -> Option<&Member> {
        self.members.get(name)
    }

    /// The timeline that the cluster's history ends with: the last one a primary is known to have reached.
    pub fn timeline(&self) -> Option<Timeline> {
        self.timelines.last().map(|p| p.timeline).or(self.first)
    }

    /// Whether the holder of primacy is known to have reached the timeline it was given.
    pub fn is_confirmed(&self) -> bool {
        match self.primacy.origin() {
            None => false,
            Some((_, timeline)) => timeline.is_some() && timeline == self.timeline(),
        }
    }
}
