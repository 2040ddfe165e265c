//! The node loop itself: takes in what happened, judges the duty, starts at most one job towards it, publishes.

use super::bearer::Bearer;
use super::callbacks::Callbacks;
use super::data::Holdings;
use super::fitness::Fitness;
use super::gap::Gap;
use super::hands::{Hands, Wanted};
use super::job::{Job, finished};
use super::ledger::{Ledger, LedgerError};
use super::lines::Lines;
use super::lookout::Lookout;
use super::orders::Asked;
use super::probe::{self, Probed, Spares};
use super::reporter::Word;
use super::restart::Wishes;
use super::slots::SlotKeeper;
use super::tenancy::Tenancy;
use super::wal_gone::WalGone;
use super::words::Ending;
use crate::clock;
use crate::cluster::{
    Epoch, Facts, MemberName, Moment, Promise, ProxyFacts, Report, Settings, State, Synced, Timeline,
};
use crate::config::{Config, Renewal};
use crate::decide::duty::{Duty, Process};
use crate::decide::spared::Spared;
use crate::guard::GuardState;
use crate::lead::Desk;
use crate::vip::Hold;
use matriarch_raft::{Group, Metronome};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// A pass is made at least this often where something may become due (`pace`), so that a lease that runs out is noticed in
/// time.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How long a stopping daemon waits for the leader to hear that its epoch is over.
const FAREWELL_MS: u64 = 1_000;

/// Why the node loop ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The small file of facts cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// This node must not take part; the sentence says why and what would be right.
    #[error("{0}")]
    Misplaced(String),
    /// The Raft group stopped on this node.
    #[error("raft stopped on this node: {0}")]
    Raft(String),
}

/// What the loop is built from.
pub struct AgentParts {
    /// The node file.
    pub config: Arc<Config>,
    /// Reads it again.
    pub renewal: Arc<Renewal>,
    /// PostgreSQL's hands; `None` for a witness.
    pub hands: Option<Hands>,
    /// The small file of facts.
    pub ledger: Ledger,
    /// Random number of this run of the daemon.
    pub run: u64,
    /// The Raft group.
    pub group: Group,
    /// What this node has heard from the members itself.
    pub desk: Arc<Desk>,
    /// The lease.
    pub tenancy: Arc<Tenancy>,
    /// The agreed state.
    pub state: watch::Receiver<Arc<State>>,
    /// Its settings.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// The leader's answers.
    pub word: watch::Receiver<Word>,
    /// Raised when the leader wants a report at once.
    pub poke: watch::Receiver<u64>,
    /// Where the report goes.
    pub report: watch::Sender<Arc<Report>>,
    /// Raised when it must go out at once.
    pub urgent: watch::Sender<u64>,
    /// What operators ask of this node.
    pub orders: mpsc::Receiver<Asked>,
    /// What the proxy has seen, where there is one.
    pub proxy: watch::Receiver<Option<ProxyFacts>>,
    /// Whether the proxy lives and listens.
    pub proxy_lives: watch::Receiver<bool>,
    /// Whether the virtual address is here.
    pub hold: watch::Receiver<Hold>,
    /// The permission to carry the proxies' address.
    pub bearer: Arc<Bearer>,
    /// Where the doors read.
    pub facts: watch::Sender<Option<Arc<Facts>>>,
}

