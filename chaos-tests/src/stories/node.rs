//! One machine: its clock, its disk, and the processes that a crash takes away.

use super::postgres::Pg;
use super::raft::Raft;
use matriarch::cluster::{
    Endpoint, Epoch, Fork, Incarnation, MemberInfo, MemberName, Moment, Promise, Report, Revision, Seen,
    Settings, State, Synced, Tags, Timeline, WalEnd, command,
};
use matriarch::decide::duty::{Data, Duty};
use matriarch::decide::spared::Spared;
use matriarch::lead::Desk;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Between the Raft ids that one machine has had.
pub const JOINED: u64 = 100;

/// The boot-time clock: an offset, and a rate that is a little wrong.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub since: u64,
    pub offset_us: u64,
    pub ppm: i64,
}

impl Clock {
    pub fn us(&self, world: u64) -> u64 {
        let passed = world.saturating_sub(self.since) as i64;
        self.offset_us + (passed + passed * self.ppm / 1_000_000) as u64
    }

    pub fn at(&self, world: u64) -> Moment {
        Moment(self.us(world) / 1_000)
    }

    /// When the clock will show this moment.
    pub fn when(&self, moment: Moment) -> u64 {
        let local = (moment.0 * 1_000).saturating_sub(self.offset_us) as i64;
        self.since + (local - local * self.ppm / 1_000_000).max(0) as u64
    }
}

/// What node.json holds: it survives everything.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub used: Epoch,
    pub promised: Epoch,
    pub incarnation: Option<Incarnation>,
    pub reached: Option<Timeline>,
    /// A copy or rewind is half done.
    pub doing: bool,
}

/// What the daemon is busy with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    Inspect,
    ReadEnd,
    Restart(Epoch),
    Promote(Epoch, Timeline),
    Standby(Option<(usize, bool)>),
    Configure(usize, bool),
    Chores,
    Fence,
    Stop,
    Clone(usize),
    Rewind(usize),
    Promise(Epoch),
}

/// The lease as its holder sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tenancy {
    pub epoch: Epoch,
    pub until: Moment,
    pub armed: Option<Epoch>,
    /// The pause is over, and the endless deadline is not replaced yet.
    pub letting_go: bool,
}

/// What the node knows of its data directory.
#[derive(Clone, Debug)]
pub struct Holdings {
    pub data: Data,
    pub timeline: Option<Timeline>,
    pub fork: Option<Fork>,
    pub end_at: Moment,
    pub end: Option<WalEnd>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            data: Data::Unknown,
            timeline: None,
            fork: None,
            end_at: Moment(0),
            end: None,
        }
    }
}

impl Holdings {
    pub fn set_end(&mut self, end: Option<WalEnd>, now: Moment) {
        self.end = end;
        self.end_at = now;
        if let Some(end) = end {
            self.timeline = Some(end.timeline);
        }
        if let Data::Present { end: known, .. } = &mut self.data {
            *known = end;
        }
    }
}

/// What the last probe saw.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    pub pm: u64,
    pub in_recovery: bool,
    pub timeline: Option<Timeline>,
    pub location: Option<matriarch::cluster::Lsn>,
    pub received: Option<matriarch::cluster::Lsn>,
    pub replayed: Option<matriarch::cluster::Lsn>,
    pub streaming: bool,
    pub senders: Vec<matriarch::cluster::Sender>,
}

/// The newest answer of a leader.
#[derive(Clone, Debug, Default)]
pub struct Word {
    pub at: Moment,
    pub revision: Revision,
    pub digest: Rc<Vec<Seen>>,
}

/// The task that reports to one voter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    pub asked: Option<u64>,
    pub serial: u64,
    pub urgent: bool,
    /// When its next event is due.
    pub pending: u64,
}

/// A report that asks for a lease and waits for a round of the quorum.
#[derive(Debug)]
pub struct Asking {
    pub round: u64,
    pub applied: usize,
    pub until: u64,
    pub from: usize,
    pub sent_at: Moment,
    pub serial: u64,
    pub epoch: Epoch,
}

/// The primary's work on its synchronous names.
#[derive(Clone, Debug)]
pub struct SyncWork {
    pub id: u64,
    pub epoch: Epoch,
    pub serial: u64,
    /// The barrier's place in the log, once it was written.
    pub barrier: Option<usize>,
}

/// The leader's proposal under way.
#[derive(Clone, Copy, Debug)]
pub struct Proposing {
    /// Its place in the log and its term, once it is there.
    pub place: Option<(usize, u64)>,
    /// The epoch it was decided in.
    pub epoch: Epoch,
    /// Until when it is awaited.
    pub until: u64,
}

