//! What a node sees of itself and its PostgreSQL: sent to every voter beside the log, never replicated.

use super::ids::{Epoch, MemberName, Moment, Revision};
use super::member::{Endpoint, MemberInfo};
use super::order::{Done, Order};
use super::wal::{Lsn, Timeline, WalEnd};
use serde::{Deserialize, Serialize};

/// State of the local PostgreSQL, in Patroni's words; the order is the number in `patroni_postgres_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostgresState {
    /// `initializing new cluster`
    Initdb,
    /// `initdb failed`
    InitdbFailed,
    /// `running custom bootstrap script`
    CustomBootstrap,
    /// `custom bootstrap failed`
    CustomBootstrapFailed,
    /// `creating replica`
    CreatingReplica,
    /// `running`
    Running,
    /// `starting`
    Starting,
    /// `starting after custom bootstrap`
    BootstrapStarting,
    /// `start failed`
    StartFailed,
    /// `restarting`
    Restarting,
    /// `restart failed`
    RestartFailed,
    /// `stopping`
    Stopping,
    /// `stopped`
    #[default]
    Stopped,
    /// `stop failed`
    StopFailed,
    /// `crashed`
    Crashed,
    /// `unknown`: running, but it does not answer
    Unknown,
}

impl PostgresState {
    /// Patroni's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Initdb => "initializing new cluster",
            Self::InitdbFailed => "initdb failed",
            Self::CustomBootstrap => "running custom bootstrap script",
            Self::CustomBootstrapFailed => "custom bootstrap failed",
            Self::CreatingReplica => "creating replica",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::BootstrapStarting => "starting after custom bootstrap",
            Self::StartFailed => "start failed",
            Self::Restarting => "restarting",
            Self::RestartFailed => "restart failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::StopFailed => "stop failed",
            Self::Crashed => "crashed",
            Self::Unknown => "unknown",
        }
    }
}

/// Role of the local PostgreSQL as its own SQL says, else as last known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// No data yet.
    #[default]
    Uninitialized,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Replica,
    /// Was primary and was stopped because it may no longer be.
    Demoted,
}

impl Role {
    /// Patroni's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Demoted => "demoted",
        }
    }
}

/// How a timeline began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline.
    pub timeline: Timeline,
    /// The timeline it forked from.
    pub parent: Timeline,
    /// Where.
    pub switch: Lsn,
}

/// A stream that leaves the local PostgreSQL (`pg_stat_replication`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The standby's `application_name`.
    pub name: String,
    /// It has caught up with what was there when it connected.
    pub streaming: bool,
    /// What it has on disk.
    pub flushed: Option<Lsn>,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
}

/// A copy's promise, durable before it is said: nothing of it streams from, or writes in, an epoch below `epoch`, and
/// nothing ever will; and with that settled, its log ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The epoch that was promised.
    pub epoch: Epoch,
    /// End of the last whole record on disk.
    pub end: WalEnd,
}

/// The primary's proof that its newest quorum has everything; see `sync.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Which change of the synchronous set.
    pub serial: u64,
}

/// What is known of the local PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresReport {
    /// Process state.
    pub state: PostgresState,
    /// Role.
    pub role: Role,
    /// `server_version_num`, zero while unknown.
    pub server_version: u32,
    /// `pg_postmaster_start_time()` as `2026-11-21 02:41:13.370277+00:00`.
    pub postmaster_start_time: Option<String>,
    /// Database system identifier of the data directory.
    pub system_id: Option<u64>,
    /// Timeline being written or followed.
    pub timeline: Option<Timeline>,
    /// Primary: current WAL position.
    pub location: Option<Lsn>,
    /// Standby: end of WAL received and flushed.
    pub received: Option<Lsn>,
    /// Standby: end of WAL replayed.
    pub replayed: Option<Lsn>,
    /// Standby: commit time of the last replayed transaction, as text.
    pub replayed_timestamp: Option<String>,
    /// Standby: replay is paused.
    pub replay_paused: bool,
    /// Standby: `streaming`, or `in archive recovery`.
    pub replication_state: Option<String>,
    /// Primary: a checkpoint has completed on this timeline, so pg_rewind sees it.
    pub checkpointed: bool,
    /// How the local timeline began, once it is not the first.
    pub fork: Option<Fork>,
    /// Standby: the epoch whose primary this PostgreSQL has streamed from since it was last started.
    pub streamed_in: Option<Epoch>,
    /// Settings that wait for a restart: name, old value, new value.
    pub pending_restart: Vec<(String, String, String)>,
    /// Primary: who streams from it.
    pub senders: Vec<Sender>,
    /// Primary: where the oldest log it still has begins.
    pub oldest: Option<Lsn>,
    /// How long before it was reported PostgreSQL said so, milliseconds: it grows while the server does not answer.
    pub said_ms: u64,
}