/// The node loop.
pub struct Agent {
    pub(super) parts: AgentParts,
    pub(super) me: MemberName,
    pub(super) guard: GuardState,
    pub(super) probed: Probed,
    pub(super) holdings: Holdings,
    pub(super) job: Option<Job>,
    /// The epoch that the running postmaster is, or is about to be, a primary of.
    pub(super) running: Option<Epoch>,
    /// The job that made it a primary has verified it.
    pub(super) risen: Option<Epoch>,
    /// What can be said of the promise in the ledger, since this run of the daemon kept it.
    pub(super) promise: Option<Promise>,
    /// The newest change of the synchronous set that is proved.
    pub(super) synced: Option<Synced>,
    /// Whether a primary whose daemon is silent still serves.
    pub(super) lookout: Lookout,
    /// How long nobody served before this node did.
    pub(super) gap: Gap,
    pub(super) primary_answers: Option<bool>,
    /// How the last postmaster ended, or would end now.
    pub(super) ending: Ending,
    /// The epoch that is over here, and why.
    pub(super) ended: Option<(Epoch, String)>,
    /// A checkpoint has completed since the promotion.
    pub(super) checkpointed: Option<Epoch>,
    /// The epoch whose primary the running standby has streamed from.
    pub(super) streamed_in: Option<(i32, Epoch)>,
    /// The newest timeline that this postmaster was seen on.
    pub(super) timeline_seen: Option<(i32, Timeline)>,
    /// Since when the standby is without its stream although its primary is well.
    pub(super) adrift_since: Option<Moment>,
    /// The dynamic configuration that was written down beside the data of this postmaster.
    pub(super) kept: Option<(i32, String)>,
    /// What this postmaster was last configured with.
    pub(super) configured: Option<Wanted>,
    /// The node file was read again: PostgreSQL's files are written, and read by it, although nothing changed.
    pub(super) reread: bool,
    /// The running server had no synchronous names before the present ones.
    pub(super) nameless: bool,
    /// The proof under way; beside the one job, because it may wait for standbys that the job serves.
    pub(super) proof: Option<Job>,
    /// The checkpoint before another member takes over, beside the one job: this node serves meanwhile.
    pub(super) farewell: Option<Job>,
    /// What this node stopped on an operator's order is to run as a standby, also in a pause.
    pub(super) finishing: bool,
    /// What operators have asked of this node.
    pub(super) wishes: Wishes,
    /// The epoch whose checkpoint is written, so that it can end.
    pub(super) prepared: Option<Epoch>,
    /// The epoch whose first proof is there: clients may come.
    pub(super) barrier: Option<Epoch>,
    /// When this node learnt of the epoch in force.
    pub(super) epoch_since: (Epoch, Moment),
    /// The members' slots on its PostgreSQL.
    pub(super) slots: SlotKeeper,
    /// Where the log ended that was rewound last.
    pub(super) rewound: Option<crate::cluster::WalEnd>,
    /// Since when a promotion has been under way.
    pub(super) unconfirmed_since: Option<Moment>,
    /// Since when an ended PostgreSQL has left processes behind.
    pub(super) ending_since: Option<Moment>,
    /// Failed work: not before this moment again.
    pub(super) retry_at: BTreeMap<&'static str, Moment>,
    /// How often in a row the end of the log could not be read.
    pub(super) unreadable: u32,
    pub(super) trouble: Option<String>,
    pub(super) spared: Spared,
    pub(super) callbacks: Callbacks,
    /// What the log said last.
    pub(super) lines: Lines,
    pub(super) wal_gone: WalGone,
    /// So many attempts to copy, rewind or create the data have failed in a row.
    pub(super) failed_copies: u32,
    pub(super) fitness: Fitness,
    pub(super) caught_up: bool,
    pub(super) leaving: bool,
    /// The group's word that it has no place for this node.
    pub(super) expelled: Option<String>,
    pub(super) duty: Duty,
    pub(super) postmaster: watch::Sender<Option<i32>>,
    /// The postmaster that is being stopped past its guard, and since when.
    pub(super) bypass: Option<(i32, Moment)>,
    /// The guard's heartbeat, and when it last changed.
    pub(super) beat: (u64, Moment),
    /// The leader wants a report that is newer than this.
    pub(super) poked_at: Option<Moment>,
    pub(super) last_location: Option<crate::cluster::Lsn>,
}

impl Agent {
    /// Takes over whatever runs: the guard knows the postmaster, its epoch and its deadline.
    pub fn new(parts: AgentParts) -> (Self, watch::Receiver<Option<i32>>) {
        let (postmaster, seen) = watch::channel(None);
        let guard = parts
            .hands
            .as_ref()
            .map(|hands| hands.guard.watch().borrow().clone())
            .unwrap_or_default();
        let mut running = None;
        if let (Some(_), Some((epoch, until))) = (guard.postmaster, guard.armed) {
            parts.tenancy.resume(epoch, until);
            running = Some(epoch);
            tracing::info!("taking over the running PostgreSQL, primary of epoch {epoch}");
        }
        let section = parts.config.postgresql.as_ref();
        let dirs = section.map(|section| vec![section.data_dir.clone(), section.data_dir.join("pg_wal")]);
        let agent = Self {
            fitness: Fitness::new(dirs.unwrap_or_default()),
            me: parts.config.name.clone(),
            parts,
            guard,
            probed: Probed::default(),
            holdings: Holdings::default(),
            job: None,
            running,
            risen: None,
            promise: None,
            synced: None,
            lookout: Lookout::new(),
            gap: Gap::default(),
            primary_answers: None,
            ending: Ending::default(),
            ended: None,
            checkpointed: None,
            streamed_in: None,
            timeline_seen: None,
            adrift_since: None,
            kept: None,
            configured: None,
            reread: false,
            nameless: true,
            proof: None,
            farewell: None,
            wishes: Wishes::default(),
            prepared: None,
            finishing: false,
            barrier: None,
            epoch_since: (Epoch(0), Moment(0)),
            slots: SlotKeeper::default(),
            rewound: None,
            unconfirmed_since: None,
            ending_since: None,
            retry_at: BTreeMap::new(),
            unreadable: 0,
            trouble: None,
            spared: Spared::default(),
            callbacks: Callbacks::default(),
            lines: Lines::default(),
            wal_gone: WalGone::default(),
            failed_copies: 0,
            caught_up: false,
            leaving: false,
            expelled: None,
            duty: Duty::Rest("starting".to_owned()),
            postmaster,
            bypass: None,
            beat: (0, clock::now()),
            poked_at: None,
            last_location: None,
        };
        (agent, seen)
    }

