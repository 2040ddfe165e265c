//! Restarts of PostgreSQL and new copies that an operator asks of this node.
//!
//! ```text
//!  replica: fast stop -> start -> it answers
//!  primary: CHECKPOINT beside serving -> fast stop -> Tenure::Ended, Report::again -> the leader gives it the next epoch
//!           -> start -> the gate opens
//! ```
//!
//! One epoch, one postmaster: a primary that is started again is one of a new epoch, and between the two nothing of it
//! lives. While it stops its lease goes on, as in a switchover. Should it not come back, the usual rules move primacy.

use super::agent::Agent;
use super::hands::Hands;
use super::job::{Job, Purpose};
use super::jobs;
use super::restart_request::Request;
use crate::clock;
use crate::cluster::{Done, Epoch, Moment, PostgresState, Report, Role, State};
use crate::decide::duty::{Data, Duty, Process};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Somebody waits for the answer: it is no when the start has taken longer than it may, and everything before it so long.
const BEFORE_START_MS: u64 = 290_000;
/// How long a fast stop of a primary may take before it becomes an immediate one: clients are waiting.
const STOP: Duration = Duration::from_secs(60);
/// A server that was started again shows itself within this time.
const SHOWN: Duration = Duration::from_secs(2);

/// What operators have asked of this node and is not over.
#[derive(Default)]
pub(super) struct Wishes {
    again: Option<Again>,
    scheduled: Option<Scheduled>,
    /// The data is to be replaced although nothing is wrong with it.
    pub(super) fresh_copy: bool,
    /// By a copy of the primary's, whatever else could be copied.
    pub(super) from_leader: bool,
}

/// A restart under way.
struct Again {
    answer: Option<oneshot::Sender<Done>>,
    timeout_s: Option<u64>,
    until: Moment,
    /// The epoch that ends for it, once its postmaster is being stopped.
    ending: Option<Epoch>,
    /// The job of a standby has begun.
    begun: bool,
    /// There was nothing to stop: a pause left a standby down.
    only_start: bool,
}

/// A restart that waits for its time.
struct Scheduled {
    request: Request,
    /// When the server that is meant was started: another one is not restarted.
    started: Option<String>,
}

impl Agent {
    /// Restarts at once or at a time, or says why not.
    pub(super) fn ask_restart(&mut self, body: &Map<String, Value>, answer: oneshot::Sender<Done>) {
        let done = match Request::read(body, clock::wall_ms()) {
            Err(refusal) => refusal,
            Ok(request) if request.when.is_some() => self.schedule_restart(request),
            Ok(request) => match self.why_no_restart(&request) {
                Some(why) => Done::text(503, why),
                None => return self.begin_restart(request.timeout_s, Some(answer)),
            },
        };
        // Whoever asked may have gone.
        let _ = answer.send(done);
    }

    fn schedule_restart(&mut self, request: Request) -> Done {
        if self.is_paused() {
            return Done::text(500, "Can't schedule restart in the paused state");
        }
        if self.wishes.scheduled.is_some() {
            return Done::text(409, "Another restart is already scheduled");
        }
        tracing::info!("a restart of PostgreSQL is scheduled: {}", request.shown);
        let started = self.started();
        self.wishes.scheduled = Some(Scheduled { request, started });
        Done::text(202, "Restart scheduled")
    }

    /// Forgets the scheduled restart.
    pub(super) fn cancel_restart(&mut self) -> Done {
        match self.wishes.scheduled.take() {
            Some(_) => Done::text(200, "scheduled restart deleted"),
            None => Done::text(404, "no restarts are scheduled"),
        }
    }

    /// The scheduled restart as it is shown.
    pub(super) fn scheduled_restart(&self) -> Option<String> {
        let scheduled = self.wishes.scheduled.as_ref()?;
        Some(scheduled.request.shown.clone())
    }

    /// The epoch that ends only to begin anew here.
    pub(super) fn restarts_after(&self) -> Option<Epoch> {
        self.wishes.again.as_ref()?.ending
    }

    /// How long the start that was asked for may take, seconds.
    pub(super) fn restart_timeout_s(&self) -> Option<u64> {
        self.wishes.again.as_ref()?.timeout_s
    }

    fn is_paused(&self) -> bool {
        let state = self.parts.state.borrow();
        let config: Option<Value> = serde_json::from_str(&state.config).ok();
        config.is_some_and(|config| config.get("pause") == Some(&Value::Bool(true)))
    }

    fn started(&self) -> Option<String> {
        let probe = self.probed.probe.as_ref();
        let current = probe.filter(|_| self.probed.postmaster == self.guard.postmaster);
        current.map(|probe| probe.start_time.clone())
    }

