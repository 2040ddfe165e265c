//! One simulated machine: what survives a crash, what does not, and what it tells the others.

use super::server::{Life, Server, lsn};
use matriarch::cluster::{
    Endpoint, Epoch, Grant, Incarnation, MemberInfo, MemberName, Moment, PostgresReport, PostgresState,
    Promise, Report, Revision, Role, Seen, Sender, State, Synced, Tags, Tenure, Timeline, WalEnd, command,
};
use matriarch::decide::duty::{Data, Duty, Process};
use matriarch::lead::Desk;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It runs.
    Well,
    /// It is stopped and may go on.
    Frozen,
    /// It is gone.
    Dead,
}

/// What is on disk beside the data.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The highest epoch used.
    pub used: Epoch,
    /// Nothing older is streamed from.
    pub promised: Epoch,
    /// Which copy of the data this is.
    pub incarnation: Option<Incarnation>,
    /// The newest timeline reached with everybody's agreement.
    pub reached: Option<Timeline>,
    /// A copy or a rewind is unfinished.
    pub unfinished: bool,
}

/// A piece of work that the daemon has begun.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Read where the log ends.
    ReadEnd,
    /// Create the database cluster.
    Bootstrap(Epoch),
    /// Start as primary.
    Restart(Epoch),
    /// Promote to a timeline.
    Promote(Epoch, u32),
    /// Start as a standby, perhaps of somebody.
    Start(Option<(usize, bool)>),
    /// Stream from somebody else, or under another name.
    Point(Option<(usize, bool)>),
    /// Put other names in force.
    Rename(u64),
    /// End the stream and read where the log ends.
    Promise(Epoch),
    /// Stop at once.
    Fence,
    /// Copy from a node.
    Clone(usize),
    /// Rewind to a node's log.
    Rewind(usize),
}

/// How far the proof of a change of the synchronous set is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// What is proved.
    pub of: Synced,
    /// Records up to its own one, once that is written.
    pub mark: Option<usize>,
}

/// What the leader's newest answer said.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// When it arrived, on this node's clock.
    pub at: Moment,
    /// What the leader had applied.
    pub revision: Revision,
    /// Everybody's newest report.
    pub digest: Vec<Seen>,
}

/// What dies with the daemon.
pub struct Mind {
    /// This run of the daemon.
    pub run: u64,
    /// Applied.
    pub state: State,
    /// What was heard of the others.
    pub desk: Desk,
    /// The newest answer.
    pub word: Word,
    /// The group was heard since the start.
    pub caught_up: bool,
    /// The epoch that the running server is, or is about to be, a primary of.
    pub running: Option<Epoch>,
    /// That was verified.
    pub risen: Option<Epoch>,
    /// The lease.
    pub lease: (Epoch, Moment),
    /// The data as far as it was looked at.
    pub data: Data,
    /// The work under way and when it is done.
    pub work: Option<(Work, u64)>,
    /// The proof under way.
    pub proof: Option<Proof>,
    /// The newest proof.
    pub synced: Option<Synced>,
    /// Clients may come in this epoch.
    pub barrier: Option<Epoch>,
    /// The names that are in force are of this change.
    pub named: Option<u64>,
    /// The promise that can be reported.
    pub promise: Option<Promise>,
    /// The server's run and the epoch it streamed in.
    pub streamed_in: Option<(i32, Epoch)>,
    /// Since when the stream is missed.
    pub adrift_since: Option<Moment>,
    /// Since when a promotion is under way.
    pub unconfirmed_since: Option<Moment>,
    /// When the end was read.
    pub end_at: Moment,
    /// Not to be promoted until then.
    pub spared_until: Moment,
    /// What it owed last.
    pub duty: Duty,
    /// When the last report went out.
    pub reported_at: u64,
    /// What was said last, so that news goes out at once.
    pub said: Option<Report>,
    /// Whether a silent primary's server answers.
    pub primary_answers: Option<bool>,
}