    /// Runs until told to stop (then PostgreSQL is stopped first) or until this node must not go on.
    pub async fn run(
        mut self,
        seen: watch::Receiver<Option<i32>>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), AgentError> {
        let (publish, mut probed) = watch::channel(Probed::default());
        let tick = Arc::new(Notify::new());
        let (_never, quiet) = watch::channel(GuardState::default());
        let mut guard = self
            .parts
            .hands
            .as_ref()
            .map_or(quiet, |hands| hands.guard.watch());
        let prober = self.parts.hands.as_ref().map(|hands| {
            let (session, poke) = (hands.session.clone(), self.parts.poke.clone());
            tokio::spawn(probe::run(
                session,
                seen,
                poke,
                self.parts.settings.clone(),
                tick.clone(),
                publish,
            ))
        });
        let mut state = self.parts.state.clone();
        let mut word = self.parts.word.clone();
        let mut poke = self.parts.poke.clone();
        let mut renewal = self.parts.renewal.watch();
        let mut knocked = self.lookout.watch();
        let mut gone_at: Option<Moment> = None;
        let (mut tick_every, mut metronome) = (TICK, Metronome::new(TICK));
        let (mut spares, mut spared) = (Spares::default(), false);
        loop {
            if !std::mem::take(&mut spared) {
                self.guard = guard.borrow_and_update().clone();
                self.probed = probed.borrow_and_update().clone();
                state.mark_unchanged();
                word.mark_unchanged();
                knocked.mark_unchanged();
                self.pass()?;
                let next = self.tick(clock::now());
                if std::mem::replace(&mut tick_every, next) != next {
                    metronome = Metronome::new(next);
                }
            }
            if self.leaving && self.may_go(&mut gone_at) {
                break;
            }
            tokio::select! {
                () = metronome.tick() => {
                    let interval_ms = self.parts.settings.borrow().report_interval_ms;
                    let now = clock::now();
                    // Else it would be woken to find that it is not.
                    if probed.borrow().is_due(now, interval_ms) {
                        tick.notify_one();
                    }
                    spared = spares.spares(&self.probed, now, interval_ms);
                }
                Ok(()) = guard.changed() => {}
                Ok(()) = probed.changed() => {}
                Ok(()) = state.changed() => {}
                Ok(()) = word.changed() => {}
                Ok(()) = knocked.changed() => {}
                Some(asked) = self.parts.orders.recv() => self.obey(asked),
                Ok(()) = renewal.changed() => self.renew(renewal.borrow_and_update().clone()),
                Ok(()) = poke.changed() => {
                    self.poked_at = Some(clock::now());
                    self.lookout.worry(clock::now());
                }
                done = finished(&mut self.job) => {
                    if let Some(purpose) = self.job.take().map(|job| job.purpose.clone()) {
                        self.settle(&purpose, done)?;
                    }
                }
                done = finished(&mut self.proof) => {
                    if let Some(purpose) = self.proof.take().map(|job| job.purpose.clone()) {
                        self.settle(&purpose, done)?;
                    }
                }
                done = finished(&mut self.farewell) => {
                    if let Some(purpose) = self.farewell.take().map(|job| job.purpose.clone()) {
                        self.settle(&purpose, done)?;
                    }
                }
                _ = &mut stop, if !self.leaving => {
                    if self.parts.state.borrow().pause.is_on() {
                        tracing::info!("stopping: the cluster is paused, PostgreSQL stays as it is");
                        break;
                    }
                    tracing::info!("stopping: PostgreSQL first");
                    self.leaving = true;
                }
            }
        }
        if let Some(prober) = prober {
            prober.abort();
        }
        self.callbacks_finish().await;
        Ok(())
    }

