//! Steps: what the node loop does towards each duty, one job at a time.

use super::agent::{Agent, AgentError};
use super::data::{self, Holdings};
use super::hands::{Hands, Wanted};
use super::job::{Job, Purpose};
use super::jobs;
use super::ledger::Doing;
use crate::clock;
use crate::cluster::{Epoch, Moment, Origin, Role, State, Timeline};
use crate::decide::duty::{Data, Duty, Process};
use std::sync::Arc;
use std::time::Duration;

/// How long a stop of the daemon waits for a fast stop of PostgreSQL.
const LEAVE: Duration = Duration::from_secs(60);
/// How long the end of a PostgreSQL may take before its leftovers are killed.
const LEFTOVERS_MS: u64 = 500;
/// A paused replay may be an operator's doing, so it is looked into at this pace.
const RAISE_EVERY_MS: u64 = 5_000;
/// A server that has been asked in vain for so long takes signals, whatever else it does.
const MUTE_MS: u64 = 1_000;
/// How long a standby gets to stop cleanly before its data is rewound or replaced.
const STOP_STANDBY: Duration = Duration::from_secs(10);

impl Agent {
    pub(super) fn hands(&self) -> Option<Hands> {
        self.parts.hands.clone()
    }

    pub(super) fn may_try(&self, what: &'static str, now: Moment) -> bool {
        self.retry_at.get(what).is_none_or(|at| now >= *at)
    }

    /// Whether a daemon whose group has no place for it still has its standby to stop before it ends.
    pub(super) fn is_withdrawing(&self) -> bool {
        let is_primary = self.running.is_some() || self.process() == Process::Up(Some(Role::Primary));
        let is_over = self.process() == Process::Down && self.job.is_none();
        self.expelled.is_some()
            && self.parts.hands.is_some()
            && !(is_primary || is_over || self.hosts_guest())
    }

    /// Starts at most one job towards the duty; a job of another purpose is dropped first where it may be.
    pub(super) fn step(&mut self, state: &Arc<State>, now: Moment) -> Result<(), AgentError> {
        let Some(hands) = self.hands() else { return Ok(()) };
        if let Duty::Fence(why) = self.duty.clone() {
            return self.fence(hands, why);
        }
        self.drop_stale_job();
        self.drop_stale_proof();
        if self.leftovers(now) && self.job.is_none() {
            return self.fence(hands, "processes of an ended PostgreSQL are left".to_owned());
        }
        if self.job.is_some() {
            return Ok(());
        }
        if self.leaving && self.process() != Process::Down {
            if !self.hosts_guest() {
                self.leave(hands);
            }
            return Ok(());
        }
        // Also on the way out: where the log ends is part of a primary's last word.
        if self.look(&hands, now) || self.leaving {
            return Ok(());
        }
        if self.is_held_back(now) || self.step_restart(&hands, state, now) {
            return Ok(());
        }
        match self.duty.clone() {
            Duty::Rest(_) | Duty::AwaitLease(_) | Duty::Fence(_) => Ok(()),
            Duty::End(epoch) => {
                if self.ended.as_ref().is_none_or(|(ended, _)| *ended < epoch) {
                    self.ended = Some((epoch, "its PostgreSQL does not run".to_owned()));
                }
                Ok(())
            }
            Duty::Rise {
                epoch,
                origin,
                timeline,
            } => self.rise(hands, epoch, origin, timeline, state),
            Duty::Serve(epoch) => {
                self.serve(hands, epoch, state, now);
                Ok(())
            }
            Duty::Yield(epoch) => {
                self.hand_over(hands, epoch, state, now);
                Ok(())
            }
            Duty::Withdraw(why) => {
                tracing::warn!("stopping the standby: {why}");
                self.trouble = Some(format!("was stopped: {why}"));
                self.stop_first(&hands);
                Ok(())
            }
            Duty::Promise(epoch) => self.keep_promise(hands, epoch, state, now),
            Duty::Follow(_) | Duty::Stand if self.parts.ledger.facts().doing.is_some() => {
                // Half-done work is looked at again before anything is started on it.
                self.holdings = Holdings::default();
                Ok(())
            }
            Duty::Follow(_) => {
                self.becomes_ours()?;
                self.follow(hands, state, now);
                Ok(())
            }
            Duty::Stand => {
                self.stand(hands, state, now);
                Ok(())
            }
            Duty::Rewind(_, why) => self.rewind(hands, state, now, &why),
            Duty::Clone(_, why) => self.clone_data(hands, state, now, &why),
        }
    }

