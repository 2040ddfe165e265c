//! Reports, their answers and the leader's loop, after `src/lead/` and `src/node/reporter.rs`; the desk is the real one.

use super::agent::place;
use super::bend::{Bend, promote_anyway};
use super::node::{Asking, Proposing, Word};
use super::postgres::Names;
use super::raft::Entry;
use super::world::{Event, Message, World};
use matriarch::cluster::apply::apply;
use matriarch::cluster::{
    Act, Answer, Command, Epoch, Grant, Moment, Outcome, Pause, Report, Standing, State, Tenure, Vote,
};
use matriarch::decide::lease;
use matriarch::decide::rules::Verdict;
use matriarch::decide::sync;
use matriarch::lead::desk::{Agreed, Judgement};
use std::rc::Rc;

const TICK: u64 = 50_000;
const ASK_DEADLINE: u64 = 500_000;
const PROPOSE_DEADLINE: u64 = 5_000_000;
const POKE_EVERY_MS: u64 = 15;
const HAND_OVER_EVERY_MS: u64 = 5_000;
const HUNG_MS: u64 = 1_000;

impl World {
    fn line_at(&mut self, n: usize, to: usize, us: u64) {
        let at = self.now + us;
        let now = self.now;
        let Some(daemon) = self.daemon(n) else { return };
        let run = daemon.run;
        let line = &mut daemon.lines[to];
        if line.pending <= now || at < line.pending {
            line.pending = at;
            self.after(us, Event::Report(n, run, to));
        }
    }

    pub fn report_at_once(&mut self, n: usize) {
        for to in 0..self.nodes.len() {
            let Some(daemon) = self.daemon(n) else { return };
            daemon.lines[to].urgent = true;
            if daemon.lines[to].asked.is_none() {
                self.line_at(n, to, 0);
            }
        }
    }

    pub fn report_to(&mut self, n: usize, to: usize) {
        let (world, now) = (self.now, self.moment(n));
        let Some(daemon) = self.daemon(n) else { return };
        let line = &mut daemon.lines[to];
        if line.pending > world {
            return;
        }
        if let Some(asked) = line.asked.filter(|asked| world < asked + ASK_DEADLINE) {
            self.line_at(n, to, asked + ASK_DEADLINE - world);
            return;
        }
        if now.since(daemon.loop_at) < HUNG_MS {
            line.asked = Some(world);
            line.serial += 1;
            line.urgent = false;
            let serial = line.serial;
            let mut report = daemon.report.clone();
            report.sent_at = now;
            self.send(n, to, Message::Report(Box::new(report), serial));
        }
        self.line_at(n, to, ASK_DEADLINE);
    }

    pub fn receive(&mut self, from: usize, n: usize, report: Report, serial: u64) {
        let now = self.moment(n);
        let unconfirmed = self.bend == Bend::AnswerUnconfirmed;
        let leads = self.nodes[n].raft.lead(self.now, !unconfirmed).is_some();
        if self.nodes[n].has_no_place_for(&report) {
            self.send(n, from, Message::Reply(None, serial));
            return;
        }
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let (sent_at, run) = (report.sent_at, daemon.run);
        let asks = match report.tenure {
            Tenure::Holding { epoch } => Some(epoch),
            _ => None,
        };
        let _ = daemon.desk.hear(report, &node.state, &node.settings, now);
        if !leads {
            self.send(n, from, Message::Reply(None, serial));
            return;
        }
        if !std::mem::replace(&mut daemon.lead_due, true) {
            self.after(300, Event::Lead(n, run, false));
        }
        let Some(epoch) = asks else {
            self.answer(n, from, sent_at, serial, None);
            return;
        };
        if unconfirmed {
            let grant = self.grant(n, from, epoch);
            self.answer(n, from, sent_at, serial, grant);
            return;
        }
        let Some((round, applied, out)) = self.nodes[n].raft.confirm(self.now) else {
            return;
        };
        let until = self.now + ASK_DEADLINE;
        if let Some(daemon) = self.daemon(n) {
            daemon.asking.push(Asking {
                round,
                applied,
                until,
                from,
                sent_at,
                serial,
                epoch,
            });
        }
        self.send_raft(n, out);
        self.grant_confirmed(n);
    }

