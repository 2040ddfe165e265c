//! Agreement and reports between the simulated daemons: who leads, what is proposed, which leases are granted.

use super::Flaw;
use super::node::Health;
use super::raft::ELECTION_MIN_MS;
use super::world::{Event, Reply, World};
use matriarch::cluster::{Command, Epoch, Moment, Outcome, Report, Tenure, apply};
use matriarch::decide::lease;
use matriarch::decide::rules::Verdict;

impl World {
    pub(super) fn raft_tick(&mut self, node: usize) {
        self.after(50, Event::Raft(node));
        if !self.nodes[node].acts() {
            return;
        }
        let patience = self.dice.between(ELECTION_MIN_MS, 400);
        let mut raft = std::mem::take(&mut self.raft);
        raft.tick(node, self.now, patience, &|from, to| self.hears(from, to));
        self.raft = raft;
        let known = self.raft.voters[node].entries;
        self.apply_up_to(node, known);
    }

    /// The reign of a node that leads as far as it knows; without asking anybody it knows nothing of later ones.
    pub(super) fn lead(&self, node: usize) -> Option<matriarch::cluster::Vote> {
        if self.plan.has(Flaw::AnswersWithoutQuorum) {
            return self.raft.lead(node, self.raft.voters[node].answered_at);
        }
        self.raft.lead(node, self.now)
    }

    pub(super) fn apply_up_to(&mut self, node: usize, entries: usize) -> Option<Outcome> {
        let mut last = None;
        while self.raft.voters[node].applied < entries {
            let at = self.raft.voters[node].applied;
            let entry = self.raft.log[at].clone();
            let mut vote = entry.vote;
            if self.plan.has(Flaw::NoReignCheck) {
                vote = entry.command.vote;
            }
            let now = self.nodes[node].now(self.now);
            let mind = &mut self.nodes[node].mind;
            last = Some(apply::apply(&mut mind.state, &entry.command, vote));
            mind.desk.note_state(&mind.state, now);
            self.raft.voters[node].applied += 1;
        }
        last
    }

    pub(super) fn judge_tick(&mut self, node: usize) {
        let tick = self.dice.between(20, 50);
        self.after(tick, Event::Judge(node));
        if !self.nodes[node].acts() {
            return;
        }
        let vote = self.lead(node);
        if vote.is_some() {
            // A leader leads once it has applied everything up to its own first entry.
            let entries = self.raft.log.len();
            self.apply_up_to(node, entries);
        }
        let now = self.nodes[node].now(self.now);
        let mind = &self.nodes[node].mind;
        // No wait by a new leader: it pretends to have led for ever.
        let since = if self.plan.has(Flaw::NewLeaderDoesNotWait) {
            Moment(0)
        } else {
            now
        };
        mind.desk.note_lead(vote, since);
        let mut state = mind.state.clone();
        self.plan.bend(&mut state);
        let Some(judgement) = mind.desk.judge(&state, &self.settings, 3, now) else {
            return;
        };
        let Verdict::Propose(act, reason) = judgement.verdict else {
            self.step_aside(node, judgement.rule);
            return;
        };
        self.stuck_since = None;
        let (rule, serial) = (judgement.rule, state.revision);
        self.say(|| format!("n{node} proposes {rule}: {reason}"));
        let command = Command {
            expected: Some(serial),
            vote: judgement.vote,
            rule: rule.to_owned(),
            reason,
            at_ms: self.now,
            act,
        };
        let held_up = self.plan.has(Flaw::NoReignCheck) && self.dice.chance(300);
        let delay = if held_up {
            self.dice.between(500, 4_000)
        } else {
            self.delay()
        };
        self.after(delay, Event::Propose(node, Box::new(command)));
    }

    /// A leader that cannot hear what it needs lets another try, as the product's does.
    pub(super) fn step_aside(&mut self, node: usize, rule: &str) {
        if !matriarch::lead::is_stuck(rule) {
            self.stuck_since = None;
            return;
        }
        let since = *self.stuck_since.get_or_insert(self.now);
        if self.now - since > 5_000 {
            self.stuck_since = None;
            let to = (node + 1 + self.dice.node(2)) % 3;
            let mut raft = std::mem::take(&mut self.raft);
            raft.hand_over(node, to, self.now, &|from, to| self.hears(from, to));
            self.raft = raft;
        }
    }

