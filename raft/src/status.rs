//! What a node knows of its group, for a `watch` channel that changes only when something happened.

use std::collections::BTreeSet;

use crate::machine::Peer;

/// A snapshot of the group as this node sees it. Equal values wake nobody; a heartbeat changes nothing here
/// but `quorum_ack_age_ms`, which is refreshed in place without waking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node's Raft id; 0 until it is known.
    pub id: u64,
    /// This node is part of a group with a committed membership.
    pub joined: bool,
    /// This reign (the same value that `Machine::apply` gets for its entries), only while this node leads, its own first
    /// entry of this vote is applied and the last acknowledgement of a quorum is younger than `election_max`. A new
    /// election gives a new, higher number.
    pub lead: Option<Lead>,
    /// The leader this node knows of.
    pub leader: Option<Peer>,
    /// Voters of the newest membership this node knows of.
    pub voters: Vec<Peer>,
    /// A change of the voters is half done (Raft's joint consensus): a majority of the old ones and one of the new ones
    /// have to agree to anything.
    pub changing: bool,
    /// Those of `voters` that are in the new set of such a change alone: until it is done nobody may rely on their votes.
    /// A member without a port does not hear of it.
    pub coming: BTreeSet<u64>,
    /// Members without a vote that receive the log.
    pub learners: Vec<Peer>,
    /// Raft's term.
    pub term: u64,
    /// Index of the newest entry of this node's log.
    pub last_log: u64,
    /// Index of the newest applied entry.
    pub applied: u64,
    /// Why this node stopped taking part for good.
    pub fatal: Option<String>,
    /// Why the group has no place for this node, by the group's own word: it was taken out and may be let in again, or
    /// belongs to a group that was given up.
    pub expelled: Option<String>,
    /// Leader: age of the last acknowledgement of a quorum when this value was made.
    pub quorum_ack_age_ms: Option<u64>,
    /// Leader: which other voters hold (nearly) the whole log.
    pub peers_level: Vec<(u64, bool)>,
}

/// One reign of one leader: Raft's term and the leader's id (openraft allows several leaders in a term).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// The term.
    pub term: u64,
    /// The leader's id.
    pub node: u64,
}