    /// Works with a node file that was read again from now on; a job that runs ends with what it began with.
    fn renew(&mut self, config: Arc<Config>) {
        if let Some(hands) = &mut self.parts.hands {
            *hands = hands.renewed(config.clone());
        }
        self.parts.config = config;
        self.reread = true;
    }

    /// A stopping daemon leaves when PostgreSQL is down and the leader has had the time to hear so.
    fn may_go(&self, gone_at: &mut Option<Moment>) -> bool {
        // A witness has nothing to stop.
        if self.parts.hands.is_none() {
            return true;
        }
        // What was there before us stays when we go before anything became of us.
        if (self.process() != Process::Down && !self.hosts_guest()) || self.job.is_some() {
            return false;
        }
        let now = clock::now();
        let since = *gone_at.get_or_insert(now);
        let state = self.parts.state.borrow();
        let still_primary = state.primacy.held().is_some_and(|(holder, _)| *holder == self.me);
        !still_primary || now.since(since) > FAREWELL_MS
    }

    /// One look at everything.
    fn pass(&mut self) -> Result<(), AgentError> {
        let now = clock::now();
        if self.guard_beats(now) {
            self.parts.tenancy.passed(now);
        }
        let status = self.parts.group.status();
        let (expelled, fatal) = {
            let status = status.borrow();
            (status.expelled.clone(), status.fatal.clone())
        };
        self.expelled = expelled;
        if let Some(why) = fatal
            && !self.is_withdrawing()
        {
            return Err(AgentError::Raft(why));
        }
        self.postmaster
            .send_if_modified(|pid| std::mem::replace(pid, self.guard.postmaster) != self.guard.postmaster);
        self.look_at_fitness(now);
        self.take_in(now)?;
        self.call_back();
        if let Some(hands) = &mut self.parts.hands {
            hands.heed(&self.parts.settings.borrow().postgresql.shared);
        }
        let state = self.parts.state.borrow().clone();
        self.bind(&state, now);
        self.duty = self.judge(&state, now);
        self.look_after_restart(&state, now);
        self.step(&state, now)?;
        self.say(&state);
        self.keep_configuration(&state);
        self.publish(&state, now);
        Ok(())
    }

    /// Draws the consequences of what the guard, the probe and the leader said.
    fn take_in(&mut self, now: Moment) -> Result<(), AgentError> {
        let state = self.parts.state.borrow().clone();
        let word = self.parts.word.borrow().clone();
        if let Some(why) = self.is_another(&state, &word) {
            return Err(AgentError::Misplaced(why));
        }
        self.look_after_guest(&state)?;
        if !self.caught_up && word.at > Moment(0) && state.revision >= word.revision {
            self.caught_up = true;
            self.parts.ledger.first_sight(state.epoch)?;
        }
        if self.epoch_since.0 != state.epoch {
            self.epoch_since = (state.epoch, now);
        }
        self.primary_answers = self.look_out(&state, &word, now);
        self.note_standby(&state, now);
        self.note_reached(&state)?;
        self.unconfirmed_since = if state.is_confirmed() {
            None
        } else {
            Some(self.unconfirmed_since.unwrap_or(now))
        };
        if self.process() == Process::Down
            && self.job.is_none()
            && let Some(epoch) = self.running.take()
        {
            let why = self.trouble.clone().unwrap_or_else(|| {
                let exit = self
                    .guard
                    .last_exit
                    .clone()
                    .unwrap_or_else(|| "is gone".to_owned());
                format!("PostgreSQL {exit}")
            });
            self.risen = None;
            self.holdings.set_end(None);
            self.parts.tenancy.stand_down();
            self.ended = Some((epoch, why));
        }
        if let Some(why) = self.holds_another(&state) {
            return Err(AgentError::Misplaced(why));
        }
        if let Some(agreed) = state
            .system_id
            .filter(|agreed| self.holdings.system_id() == Some(*agreed))
            && self.parts.ledger.facts().system_id != Some(agreed)
        {
            self.parts.ledger.change(|facts| facts.system_id = Some(agreed))?;
        }
        Ok(())
    }
}