    /// A guard sweeps behind its own postmaster in milliseconds; behind a guard that died nobody has.
    fn leftovers(&mut self, now: Moment) -> bool {
        if self.process() != Process::Ending || !self.guard.connected {
            self.ending_since = None;
            return false;
        }
        now.since(*self.ending_since.get_or_insert(now)) > LEFTOVERS_MS
    }

    /// What has to be known before anything can be done.
    fn look(&mut self, hands: &Hands, now: Moment) -> bool {
        let hands = hands.clone();
        if self.holdings.data == Data::Unknown && self.may_try("inspect", now) {
            let founding = self.parts.state.borrow().system_id.is_none();
            self.job = Some(Job::spawn(Purpose::Inspect, |_| jobs::inspect(hands, founding)));
            return true;
        }
        let unread = matches!(self.holdings.data, Data::Present { end: None, .. });
        if unread && self.process() == Process::Down && self.may_try("read-end", now) {
            let hint = self.last_location;
            self.job = Some(Job::spawn(Purpose::ReadEnd, |_| jobs::read_end(hands, hint)));
            return true;
        }
        false
    }

    /// A job goes on only while the duty it serves is still owed.
    fn drop_stale_job(&mut self) {
        let Some(job) = &self.job else { return };
        let stale = match (&job.purpose, &self.duty) {
            (purpose, _) if !purpose.may_abort() => false,
            (_, _) if self.leaving => true,
            (Purpose::Bootstrap(of) | Purpose::Restart(of) | Purpose::Promote(of), _) => {
                self.running != Some(*of)
            }
            (Purpose::Clone, duty) => !matches!(duty, Duty::Clone(..)),
            // While it is down there is nothing else to do; the end of its log is read for whoever follows anew.
            (Purpose::Again, duty) => !matches!(duty, Duty::Follow(_) | Duty::Stand | Duty::Rest(_)),
            (Purpose::Tidy, duty) => !matches!(duty, Duty::Follow(_)),
            (Purpose::Rewind, duty) => !matches!(duty, Duty::Rewind(..) | Duty::Clone(..)),
            _ => false,
        };
        if stale {
            tracing::info!("giving up {:?}: the duty is now {:?}", job.purpose, self.duty);
            if matches!(job.purpose, Purpose::Clone | Purpose::Rewind) {
                // What it left behind is judged by the ledger, not by what was known before it began.
                self.holdings = Holdings::default();
            }
            self.job = None;
        }
    }

    fn fence(&mut self, hands: Hands, why: String) -> Result<(), AgentError> {
        if self.job.as_ref().is_some_and(|job| job.purpose == Purpose::Fence) {
            return Ok(());
        }
        if self.parts.ledger.facts().doing.is_some() {
            self.holdings = Holdings::default();
        }
        tracing::warn!("stopping PostgreSQL at once: {why}");
        self.callbacks_expect_stop(false);
        self.trouble = Some(format!("was stopped because {why}"));
        self.job = Some(Job::spawn(Purpose::Fence, |_| jobs::fence(hands)));
        Ok(())
    }

    fn leave(&mut self, hands: Hands) {
        self.trouble = Some("was stopped with its daemon".to_owned());
        self.callbacks_expect_stop(false);
        let bound = self
            .running
            .and_then(|_| self.parts.settings.borrow().primary_stop_bound_s());
        let patience = bound.map_or(LEAVE, Duration::from_secs);
        self.job = Some(Job::spawn(Purpose::Stop, |_| jobs::stop(hands, patience)));
    }