    /// Reports whose round a quorum has answered get their lease.
    pub fn grant_confirmed(&mut self, n: usize) {
        let world = self.now;
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        if daemon.asking.is_empty() {
            return;
        }
        if !node.raft.believes_to_lead() {
            daemon.asking.clear();
            return;
        }
        daemon.asking.retain(|asking| asking.until > world);
        let (ready, rest): (Vec<Asking>, Vec<Asking>) = std::mem::take(&mut daemon.asking)
            .into_iter()
            .partition(|asking| node.raft.confirmed(asking.round) && node.raft.applied >= asking.applied);
        daemon.asking = rest;
        for asking in ready {
            let grant = self.grant(n, asking.from, asking.epoch);
            self.answer(n, asking.from, asking.sent_at, asking.serial, grant);
        }
    }

    fn grant(&mut self, n: usize, asker: usize, epoch: Epoch) -> Option<Grant> {
        let now = self.moment(n);
        let name = self.nodes[asker].name.clone();
        let node = &self.nodes[n];
        if self.bend == Bend::AnyEpochLeased {
            return Some(Grant {
                epoch,
                ttl_ms: node.state.ttl_ms,
            });
        }
        node.daemon.as_ref()?.desk.grant(&name, epoch, &node.state, now)
    }

    fn answer(&mut self, n: usize, to: usize, sent_at: Moment, serial: u64, grant: Option<Grant>) {
        let now = self.moment(n);
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        let answer = Answer {
            sent_at,
            revision: node.state.revision,
            grant,
            duplicate_of: None,
            standing: Standing::default(),
            digest: daemon.desk.digest(now),
            reign: daemon.desk.reign(&node.state, now),
            bears_ms: None,
        };
        self.send(n, to, Message::Reply(Some(Box::new(answer)), serial));
    }

    pub fn replied(&mut self, from: usize, n: usize, answer: Option<Box<Answer>>, serial: u64) {
        let now = self.moment(n);
        let interval = self.nodes[n].settings.report_interval_ms * 1_000;
        let Some(daemon) = self.daemon(n) else { return };
        let line = &mut daemon.lines[from];
        // The ask had its deadline; a later answer finds nobody waiting.
        if line.serial != serial || line.asked.take().is_none() {
            return;
        }
        let us = if line.urgent { 0 } else { interval };
        self.line_at(n, from, us);
        let Some(answer) = answer else { return };
        if let Some(grant) = answer.grant {
            let counted = if self.bend == Bend::DeadlineFromReceipt {
                now
            } else {
                answer.sent_at
            };
            self.accept(n, grant, counted);
        }
        if let Some(daemon) = self.daemon(n) {
            daemon.word = Word {
                at: now,
                revision: answer.revision,
                digest: Rc::new(answer.digest),
            };
        }
        self.wake(n);
    }

    /// After `src/node/tenancy.rs`: never shortens a lease, and one that the guard does not enforce is none.
    fn accept(&mut self, n: usize, grant: Grant, sent_at: Moment) {
        let Some(daemon) = self.daemon(n) else { return };
        let held = daemon.tenancy;
        let until = lease::deadline(sent_at, grant.ttl_ms);
        let rebinds = held.letting_go && grant.epoch == held.epoch;
        if grant.epoch < held.epoch || grant.epoch == held.epoch && until <= held.until && !rebinds {
            return;
        }
        if rebinds {
            let let_go = self.nodes[n].guard.is_some_and(|guard| guard.armed.is_none());
            if let_go
                && self.arm(n, grant.epoch, until)
                && let Some(daemon) = self.daemon(n)
            {
                (daemon.tenancy.until, daemon.tenancy.letting_go) = (until, false);
            }
            return;
        }
        if held.armed == Some(grant.epoch) && !self.arm(n, grant.epoch, until) {
            return;
        }
        if let Some(daemon) = self.daemon(n) {
            daemon.tenancy.letting_go = false;
            daemon.tenancy.epoch = grant.epoch;
            daemon.tenancy.until = until;
        }
    }

    pub fn poked(&mut self, n: usize) {
        if let Some(daemon) = self.daemon(n) {
            daemon.poked = true;
            self.probe_now(n);
            self.wake(n);
        }
    }