impl PostgresReport {
    fn differs(&self, next: &Self) -> bool {
        self.state != next.state
            || self.role != next.role
            || self.timeline != next.timeline
            || self.fork != next.fork
            || self.checkpointed != next.checkpointed
            || self.streamed_in != next.streamed_in
            || self.replication_state != next.replication_state
    }
}

/// What a node says of an epoch it holds or held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tenure {
    /// Nothing to say of any epoch.
    #[default]
    None,
    /// It holds the epoch, has not ended it, and asks for a lease.
    Holding {
        /// The epoch.
        epoch: Epoch,
    },
    /// Final: no process of that epoch's PostgreSQL lives, and none will ever be started under it.
    Ended {
        /// The epoch.
        epoch: Epoch,
        /// End of the last whole record on disk, when it could be read.
        end: Option<WalEnd>,
        /// Why it ended, for people.
        why: String,
    },
}

/// What a member of an empty cluster brings to the choice of its first primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// `bootstrap.dcs` of its file as JSON text, with defaults not filled in.
    pub config: String,
    /// The `ttl` in it, milliseconds.
    pub ttl_ms: u64,
    /// System identifier of a data directory that is already there.
    pub existing: Option<u64>,
    /// Where the log of that data ends.
    pub end: Option<WalEnd>,
    /// That data is a standby's: it follows a primary that has to be there first.
    pub standby: bool,
}

/// One node's view of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports, and what the cluster should know of it.
    pub info: MemberInfo,
    /// Random number of this run of the daemon.
    pub run: u64,
    /// The sender's own clock when it was sent; leases count from here.
    pub sent_at: Moment,
    /// The revision it has applied.
    pub revision: Revision,
    /// What it says of its epoch.
    pub tenure: Tenure,
    /// Its PostgreSQL; `None` for a witness.
    pub postgres: Option<PostgresReport>,
    /// Why this node may not be promoted at this moment, as far as it knows itself.
    pub unpromotable: Option<String>,
    /// What it is busy with (`initdb`, `basebackup 42%`), for people.
    pub activity: Option<String>,
    /// Only while the cluster has no data.
    pub offer: Option<Offer>,
    /// What it promised when the last epoch was fenced.
    pub promise: Option<Promise>,
    /// Primary: the newest change of the synchronous set that is proved.
    pub synced: Option<Synced>,
    /// While the primary's daemon is silent: whether its PostgreSQL still takes connections from here.
    pub primary_answers: Option<bool>,
    /// While a pause ends: the revision of the resume, once no primary of this node is without a deadline.
    pub rearmed: Option<Revision>,
    /// The epoch that ends here only because an operator asked for a restart of PostgreSQL.
    pub again: Option<Epoch>,
    /// A restart that waits for its time, as it was asked for: JSON text.
    pub scheduled_restart: Option<String>,
    /// Clients may be sent here to write, in the epoch of its tenure, as far as its lease lasts.
    pub serves: bool,
    /// Where its proxy listens for writers, as other nodes reach it.
    pub proxy: Option<Endpoint>,
    /// Whether it carries, or could carry, the address of the proxies.
    pub bearing: Bearing,
}