    pub(super) fn propose(&mut self, node: usize, command: Command) {
        if !self.nodes[node].acts() {
            if self.nodes[node].daemon == Health::Frozen || self.nodes[node].machine == Health::Frozen {
                self.after(40, Event::Propose(node, Box::new(command)));
            }
            return;
        }
        let mut at = node;
        if self.raft.lead(node, self.now).is_none() {
            // Forwarded to whoever leads by now.
            let other = (0..3).find(|other| {
                self.raft.lead(*other, self.now).is_some()
                    && self.hears(node, *other)
                    && self.hears(*other, node)
            });
            let Some(other) = other else { return };
            at = other;
        }
        let mut raft = std::mem::take(&mut self.raft);
        let committed = raft.propose(at, command, &|from, to| self.hears(from, to));
        self.raft = raft;
        if !committed {
            return;
        }
        let entries = self.raft.log.len();
        let epoch = self.nodes[node].mind.state.epoch;
        let outcome = self.apply_up_to(at, entries);
        if at == node && matches!(outcome, Some(Outcome::Stale(_) | Outcome::Refused(_))) {
            self.nodes[node].mind.desk.release(epoch);
        }
    }

    /// Sends this node's report to every voter.
    pub(super) fn report(&mut self, node: usize) {
        let now = self.nodes[node].now(self.now);
        let ttl_ms = self.settings.ttl_ms;
        let report = self.nodes[node].report(now, ("{}", ttl_ms));
        self.nodes[node].mind.reported_at = self.now;
        self.nodes[node].mind.said = Some(report.clone());
        for to in 0..3 {
            if to != node && (!self.connects(node, to) || self.lost()) {
                continue;
            }
            let copies = if self.dice.chance(10) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = if to == node { 0 } else { self.delay() };
                self.after(delay, Event::Report(to, Box::new(report.clone())));
            }
        }
    }

    pub(super) fn take_report(&mut self, to: usize, report: Box<Report>) {
        if self.nodes[to].machine == Health::Frozen || self.nodes[to].daemon == Health::Frozen {
            self.after(30, Event::Report(to, report));
            return;
        }
        if !self.nodes[to].acts() {
            return;
        }
        let now = self.nodes[to].now(self.now);
        let asker = super::node::index(report.member());
        let (sent_at, asks) = match report.tenure {
            Tenure::Holding { epoch } => (report.sent_at, Some(epoch)),
            _ => (report.sent_at, None),
        };
        let mind = &self.nodes[to].mind;
        let _ = mind.desk.hear(*report, &mind.state, &self.settings, now);
        if self.lead(to).is_some() {
            let delay = self.dice.between(1, 4);
            self.after(delay, Event::Confirm(to, asker, asks, sent_at));
        }
    }

    pub(super) fn answer(&mut self, leader: usize, asker: usize, asks: Option<Epoch>, sent_at: Moment) {
        if self.nodes[leader].machine == Health::Frozen || self.nodes[leader].daemon == Health::Frozen {
            self.after(30, Event::Confirm(leader, asker, asks, sent_at));
            return;
        }
        if !self.nodes[leader].acts() {
            return;
        }
        let confirmed = self.plan.has(Flaw::AnswersWithoutQuorum)
            || self.raft.lead(leader, self.now).is_some()
                && self.raft.confirm(leader, &|from, to| self.hears(from, to));
        if asks.is_some() && !confirmed {
            return;
        }
        let now = self.nodes[leader].now(self.now);
        let mind = &self.nodes[leader].mind;
        let name = super::node::name(asker);
        let grant = asks.and_then(|epoch| mind.desk.grant(&name, epoch, &mind.state, now));
        let reply = Reply {
            sent_at,
            revision: mind.state.revision,
            grant,
            digest: mind.desk.digest(now),
        };
        if asker != leader && (!self.connects(leader, asker) || self.lost()) {
            return;
        }
        let delay = self.delay();
        self.after(delay, Event::Answer(asker, Box::new(reply)));
    }

    pub(super) fn take_answer(&mut self, to: usize, reply: Reply) {
        if self.nodes[to].machine == Health::Frozen || self.nodes[to].daemon == Health::Frozen {
            self.after(30, Event::Answer(to, Box::new(reply)));
            return;
        }
        if !self.nodes[to].acts() {
            return;
        }
        let now = self.nodes[to].now(self.now);
        if let Some(grant) = reply.grant {
            let from = if self.plan.has(Flaw::DeadlineFromReceipt) {
                now
            } else {
                reply.sent_at
            };
            self.nodes[to].accept(grant, lease::deadline(from, grant.ttl_ms));
        }
        self.nodes[to].mind.word = super::node::Word {
            at: now,
            revision: reply.revision,
            digest: reply.digest,
        };
    }
}