impl Mind {
    /// A daemon that has just started.
    pub fn new(run: u64) -> Self {
        Self {
            run,
            state: State::default(),
            desk: Desk::default(),
            word: Word::default(),
            caught_up: false,
            running: None,
            risen: None,
            lease: (Epoch(0), Moment(0)),
            data: Data::Unknown,
            work: None,
            proof: None,
            synced: None,
            barrier: None,
            named: None,
            promise: None,
            streamed_in: None,
            adrift_since: None,
            unconfirmed_since: None,
            end_at: Moment(0),
            spared_until: Moment(0),
            duty: Duty::Rest(String::new()),
            reported_at: 0,
            said: None,
            primary_answers: None,
        }
    }

    /// Where the log ends, if that was read.
    pub fn end(&self) -> Option<WalEnd> {
        match self.data {
            Data::Present { end, .. } => end,
            _ => None,
        }
    }

    /// Forgets or notes where the log ends.
    pub fn set_end(&mut self, found: Option<WalEnd>, now: Moment) {
        self.end_at = now;
        if let Data::Present { end, .. } = &mut self.data {
            *end = found;
        }
    }
}

/// The machine.
pub struct Node {
    /// Its number.
    pub index: usize,
    /// The machine as a whole.
    pub machine: Health,
    /// The daemon.
    pub daemon: Health,
    /// The guard.
    pub guard: Health,
    /// Its clock: where it began, and thousandths of its rate.
    pub clock: (u64, u64),
    /// It takes its server for gone while a backend lives.
    pub blind: bool,
    /// On disk.
    pub ledger: Ledger,
    /// PostgreSQL.
    pub server: Server,
    /// The daemon's memory.
    pub mind: Mind,
    /// The guard's deadline.
    pub armed: Option<(Epoch, Moment)>,
    /// The guard's heartbeat, and since when it stands still, as the daemon sees it.
    pub guard_seen_at: Moment,
}

/// A name that scripts and logs show.
pub fn name(index: usize) -> MemberName {
    MemberName(format!("n{index}"))
}

/// The node of a name.
pub fn index(name: &MemberName) -> usize {
    name.as_str()
        .trim_start_matches('n')
        .parse()
        .unwrap_or(usize::MAX)
}

impl Node {
    /// Its own clock.
    pub fn now(&self, at: u64) -> Moment {
        Moment(self.clock.0 + at * self.clock.1 / 1_000)
    }

    /// Whether its daemon does anything.
    pub fn acts(&self) -> bool {
        self.machine == Health::Well && self.daemon == Health::Well
    }

    /// Whether its server does anything.
    pub fn serves(&self) -> bool {
        self.machine == Health::Well && self.server.life == Life::Up
    }

    /// What it says of itself.
    pub fn info(&self) -> MemberInfo {
        MemberInfo {
            name: name(self.index),
            raft_id: self.index as u64 + 1,
            raft_addr: format!("{}:2222", name(self.index)),
            api_url: String::new(),
            postgres: Some(Endpoint {
                host: name(self.index).0,
                port: 5432,
            }),
            tags: Tags::default(),
            incarnation: self.ledger.incarnation,
            level: command::LEVEL,
        }
    }

    /// The process as the daemon sees it.
    pub fn process(&self) -> Process {
        match self.server.life {
            Life::Down => Process::Down,
            Life::Orphans(_) if self.blind => Process::Down,
            Life::Orphans(_) => Process::Ending,
            Life::Up if self.server.primary.is_some() => Process::Up(Some(Role::Primary)),
            Life::Up => Process::Up(Some(Role::Replica)),
        }
    }

    /// What it says of its epoch; the same words as the product's.
    fn tenure(&self) -> Tenure {
        let mind = &self.mind;
        let Some((holder, epoch)) = mind.state.primacy.last() else {
            return Tenure::None;
        };
        if *holder != name(self.index) || !mind.caught_up {
            return match (mind.running, mind.caught_up) {
                (Some(epoch), false) => Tenure::Holding { epoch },
                _ => Tenure::None,
            };
        }
        if mind.running == Some(epoch) || self.ledger.used < epoch {
            return Tenure::Holding { epoch };
        }
        let why = "it does not run".to_owned();
        match self.process() {
            _ if mind.running.is_some() => Tenure::None,
            Process::Down if mind.end().is_some() || mind.data == Data::Absent => Tenure::Ended {
                epoch,
                end: mind.end(),
                why,
            },
            Process::Up(Some(Role::Replica)) => Tenure::Ended {
                epoch,
                end: None,
                why,
            },
            _ => Tenure::None,
        }
    }