    /// Ledger first, deadline second, PostgreSQL last: see the invariant in `mod.rs`.
    fn rise(
        &mut self,
        hands: Hands,
        epoch: Epoch,
        origin: Origin,
        timeline: Option<Timeline>,
        state: &Arc<State>,
    ) -> Result<(), AgentError> {
        let wanted = self.wanted(state, None);
        let up = matches!(self.process(), Process::Up(Some(Role::Replica)));
        let create = !matches!(self.holdings.data, Data::Present { .. });
        if origin == Origin::Bootstrap && create {
            if matches!(self.holdings.data, Data::Broken(_)) {
                self.holdings.data = Data::Unknown;
                hands
                    .postgres
                    .remove_own_failed_bootstrap()
                    .map_err(|why| AgentError::Misplaced(why.to_string()))?;
            }
            data::begin(&mut self.parts.ledger, Doing::Bootstrap)?;
        }
        let guest = self.hosts_guest();
        self.parts.ledger.change(|facts| facts.used = epoch)?;
        if !self.parts.tenancy.enforce(epoch) {
            self.ended = Some((epoch, "the guard did not take its deadline".to_owned()));
            return Ok(());
        }
        self.running = Some(epoch);
        self.risen = None;
        self.trouble = None;
        self.ended = None;
        // A standby that was promoted had names before; what is started anew reads them at its start.
        let none = |wanted: &Wanted| wanted.names.as_ref().is_none_or(String::is_empty);
        self.nameless =
            none(&wanted) || up && self.configured.as_ref().is_none_or(none) && self.promise.is_none();
        self.configured = Some(wanted.clone());
        // Another run of the server: its slots may have been dropped while it was a standby, or never made.
        self.slots.forget();
        tracing::info!("becoming primary of epoch {epoch} ({origin:?})");
        let timeout_s = self.restart_timeout_s();
        self.job = Some(match (origin, up, timeline.zip(state.timeline())) {
            (Origin::Promotion, true, Some((target, current))) => {
                let slots = self.slots_for(state, true, clock::now()).keep;
                Job::spawn(Purpose::Promote(epoch), |_| {
                    jobs::promote(hands, wanted, epoch, (current, target), slots)
                })
            }
            (Origin::Bootstrap, false, _) if guest => {
                self.becomes_ours()?;
                Job::spawn(Purpose::Bootstrap(epoch), |_| jobs::adopt(hands, wanted, epoch))
            }
            (Origin::Restart, false, _) => Job::spawn(Purpose::Restart(epoch), |_| {
                jobs::restart(hands, wanted, epoch, timeout_s)
            }),
            (Origin::Bootstrap, false, _) => Job::spawn(Purpose::Bootstrap(epoch), |_| {
                jobs::bootstrap(hands, wanted, epoch, create)
            }),
            _ => {
                // The server is not in the shape the epoch was given for: the epoch is spent, the leader decides anew.
                self.trouble = Some(format!("was no match for epoch {epoch}"));
                Job::spawn(Purpose::Fence, |_| jobs::fence(hands))
            }
        });
        Ok(())
    }

    /// A restarted daemon finds a postmaster in its epoch, but not how far its predecessor had come with it.
    fn adopt(&mut self, hands: Hands, epoch: Epoch, state: &State) {
        let reserved = Self::agreed_timeline(state);
        let why = match (
            self.process(),
            self.probed.probe.as_ref().map(|probe| probe.timeline),
        ) {
            _ if self.parts.ledger.facts().doing.is_some() => "its creation was interrupted".to_owned(),
            (Process::Up(Some(Role::Primary)), Some(found)) if reserved.is_none() || found == reserved => {
                match hands.postgres.set_standby_signal(true) {
                    Ok(()) => {
                        tracing::info!("primary of epoch {epoch}: goes on under the restarted daemon");
                        self.risen = Some(epoch);
                        self.refresh_fork();
                        return;
                    }
                    Err(why) => why.to_string(),
                }
            }
            (Process::Up(Some(Role::Primary)), Some(found)) => {
                format!("it is on timeline {found:?} instead of {reserved:?}")
            }
            (Process::Up(Some(_)), _) => "its promotion was interrupted".to_owned(),
            _ => return,
        };
        // Whatever it was about to become, the epoch is spent: the leader decides anew.
        if let Err(why) = self.fence(hands, why) {
            tracing::error!("{why}");
        }
    }