    fn why_no_restart(&self, request: &Request) -> Option<String> {
        let report = self.parts.report.borrow().clone();
        let fits = report
            .postgres
            .as_ref()
            .is_some_and(|postgres| request.fits(postgres));
        if !fits {
            return Some("restart conditions are not satisfied".to_owned());
        }
        if let Some(action) = self.busy() {
            return Some(format!("{action} already in progress"));
        }
        match self.process() {
            Process::Up(Some(_)) => None,
            Process::Down if self.rests_in_pause() => None,
            _ => Some("postgres is still starting".to_owned()),
        }
    }

    /// What is down stays so only in a pause.
    fn rests_in_pause(&self) -> bool {
        let state = self.parts.state.borrow();
        let over = self.epoch_over(&state).is_some();
        let primary = state.primacy.held().is_some_and(|(holder, _)| *holder == self.me);
        state.pause.is_on() && (!primary || over)
    }

    /// The epoch that is agreed for this node and has ended here.
    fn epoch_over(&self, state: &State) -> Option<Epoch> {
        let (holder, epoch) = state.primacy.held()?;
        let over = self.ended.as_ref().is_some_and(|(ended, _)| *ended >= epoch);
        (*holder == self.me && over).then_some(epoch)
    }

    /// What takes long and must not be disturbed.
    fn busy(&self) -> Option<&'static str> {
        if self.wishes.again.is_some() {
            return Some("restart");
        }
        match self.job.as_ref()?.purpose {
            Purpose::Clone if self.wishes.fresh_copy => Some("reinitialize"),
            Purpose::Clone | Purpose::Bootstrap(_) => Some("bootstrap"),
            Purpose::Rewind => Some("pg_rewind"),
            Purpose::Promote(_) => Some("promote"),
            Purpose::Restart(_) => Some("restart"),
            _ => None,
        }
    }

    fn begin_restart(&mut self, timeout_s: Option<u64>, answer: Option<oneshot::Sender<Done>>) {
        tracing::info!("an operator asks for a restart of PostgreSQL");
        self.prepared = None;
        self.callbacks_expect_stop(true);
        // A primary that a pause left down begins its next epoch as after any other stop.
        let down = self.process() == Process::Down;
        let ending = self.epoch_over(&self.parts.state.borrow()).filter(|_| down);
        let only_start = down && ending.is_none();
        if only_start {
            self.finish_in_pause();
        }
        let start_s = timeout_s.unwrap_or(self.parts.settings.borrow().primary_start_timeout_s);
        let patience_ms = start_s.saturating_mul(1_000).saturating_add(BEFORE_START_MS);
        self.wishes.again = Some(Again {
            answer,
            timeout_s,
            until: clock::now().plus(patience_ms),
            ending,
            begun: false,
            only_start,
        });
    }

    /// Begins what the restart needs next; true when a job has begun.
    pub(super) fn step_restart(&mut self, hands: &Hands, state: &State, now: Moment) -> bool {
        let Some(again) = &self.wishes.again else {
            return false;
        };
        if again.only_start {
            return false;
        }
        let hands = hands.clone();
        match (&self.duty, self.process()) {
            (Duty::Serve(epoch), _) if again.ending.is_none() && self.risen == Some(*epoch) => {
                let epoch = *epoch;
                if self.prepared != Some(epoch) {
                    if self.farewell.is_none() && self.may_try("checkpoint", now) {
                        self.farewell = Some(Job::spawn(Purpose::Prepare(epoch), |_| {
                            jobs::prepare(hands, None)
                        }));
                    }
                    return false;
                }
                tracing::info!("stopping PostgreSQL for the restart");
                self.trouble = Some("was stopped for a restart that was asked for".to_owned());
                self.proof = None;
                if let Some(again) = &mut self.wishes.again {
                    again.ending = Some(epoch);
                }
                self.job = Some(Job::spawn(Purpose::Stop, |_| jobs::stop(hands, STOP)));
                true
            }
            (Duty::Follow(_) | Duty::Stand, Process::Up(Some(Role::Replica))) if !again.begun => {
                let holder = state.primacy.held().map(|(holder, _)| holder);
                let upstream = holder.filter(|holder| **holder != self.me);
                let endpoint = upstream
                    .and_then(|holder| state.member(holder))
                    .and_then(|member| member.info.postgres.clone());
                let wanted = self.wanted(state, endpoint.as_ref());
                self.configured = Some(wanted.clone());
                let bound = again.timeout_s.unwrap_or(wanted.settings.primary_start_timeout_s);
                if let Some(again) = &mut self.wishes.again {
                    again.begun = true;
                }
                self.job = Some(Job::spawn(Purpose::Again, |_| {
                    jobs::again(hands, wanted, Duration::from_secs(bound))
                }));
                true
            }
            _ => false,
        }
    }

    /// Answers a restart that is over, and begins a scheduled one whose time has come.
    pub(super) fn look_after_restart(&mut self, state: &State, now: Moment) {
        if let Some(again) = &self.wishes.again {
            let served = self.risen.is_some() && self.risen == self.running && self.is_serving();
            let back = again.ending.is_some_and(|ending| self.risen > Some(ending));
            let lost =
                again.ending.is_some() && state.primacy.held().is_none_or(|(holder, _)| *holder != self.me);
            let failed = again
                .ending
                .is_some_and(|ending| self.ended.as_ref().is_some_and(|(ended, _)| *ended > ending));
            let dropped = again.begun && self.job.as_ref().is_none_or(|job| job.purpose != Purpose::Again);
            let started = again.only_start && matches!(self.process(), Process::Up(Some(_)));
            if started || back && served && self.gate_is_open(state, now) {
                self.restarted(true);
            } else if lost || failed || dropped || now >= again.until {
                self.restarted(false);
            }
        }
        self.look_at_schedule();
    }

    /// Says what became of it, and good news once every node can have heard that the server runs: whoever asked will
    /// look at the list of members next.
    pub(super) fn restarted(&mut self, well: bool) {
        let Some(again) = self.wishes.again.take() else {
            return;
        };
        let done = if well {
            Done::text(200, "restarted successfully")
        } else {
            Done::text(503, "restart failed")
        };
        tracing::info!("{}", done.text);
        let Some(answer) = again.answer else { return };
        let mut report = self.parts.report.subscribe();
        let heard = Duration::from_millis(self.parts.settings.borrow().report_interval_ms);
        tokio::spawn(async move {
            if well {
                let runs = |report: &Arc<Report>| {
                    let postgres = report.postgres.as_ref();
                    postgres.is_some_and(|postgres| postgres.state == PostgresState::Running)
                };
                let _ = tokio::time::timeout(SHOWN, report.wait_for(runs)).await;
                tokio::time::sleep(heard).await;
            }
            // Whoever asked may have gone.
            let _ = answer.send(done);
        });
    }

    fn look_at_schedule(&mut self) {
        let Some(scheduled) = &self.wishes.scheduled else {
            return;
        };
        let (now, due) = (
            clock::wall_ms(),
            scheduled.request.when.as_ref().map_or(0, |when| when.ms),
        );
        let started = self.started();
        let another = started.is_some() && scheduled.started.is_some() && started != scheduled.started;
        if now < due && !another {
            return;
        }
        let window_ms = self.parts.settings.borrow().loop_wait_s.saturating_mul(1_500);
        let Some(Scheduled { request, .. }) = self.wishes.scheduled.take() else {
            return;
        };
        let trouble = if another {
            Some("PostgreSQL was restarted meanwhile".to_owned())
        } else if now > due.saturating_add(window_ms) {
            Some("its time has passed".to_owned())
        } else if self.is_paused() {
            Some("the cluster is paused".to_owned())
        } else {
            self.why_no_restart(&request)
        };
        match trouble {
            Some(why) => tracing::warn!("the scheduled restart is forgotten: {why}"),
            None => self.begin_restart(request.timeout_s, None),
        }
    }

    /// Replaces the data of a replica by a new copy.
    pub(super) fn reinitialize(&mut self, force: bool, from_leader: bool) -> Done {
        let held = self
            .parts
            .state
            .borrow()
            .primacy
            .held()
            .map(|(holder, _)| holder.clone());
        let why = match held {
            None => Some("Cluster has no leader, can not reinitialize".to_owned()),
            Some(holder) if holder == self.me => Some("I am the leader, can not reinitialize".to_owned()),
            Some(_) if self.parts.hands.is_none() => Some("a witness holds no data".to_owned()),
            Some(_) => self
                .busy()
                .filter(|_| !force)
                .map(|action| format!("{action} already in progress")),
        };
        if let Some(why) = why {
            return Done::text(503, why);
        }
        tracing::info!("an operator asks for a new copy of the data");
        if self.job.as_ref().is_some_and(|job| job.purpose.may_abort()) {
            self.job = None;
        }
        self.restarted(false);
        self.wishes.fresh_copy = true;
        self.wishes.from_leader = from_leader;
        self.holdings.data = Data::Broken("an operator asked for a new copy".to_owned());
        Done::text(200, "reinitialize started")
    }
}
