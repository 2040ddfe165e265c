//! One consistent picture of what this node knows, for the doors (REST, command line): they read it, nothing else.

use super::ids::{Epoch, MemberName, Moment};
use super::report::{Report, Seen, Standing};
use super::settings::Settings;
use super::state::State;
use super::vitals::Vitals;
use super::wal::Lsn;
use std::sync::Arc;

/// A connection that receives WAL from the local PostgreSQL (`pg_stat_replication`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSender {
    /// Role name.
    pub usename: String,
    /// The standby's `application_name`.
    pub application_name: String,
    /// Address, absent over a unix socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, ...
    pub state: String,
    /// `async`, `sync`, `quorum`, ...
    pub sync_state: String,
    /// Priority as a synchronous standby.
    pub sync_priority: i32,
    /// What it has on disk.
    pub flushed: Option<Lsn>,
}

/// This node's lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseFacts {
    /// The epoch the newest grant was for.
    pub epoch: Epoch,
    /// When it ends on this node's clock; the past when there is none.
    pub until: Moment,
}

/// The Raft group as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftFacts {
    /// This node's Raft id.
    pub id: u64,
    /// The leader's member name, when there is one.
    pub leader: Option<MemberName>,
    /// This node leads, confirmed by a recent quorum acknowledgement.
    pub leading: bool,
    /// Current term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_log: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Peer addresses of the voters, without those that become voters by a change that is half done.
    pub voters: Vec<String>,
    /// Their Raft ids.
    pub voter_ids: Vec<u64>,
    /// Raft ids of those that receive the log without a vote that one may rely on.
    pub learner_ids: Vec<u64>,
}

/// What this node knows.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This node.
    pub me: MemberName,
    /// The cluster's name.
    pub scope: String,
    /// The replicated state as applied here.
    pub state: Arc<State>,
    /// Its dynamic configuration, checked.
    pub settings: Arc<Settings>,
    /// This node's newest report.
    pub report: Arc<Report>,
    /// Everybody's newest report as far as this node has heard, its own included.
    pub members: Arc<Vec<Seen>>,
    /// When `members` was made, for adding to its ages.
    pub members_at: Moment,
    /// This node's lease.
    pub lease: LeaseFacts,
    /// The lease of whoever is primary, as far as this node knows it.
    pub reign: LeaseFacts,
    /// Until when this node may carry the proxies' address; the past if it may not.
    pub bears_until: Moment,
    /// Clients may be sent here to write: lease, writable and nothing in the way.
    pub gate_open: bool,
    /// The Raft group.
    pub raft: RaftFacts,
    /// Who streams from the local PostgreSQL.
    pub walsenders: Vec<WalSender>,
    /// Standby: `latest_end_lsn` of the WAL receiver, the primary's position as last heard.
    pub latest_end: Option<Lsn>,
    /// What the leader last decided and why each member may not be promoted.
    pub standing: Option<Standing>,
    /// Wall time of the last answer from the leader, seconds since 1970.
    pub last_seen_s: u64,
    /// The same on this node's clock.
    pub last_seen: Moment,
    /// When the node loop last ran.
    pub loop_at: Moment,
    /// Its guard, and the gap it ended.
    pub vitals: Vitals,
}

impl Facts {
    /// Whether this node holds an unexpired lease at `now`.
    pub fn has_lease(&self, now: Moment) -> bool {
        now < self.lease.until
            && self
                .state
                .primacy
                .held()
                .is_some_and(|(name, epoch)| *name == self.me && epoch == self.lease.epoch)
    }

    /// Whether the cluster was heard of within one ttl.
    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.last_seen) < self.settings.ttl_ms.max(1_000)
    }
}