    pub(super) fn serve(&mut self, hands: Hands, epoch: Epoch, state: &State, now: Moment) {
        if self.risen != Some(epoch) {
            self.adopt(hands, epoch, state);
            return;
        }
        if !self.may_try("chores", now) {
            return;
        }
        let wanted = self.wanted(state, None);
        if self.configured.as_ref() != Some(&wanted) || self.reread {
            // A restarted daemon does not know what the server was told before.
            let named = self.configured.as_ref().and_then(|known| known.names.as_ref());
            self.nameless |= named.is_none_or(String::is_empty);
            self.configured = Some(wanted.clone());
            self.reread = false;
            self.job = Some(Job::spawn(Purpose::Configure, |_| jobs::configure(hands, wanted)));
            return;
        }
        self.prove(&hands, epoch, state, now);
        let work = self.primary_slots(state, now);
        let checkpoint = self.checkpointed != Some(epoch);
        if checkpoint || work.is_some() {
            let work = work.unwrap_or_default();
            self.job = Some(Job::spawn(Purpose::Chores, |_| {
                jobs::chores(hands, checkpoint, work)
            }));
        }
    }

    fn follow(&mut self, hands: Hands, state: &State, now: Moment) {
        let Some((holder, _)) = state.primacy.held() else {
            return;
        };
        let Some(endpoint) = state
            .member(holder)
            .and_then(|member| member.info.postgres.clone())
        else {
            return;
        };
        let wanted = self.wanted(state, Some(&endpoint));
        match self.process() {
            Process::Down if self.may_try("start", now) => {
                self.parts.tenancy.stand_down();
                self.configured = Some(wanted.clone());
                self.job = Some(Job::spawn(Purpose::Standby, |_| jobs::standby(hands, wanted)));
            }
            Process::Up(Some(Role::Replica))
                if (self.configured.as_ref() != Some(&wanted) || self.reread)
                    && self.may_try("configure", now) =>
            {
                self.configured = Some(wanted.clone());
                self.reread = false;
                self.job = Some(Job::spawn(Purpose::Configure, |_| jobs::configure(hands, wanted)));
            }
            // One that is not consistent yet answers nobody, and may need log of this primary's to become so.
            Process::Up(None)
                if self.configured.as_ref() != Some(&wanted)
                    && self.is_mute(now)
                    && self.may_try("configure", now) =>
            {
                self.configured = Some(wanted.clone());
                self.job = Some(Job::spawn(Purpose::Configure, |_| {
                    jobs::configure_unheard(hands, wanted)
                }));
            }
            Process::Up(Some(Role::Replica)) if self.is_replay_paused() && self.may_try("raise", now) => {
                self.retry_at.insert("raise", now.plus(RAISE_EVERY_MS));
                self.job = Some(Job::spawn(Purpose::Raise, |_| jobs::raise(hands, wanted)));
            }
            Process::Up(Some(Role::Replica)) if self.may_try("tidy", now) => {
                if let Some(work) = self.standby_slots(state, now) {
                    self.job = Some(Job::spawn(Purpose::Tidy, |_| jobs::tidy(hands, work)));
                }
            }
            _ => {}
        }
    }

    /// The server is past its first steps, in which a signal would end it, and has not answered anything yet.
    fn is_mute(&self, now: Moment) -> bool {
        let is_this = self.probed.postmaster == self.guard.postmaster;
        is_this && (self.probed.failing_since).is_some_and(|since| now.since(since) > MUTE_MS)
    }

    fn is_replay_paused(&self) -> bool {
        let probe = self.probed.probe.as_ref();
        probe.is_some_and(|probe| probe.replay_paused)
    }