    /// When this node is taken to have begun to lead.
    fn lead_since(&self, n: usize, now: Moment) -> Moment {
        match self.bend {
            Bend::NoWaitByANewLeader => Moment(now.0.saturating_sub(30_000)),
            Bend::WaitFromNoticing => self.nodes[n].clock.at(self.nodes[n].raft.heard),
            Bend::WaitLessVoteLease => Moment(now.0.saturating_sub(400)),
            _ => now,
        }
    }

    pub fn lead(&mut self, n: usize, tick: bool) {
        let fresh = self.bend != Bend::AnswerUnconfirmed;
        let term = self.nodes[n].raft.lead(self.now, fresh);
        let now = self.moment(n);
        let since = self.lead_since(n, now);
        let (world, voters) = (self.now, self.nodes.len());
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let run = daemon.run;
        if tick {
            self.after(
                if term.is_some() { TICK } else { 4 * TICK },
                Event::Lead(n, run, true),
            );
        } else {
            daemon.lead_due = false;
        }
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let vote = term.map(|term| Vote {
            term,
            node: n as u64 + 1,
        });
        daemon.desk.note_lead(vote, since);
        daemon.proposing = daemon
            .proposing
            .filter(|under_way| world < under_way.until && term.is_some());
        if daemon.proposing.is_some() {
            return;
        }
        let (mut state, settings) = (node.state.clone(), node.settings.clone());
        if self.bend == Bend::PauseTimed {
            Rc::make_mut(&mut state).pause = Pause::Off;
        }
        if let (Bend::LossUnasked, Some(_)) = (self.bend, &state.handover) {
            let asked = Rc::make_mut(&mut state).handover.as_mut();
            asked.into_iter().for_each(|asked| asked.accept_loss = true);
        }
        let ahead_ms = if self.bend == Bend::TimeIgnored { 9_000 } else { 0 };
        let agreed = Agreed {
            state: &state,
            settings: &settings,
            voters,
        };
        let Some(mut judgement) = daemon.desk.judge(&agreed, now, world / 1_000 + ahead_ms, true) else {
            return;
        };
        if self.bend == Bend::CandidateUnchecked {
            let ended = daemon.desk.look(&agreed, now, 0, |view| view.ended().is_some());
            promote_anyway(&state, ended == Some(true), &mut judgement);
        }
        if judgement.wants_news && now.since(daemon.poked_others_at) >= POKE_EVERY_MS {
            daemon.poked_others_at = now;
            for to in (0..voters).filter(|to| *to != n) {
                self.send(n, to, Message::Poke);
            }
        }
        if self.bend == Bend::OneHeard {
            self.hear_one(n, &state, &mut judgement, now);
        }
        self.carry(n, &state, judgement, now);
    }

    fn carry(&mut self, n: usize, state: &Rc<State>, judgement: Judgement, now: Moment) {
        let (act, reason) = match judgement.verdict {
            Verdict::Propose(act, reason) => (act, reason),
            Verdict::Stand(reason) => {
                self.tell_standing(n, judgement.rule, &reason);
                self.let_another_try(n, state, judgement.rule, now);
                if judgement.rule == "healthy" {
                    self.step_aside(n, state, now);
                }
                return;
            }
        };
        self.say(|| format!("{n}: {} at revision {}: {reason}", judgement.rule, state.revision));
        let mut us = self.dice.between(50, 600);
        if let (Bend::NamesBeforeRecord, Act::Resync { quorum: Some(quorum) }) = (self.bend, &act) {
            let primary = place(state, &quorum.primary);
            let names = Names::parse(&sync::names(quorum, self.mode));
            self.take_names(primary, names);
            us = self.dice.ms(1_000, 2_500);
        }
        let command = Command {
            expected: Some(state.revision),
            vote: judgement.vote,
            rule: judgement.rule.to_owned(),
            reason,
            at_ms: 0,
            act,
        };
        let world = self.now;
        let Some(daemon) = self.daemon(n) else { return };
        daemon.proposing = Some(Proposing {
            place: None,
            epoch: state.epoch,
            until: world + PROPOSE_DEADLINE,
        });
        let run = daemon.run;
        self.after(us, Event::Propose(n, run, Rc::new(command)));
    }

    fn tell_standing(&mut self, n: usize, rule: &'static str, reason: &str) {
        let Some(daemon) = self.daemon(n) else { return };
        if std::mem::replace(&mut daemon.stood, rule) != rule {
            self.say(|| format!("{n}: {rule}: {reason}"));
        }
    }