/// Everything that dies with the daemon.
pub struct Daemon {
    pub run: u64,
    pub desk: Desk,
    pub caught_up: bool,
    pub running: Option<Epoch>,
    pub risen: Option<Epoch>,
    pub promise: Option<Promise>,
    pub synced: Option<Synced>,
    pub ended: Option<(Epoch, String)>,
    pub checkpointed: Option<Epoch>,
    pub streamed_in: Option<(u64, Epoch)>,
    pub timeline_seen: Option<(u64, Timeline)>,
    pub adrift_since: Option<Moment>,
    pub configured: Option<(usize, bool)>,
    pub rewound: Option<WalEnd>,
    pub unconfirmed_since: Option<Moment>,
    pub ending_since: Option<Moment>,
    pub retry_at: BTreeMap<&'static str, Moment>,
    pub holdings: Holdings,
    pub tenancy: Tenancy,
    /// In a pause: an operator asked for what ends with a standby that runs.
    pub finishing: bool,
    pub spared: Spared,
    pub word: Word,
    pub probe: Option<Probe>,
    pub poked: bool,
    pub job: Option<(u64, Purpose)>,
    pub sync_work: Option<SyncWork>,
    /// The epoch in which a barrier of this primary was acknowledged.
    pub barrier_in: Option<Epoch>,
    pub report: Report,
    pub lines: Vec<Line>,
    pub asking: Vec<Asking>,
    pub loop_at: Moment,
    pub pass_due: bool,
    pub lead_due: bool,
    pub proposing: Option<Proposing>,
    pub poked_others_at: Moment,
    pub handed_over: Moment,
    pub stuck_since: Option<Moment>,
    /// The rule that stood when it looked last, for the telling.
    pub stood: &'static str,
    /// What it owed when it looked last, for the telling.
    pub owed: Option<Duty>,
    /// How many others it has handed the lead to because it was stuck.
    pub turn: usize,
}

/// The guard: it outlives the daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard {
    pub run: u64,
    pub armed: Option<(Epoch, Moment)>,
    pub fencing: Option<Epoch>,
    pub fenced: Option<Epoch>,
    pub waking: bool,
}

/// One machine.
pub struct Node {
    pub name: MemberName,
    pub me: usize,
    pub witness: bool,
    pub up: bool,
    pub clock: Clock,
    pub paused_until: u64,
    pub daemon_paused_until: u64,
    /// Its file says that it is never to be promoted.
    pub nofailover: bool,
    /// How often it joined; it has another Raft id each time.
    pub joined: u64,
    pub ledger: Ledger,
    pub raft: Raft,
    pub state: Rc<State>,
    pub settings: Rc<Settings>,
    pub daemon: Option<Box<Daemon>>,
    pub guard: Option<Guard>,
    pub pg: Pg,
    /// The gate of this node is open, in this epoch.
    pub gate: Option<Epoch>,
    pub slow_replay: bool,
    pub slow_promotion: bool,
}

impl Node {
    pub fn new(me: usize, voters: usize, witness: bool, clock: Clock) -> Self {
        let name = MemberName(["a", "b", "c", "d", "e"][me].to_owned());
        let incarnation = (!witness).then_some(Incarnation(me as u64 + 1));
        let mut pg = Pg::new();
        pg.present = !witness;
        Self {
            name,
            me,
            witness,
            up: true,
            clock,
            paused_until: 0,
            daemon_paused_until: 0,
            nofailover: false,
            joined: 0,
            ledger: Ledger {
                used: Epoch(1),
                incarnation,
                ..Ledger::default()
            },
            raft: Raft::new(me, voters),
            state: Rc::new(State::default()),
            settings: Rc::new(Settings::default()),
            daemon: None,
            guard: None,
            pg,
            gate: None,
            slow_replay: false,
            slow_promotion: false,
        }
    }

    /// Whoever was taken out is answered by nobody, under whatever id it had then.
    pub fn has_no_place_for(&self, report: &Report) -> bool {
        let state = &self.state;
        let is_out = state.is_removed(report.member()) && state.member(report.member()).is_none();
        is_out || state.is_retired(report.info.raft_id)
    }

    pub fn info(&self) -> MemberInfo {
        MemberInfo {
            name: self.name.clone(),
            raft_id: self.joined * JOINED + self.me as u64 + 1,
            raft_addr: String::new(),
            api_url: String::new(),
            postgres: (!self.witness).then(|| Endpoint {
                host: String::new(),
                port: 5432,
            }),
            tags: Tags {
                nofailover: self.nofailover,
                ..Tags::default()
            },
            incarnation: self.ledger.incarnation,
            level: command::LEVEL,
            pooler: None,
        }
    }
}

impl Daemon {
    pub fn new(run: u64, voters: usize, info: MemberInfo, now: Moment) -> Self {
        Self {
            run,
            desk: Desk::default(),
            caught_up: false,
            running: None,
            risen: None,
            promise: None,
            synced: None,
            ended: None,
            checkpointed: None,
            streamed_in: None,
            timeline_seen: None,
            adrift_since: None,
            configured: None,
            rewound: None,
            unconfirmed_since: None,
            ending_since: None,
            retry_at: BTreeMap::new(),
            holdings: Holdings::default(),
            tenancy: Tenancy::default(),
            finishing: false,
            spared: Spared::default(),
            word: Word::default(),
            probe: None,
            poked: false,
            job: None,
            sync_work: None,
            barrier_in: None,
            report: Report::first(info),
            lines: vec![Line::default(); voters],
            asking: Vec::new(),
            loop_at: now,
            pass_due: false,
            lead_due: false,
            proposing: None,
            poked_others_at: Moment(0),
            handed_over: now,
            stuck_since: None,
            stood: "",
            owed: None,
            turn: 0,
        }
    }

    pub fn may_try(&self, what: &str, now: Moment) -> bool {
        self.retry_at.get(what).is_none_or(|at| now >= *at)
    }
}