impl Report {
    /// What is sent before anything is known but who this is.
    pub fn first(info: MemberInfo) -> Self {
        Self {
            info,
            run: 0,
            sent_at: Moment(0),
            revision: Revision(0),
            tenure: Tenure::None,
            postgres: None,
            unpromotable: None,
            activity: None,
            offer: None,
            promise: None,
            synced: None,
            primary_answers: None,
            rearmed: None,
            again: None,
            scheduled_restart: None,
            serves: false,
            proxy: None,
            bearing: Bearing::No,
        }
    }

    /// Whether others should hear of `next` at once. Positions, ages and what is only for people wait for their turn.
    pub fn differs(&self, next: &Self) -> bool {
        let words = |report: &Self| {
            (
                report.promise,
                report.synced,
                report.primary_answers,
                report.rearmed,
                report.again,
                report.serves,
            )
        };
        self.info != next.info
            || self.tenure != next.tenure
            || words(self) != words(next)
            || self.unpromotable != next.unpromotable
            || self.offer != next.offer
            || self.scheduled_restart != next.scheduled_restart
            || match (&self.postgres, &next.postgres) {
                (Some(old), Some(new)) => old.differs(new),
                (old, new) => old.is_some() != new.is_some(),
            }
    }

    /// The epoch in which clients may be sent here to write.
    pub fn gate(&self) -> Option<Epoch> {
        match self.tenure {
            Tenure::Holding { epoch } => Some(epoch).filter(|_| self.serves),
            _ => None,
        }
    }

    /// Who reports.
    pub fn member(&self) -> &MemberName {
        &self.info.name
    }
}

/// What a node has to do with the address that stands where a proxy lives (`vip.role: proxy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bearing {
    /// It does not carry it and cannot: no such address, or its proxy does not live.
    #[default]
    No,
    /// It could.
    Able,
    /// It does, or may still do.
    Bears,
}

/// A report and how old it was when the digest was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The report.
    pub report: Report,
    /// Milliseconds since the answering node received it.
    pub age_ms: u64,
}

/// Permission to accept writes under one epoch until `sent_at + ttl` on the asker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The epoch it is for.
    pub epoch: Epoch,
    /// Length in milliseconds, counted from the report's `sent_at`.
    pub ttl_ms: u64,
}

/// The leader's newest verdict, for `explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Name of the rule that fired last.
    pub rule: String,
    /// What it saw.
    pub reason: String,
    /// Each member and why it may not be promoted; no reason means it may.
    pub candidates: Vec<(MemberName, Option<String>)>,
}

/// The leader's answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The `sent_at` of the report that this answers.
    pub sent_at: Moment,
    /// The revision the leader has applied.
    pub revision: Revision,
    /// A lease, for the primary only.
    pub grant: Option<Grant>,
    /// Another live node carries the asker's name at this peer address.
    pub duplicate_of: Option<String>,
    /// The newest verdict.
    pub standing: Standing,
    /// All members' newest reports as the leader has them.
    pub digest: Vec<Seen>,
    /// Nobody but the primary of this epoch writes for so many milliseconds more, counted from `sent_at`.
    pub reign: Option<(Epoch, u64)>,
    /// The asker alone may carry the proxies' address for so many milliseconds, counted from `sent_at`.
    pub bears_ms: Option<u64>,
}

/// What travels between daemons beside the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// A report; answered by `PeerReply::Answer` where Raft leads, else by `PeerReply::NotLeader`.
    Report(Box<Report>),
    /// The leader wants a fresh report at once; answered by `PeerReply::Heard`.
    Poke,
    /// An operator's order, from the node that was asked; answered by `PeerReply::Done` where Raft leads, else by
    /// `PeerReply::NotLeader`, and nothing was done.
    Order(Box<Order>),
    /// The leader does not hear this member: how old is the newest report of it there? Answered by `PeerReply::HeardOf`.
    HeardOf(MemberName),
}

/// The reply to a [`PeerMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerReply {
    /// From the leader.
    Answer(Answer),
    /// The report was stored; this node does not lead.
    NotLeader,
    /// The poke was heard.
    Heard,
    /// What became of an order.
    Done(Done),
    /// How old the newest report of that member is, milliseconds.
    HeardOf(Option<u64>),
}