    /// A standby of nobody yet: it shows how far its log reaches, and follows as soon as there is a primary.
    fn stand(&mut self, hands: Hands, state: &State, now: Moment) {
        if self.process() != Process::Down || !self.may_try("start", now) {
            return;
        }
        let endpoint = state
            .primacy
            .held()
            .filter(|(holder, _)| **holder != self.me)
            .and_then(|(holder, _)| state.member(holder))
            .and_then(|member| member.info.postgres.clone());
        let wanted = self.wanted(state, endpoint.as_ref());
        self.parts.tenancy.stand_down();
        self.configured = Some(wanted.clone());
        self.job = Some(Job::spawn(Purpose::Standby, |_| jobs::standby(hands, wanted)));
    }

    /// A running server is stopped cleanly first; then where its log ends is read from disk, and judged again.
    fn stop_first(&mut self, hands: &Hands) -> bool {
        if self.process() == Process::Down {
            return false;
        }
        let hands = hands.clone();
        self.callbacks_expect_stop(false);
        self.holdings.set_end(None);
        self.job = Some(Job::spawn(Purpose::Stop, |_| jobs::stop(hands, STOP_STANDBY)));
        true
    }

    fn rewind(&mut self, hands: Hands, state: &State, now: Moment, why: &str) -> Result<(), AgentError> {
        if self.stop_first(&hands) || !self.may_try("rewind", now) {
            return Ok(());
        }
        let settings = self.parts.settings.borrow().clone();
        let effective = hands.effective(&settings);
        if effective.remove_on_diverged_timelines == Some(true) || !effective.use_pg_rewind {
            self.holdings.data = Data::Broken(why.to_owned());
            return Ok(());
        }
        if self.rewound.is_some() && self.rewound == self.holdings.end {
            // Data that ran as a standby for a moment has the tail in its log only, not in its files: pg_rewind then
            // finds nothing to do, and PostgreSQL would replay the tail again.
            self.rewound = None;
            self.holdings.data = Data::Broken(format!("pg_rewind found nothing to do, but {why}"));
            return Ok(());
        }
        let Some(endpoint) = self.primary_endpoint(state, true) else {
            return Ok(());
        };
        tracing::info!("rewinding: {why}");
        self.promise = None;
        data::begin_anew(&mut self.parts.ledger, Doing::Rewind, jobs::new_incarnation())?;
        self.rewound = self.holdings.end;
        self.job = Some(Job::spawn(Purpose::Rewind, |_| jobs::rewind(hands, endpoint)));
        Ok(())
    }

    fn clone_data(&mut self, hands: Hands, state: &State, now: Moment, why: &str) -> Result<(), AgentError> {
        if self.stop_first(&hands) || !self.may_try("clone", now) {
            return Ok(());
        }
        let settings = self.parts.settings.borrow().clone();
        let diverged = !matches!(self.holdings.data, Data::Absent) && !self.wishes.fresh_copy;
        if diverged && hands.effective(&settings).remove_on_diverged_timelines == Some(false) {
            self.trouble = Some(format!(
                "{why}, and remove_data_directory_on_diverged_timelines is false"
            ));
            return Ok(());
        }
        let Some(endpoint) = self.primary_endpoint(state, false) else {
            return Ok(());
        };
        // What failed with the preferred source may succeed with the primary, and the other way round.
        let preferred = self
            .preferred_source(state)
            .filter(|_| self.failed_copies.is_multiple_of(2) && !self.wishes.from_leader);
        let endpoint = preferred.unwrap_or(endpoint);
        tracing::info!("copying the data from {endpoint}: {why}");
        let copy = jobs::new_incarnation();
        self.promise = None;
        data::begin_anew(&mut self.parts.ledger, Doing::Clone, copy)?;
        self.job = Some(Job::spawn(Purpose::Clone, |progress| {
            jobs::clone(hands, endpoint, copy, progress)
        }));
        Ok(())
    }
}