    fn postgres(&self) -> PostgresReport {
        let server = &self.server;
        let mut report = PostgresReport {
            state: match (server.life, &self.mind.work) {
                (_, Some((Work::Clone(_), _))) => PostgresState::CreatingReplica,
                (_, Some((Work::Bootstrap(_), _))) => PostgresState::Initdb,
                (Life::Up, _) => PostgresState::Running,
                (Life::Orphans(_), _) => PostgresState::Stopping,
                _ => PostgresState::Stopped,
            },
            role: if server.is_writable() {
                Role::Primary
            } else {
                Role::Replica
            },
            ..PostgresReport::default()
        };
        let Some(copy) = &server.copy else { return report };
        report.system_id = Some(7);
        report.timeline = Some(Timeline(copy.reached()));
        report.fork = copy.fork();
        report.checkpointed = server.is_writable();
        if server.is_writable() {
            report.location = Some(lsn(copy.log.len()));
            report.senders = server
                .senders
                .iter()
                .map(|sender| Sender {
                    name: if sender.plain {
                        name(sender.to).0
                    } else {
                        format!("{} (new)", name(sender.to))
                    },
                    streaming: true,
                    flushed: Some(lsn(sender.flushed)),
                    sync_state: String::new(),
                })
                .collect();
        } else if server.life == Life::Up {
            let half = if copy.torn { 4 } else { 0 };
            report.received = Some(matriarch::cluster::Lsn(lsn(copy.log.len()).0 + half));
            report.replayed = Some(lsn(copy.replayed.min(copy.log.len())));
            report.replication_state = server.receiver.map(|_| "streaming".to_owned());
            let streamed = self.mind.streamed_in.filter(|(run, _)| *run == server.run);
            report.streamed_in = streamed.map(|(_, epoch)| epoch);
        }
        report
    }

    /// The report it would send now.
    pub fn report(&self, now: Moment, mode_offer: (&str, u64)) -> Report {
        let mind = &self.mind;
        let mut report = Report::first(self.info());
        report.run = mind.run;
        report.sent_at = now;
        report.revision = mind.state.revision;
        report.tenure = self.tenure();
        report.postgres = Some(self.postgres());
        report.promise = mind.promise;
        report.synced = mind.synced;
        report.primary_answers = mind.primary_answers;
        if now < mind.spared_until {
            report.unpromotable = Some("it could not become primary".to_owned());
        }
        if mind.state.system_id.is_none() && mind.caught_up && mind.data != Data::Unknown {
            report.offer = Some(matriarch::cluster::Offer {
                config: mode_offer.0.to_owned(),
                ttl_ms: mode_offer.1,
                existing: None,
                end: None,
            });
        }
        report
    }

    /// Takes in a lease as the product does: never shortened, and only while the guard takes it.
    pub fn accept(&mut self, grant: Grant, until: Moment) {
        let lease = &mut self.mind.lease;
        if grant.epoch < lease.0 || grant.epoch == lease.0 && until <= lease.1 {
            return;
        }
        if let Some((epoch, deadline)) = &mut self.armed
            && *epoch == grant.epoch
        {
            if self.guard == Health::Dead {
                return;
            }
            *deadline = until;
        }
        *lease = (grant.epoch, until);
    }

    /// A restarted daemon finds what its predecessor left with the guard.
    pub fn take_over(&mut self) {
        if let (Life::Up, Some((epoch, until))) = (self.server.life, self.armed) {
            self.mind.running = Some(epoch);
            self.mind.lease = (epoch, until);
        }
    }
}
