//! The messages of the peer port: the hello and its proofs, then requests and their answers.

use serde::{Deserialize, Serialize};

use crate::wire::envelope::Sealed;
use crate::wire::stored::{EntryBytes, LogIdBytes, SnapshotHead, VoteBytes};

/// Protocols this program speaks; a rolling upgrade raises the upper end first. 2 has [`Lane::Leisure`] and, on that lane
/// only, [`Request::Tell`].
pub(crate) const PROTOCOL: (u16, u16) = (1, 2);

/// What a connection is for; each has its own, so that none waits behind another. Append, never insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Lane {
    /// Empty appends.
    Heartbeat,
    /// Entries, votes and the transfer of leadership.
    Append,
    /// Pieces of a snapshot.
    Snapshot,
    /// Everything beside the log.
    Message,
    /// What is said beside the log at every interval: it may lie until the reader is awake anyway.
    Leisure,
}

impl Lane {
    /// The first protocol that has it.
    pub(crate) fn since(self) -> u16 {
        match self {
            Lane::Heartbeat | Lane::Append | Lane::Snapshot | Lane::Message => 1,
            Lane::Leisure => 2,
        }
    }

    /// Largest frame either side sends after the handshake.
    pub(crate) fn frame_limit(self) -> usize {
        match self {
            Lane::Heartbeat => 64 << 10,
            Lane::Append | Lane::Message | Lane::Leisure => 16 << 20,
            Lane::Snapshot => 64 << 20,
        }
    }
}

/// The first frame: who calls, whom, what for. Nothing in it is believed before the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: (u16, u16),
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) addr: String,
    /// 0 while the node has none.
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    pub(crate) generation: u64,
    /// Which group of that name it belongs to; 0 while it belongs to none. See `recover`.
    pub(crate) foundation: u64,
    /// The id the caller wants to reach; 0 for whoever lives at that address.
    pub(crate) to: u64,
    pub(crate) lane: Lane,
    pub(crate) nonce: [u8; 32],
}

/// The called side's half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u16,
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) id: u64,
    /// Which group of that name it belongs to; 0 while it belongs to none.
    pub(crate) foundation: u64,
    pub(crate) nonce: [u8; 32],
}

/// Proof that the caller knows the shared secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) mac: [u8; 32],
}

/// The called side's proof, and whether it will serve this caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) mac: [u8; 32],
    pub(crate) accepted: Acceptance,
}

/// Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Acceptance {
    Yes,
    /// The id asked for does not live here (any more).
    OtherId,
    /// The caller's address belongs to a newer id.
    Replaced,
    /// This node has no part in Raft yet.
    NotReady,
    /// The caller belongs to a group of that name that was given up, or this node does.
    Foreign,
}

/// An append; without entries it is a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendBytes {
    pub(crate) vote: VoteBytes,
    pub(crate) previous: Option<LogIdBytes>,
    pub(crate) entries: Vec<EntryBytes>,
    pub(crate) commit: Option<LogIdBytes>,
}

/// A request for a vote, or for the promise of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BallotBytes {
    pub(crate) vote: VoteBytes,
    pub(crate) last: Option<LogIdBytes>,
    pub(crate) transfer: bool,
}

/// One piece of a snapshot; pieces of one snapshot follow each other on one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PieceBytes {
    pub(crate) vote: VoteBytes,
    pub(crate) head: SnapshotHead,
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What a peer asks. Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendBytes),
    Vote(BallotBytes),
    PreVote(BallotBytes),
    Transfer {
        from: VoteBytes,
        to: u64,
        last: Option<LogIdBytes>,
    },
    Piece(PieceBytes),
    Standing {
        founders: Vec<String>,
        claim: u64,
    },
    Join {
        addr: String,
        incarnation: u64,
    },
    Propose(Vec<u8>),
    Message(Vec<u8>),
    /// From a member without a port: answered when something later than `applied` is agreed, or after a moment.
    Watch {
        applied: u64,
        leader: u64,
    },
    /// A message that nobody answers.
    Tell(Vec<u8>),
}

/// What a member without a port is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchBytes {
    pub(crate) foundation: u64,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    /// Its id; 0 when nobody leads.
    pub(crate) leader: u64,
    /// (id, member name, address)
    pub(crate) voters: Vec<(u64, String, String)>,
    pub(crate) learners: Vec<(u64, String, String)>,
    /// The machine's whole state, when it is later than what was known.
    pub(crate) state: Option<Vec<u8>>,
}

/// How an append went. Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Success,
    Partial(Option<LogIdBytes>),
    Conflict,
    HigherVote(VoteBytes),
}

/// How far a node is with forming a group. Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Nothing is stored here.
    Empty { founders: Vec<String>, claim: u64 },
    /// It agreed to a founding set and has seen no election yet.
    Formed {
        founders: Vec<String>,
        seen: Vec<(String, u64)>,
    },
    /// It has taken part in a group; founders and seen are empty where it joined one.
    Member {
        leader: Option<String>,
        founders: Vec<String>,
        seen: Vec<(String, u64)>,
    },
    /// Nothing is stored here, but something beside the store says that a group existed: it will only join.
    Joiner,
}

/// Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// The learner is committed; its generation.
    Admitted { generation: u64, foundation: u64 },
    /// Ask there.
    Elsewhere { leader: Option<String> },
    /// Not now.
    Later { why: String },
}

/// Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    Applied(Vec<u8>),
    /// Certainly not committed.
    NotLeading,
    /// Perhaps committed.
    Unknown(String),
}

/// What a peer answers. Append variants, never insert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendAnswer),
    Vote {
        vote: VoteBytes,
        granted: bool,
        last: Option<LogIdBytes>,
    },
    Transfer {
        accepted: bool,
    },
    Piece {
        vote: VoteBytes,
    },
    Standing(Standing),
    Join(JoinAnswer),
    Propose(ProposeAnswer),
    Message(Vec<u8>),
    /// The request cannot be served; why.
    Refused(String),
    /// The caller was taken out of the group, for good unless it is let in again; what to do.
    Removed(String),
    Watch(WatchBytes),
}

impl Sealed for Hello {
    const KIND: u8 = 16;
}
impl Sealed for Welcome {
    const KIND: u8 = 17;
}
impl Sealed for Proof {
    const KIND: u8 = 18;
}
impl Sealed for Verdict {
    const KIND: u8 = 19;
}
impl Sealed for Request {
    const KIND: u8 = 20;
}
impl Sealed for Response {
    const KIND: u8 = 21;
}