    /// Who waits in vain for a word hands the lead to somebody who may hear it.
    fn let_another_try(&mut self, n: usize, state: &State, rule: &str, now: Moment) {
        let level = self.nodes[n].raft.level_peers();
        let Some(daemon) = self.daemon(n) else { return };
        if !matriarch::lead::is_stuck(rule) {
            daemon.stuck_since = None;
            return;
        }
        let patience_ms = matriarch::lead::patience_ms(state);
        if now.since(*daemon.stuck_since.get_or_insert(now)) <= patience_ms || level.is_empty() {
            return;
        }
        daemon.stuck_since = None;
        let to = level[daemon.turn % level.len()];
        daemon.turn += 1;
        self.say(|| format!("{n}: hands the lead to {to}, it is stuck at {rule}"));
        let out = self.nodes[n].raft.hand_over(to);
        self.send_raft(n, out);
    }

    /// Raft's lead is kept off the primary.
    fn step_aside(&mut self, n: usize, state: &State, now: Moment) {
        let node = &mut self.nodes[n];
        let level = node.raft.level_peers().first().copied();
        let Some(daemon) = &mut node.daemon else { return };
        let due = now.since(daemon.handed_over) > HAND_OVER_EVERY_MS;
        let own = state
            .primacy
            .held()
            .is_some_and(|(holder, _)| *holder == node.name);
        if let Some(to) = level.filter(|_| due && own) {
            daemon.handed_over = now;
            let out = node.raft.hand_over(to);
            self.send_raft(n, out);
        }
    }

    pub fn propose(&mut self, n: usize, command: Rc<Command>) {
        let leader = self.nodes[n].raft.leader;
        match self.nodes[n].raft.propose(command.clone(), self.now) {
            Some((at, term, out)) => {
                if let Some(under_way) = self.daemon(n).and_then(|daemon| daemon.proposing.as_mut()) {
                    under_way.place = Some((at, term));
                }
                self.send_raft(n, out);
                self.after_raft(n);
            }
            None => {
                // Another leads: it is forwarded once; it was decided under a vote that is over.
                if let Some(daemon) = self.daemon(n) {
                    daemon.proposing = None;
                }
                if let Some(leader) = leader.filter(|leader| *leader != n) {
                    self.send(n, leader, Message::Forward(command));
                }
            }
        }
    }

    pub fn apply(&mut self, n: usize, entry: Entry) {
        let Some(command) = &entry.command else { return };
        let vote = Vote {
            term: entry.term,
            node: entry.node as u64 + 1,
        };
        let mut state = State::clone(&self.nodes[n].state);
        let before = state.revision;
        let outcome = apply(&mut state, command, vote);
        if self.bend == Bend::TtlUnsettled {
            state.wait_ttl_ms = state.ttl_ms;
        }
        self.check_applied(n, command, vote, before, &outcome);
        if matches!(outcome, Outcome::Applied(_)) {
            let before = self.nodes[n].state.clone();
            self.check_unmoved(n, &before, command);
            self.check_ordered(n, &before, command);
        }
        let holds = state.epoch != self.nodes[n].state.epoch
            && state
                .primacy
                .held()
                .is_some_and(|(holder, _)| *holder == self.nodes[n].name);
        let configured = state.config != self.nodes[n].state.config;
        let now = self.moment(n);
        let applied = (self.nodes[n].raft.applied, entry.term);
        let node = &mut self.nodes[n];
        node.state = Rc::new(state);
        if configured {
            node.settings = Rc::new(super::settings_of(&node.state.config));
        }
        if let Some(daemon) = &mut node.daemon {
            daemon.desk.note_state(&node.state, now);
            if let Some(Proposing { place, epoch, .. }) = daemon.proposing
                && place == Some(applied)
            {
                daemon.proposing = None;
                if !matches!(outcome, Outcome::Applied(_)) {
                    daemon.desk.release(epoch);
                }
                let run = daemon.run;
                self.after(20_000, Event::Lead(n, run, false));
            }
        }
        let state = self.nodes[n].state.clone();
        self.oracle.learn(&state);
        self.note_pause();
        if holds {
            self.spring_epoch(n);
        }
        self.wake(n);
    }
}
