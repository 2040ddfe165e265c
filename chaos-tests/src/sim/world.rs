//! The world of a run: three machines, a network between them, a queue of what happens next, and faults.
//!
//! Time is true time in milliseconds; every machine has its own clock, which runs up to half a per cent fast or slow.
//! Nothing here decides anything about primacy: that is the product's own `apply`, `Desk` (plan, grants) and `duty`.

use super::agent;
use super::dice::Dice;
use super::judge::{Judge, Told};
use super::node::{Health, Ledger, Mind, Node};
use super::raft::{ELECTION_MIN_MS, Group, Voter};
use super::server::{Copy, Life, Record, Sender, Server};
use super::{Flaw, Plan};
use matriarch::cluster::{
    Command, Epoch, Grant, Moment, Outcome, Report, Revision, Seen, Settings, SyncMode, Tenure, apply,
};
use matriarch::decide::lease;
use matriarch::decide::rules::Verdict;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// The node loop passes.
    Pass(usize),
    /// Heartbeats and elections.
    Raft(usize),
    /// The guard looks at its deadline.
    Guard(usize),
    /// A stream carries what there is.
    Stream(usize),
    /// The leader judges.
    Judge(usize),
    /// Clients write.
    Clients,
    /// A report arrives.
    Report(usize, Box<Report>),
    /// The leader has confirmed, or not, that it leads, and answers.
    Confirm(usize, usize, Option<Epoch>, Moment),
    /// An answer arrives.
    Answer(usize, Box<Reply>),
    /// A decision is proposed.
    Propose(usize, Box<Command>),
    /// Records arrive at a standby.
    Wal(usize, u64, usize, Vec<Record>),
    /// A standby's position arrives at the primary.
    Flushed(usize, u64, usize),
    /// A promotion comes about.
    Promoted(usize, i32, Epoch, u32),
    /// Something breaks.
    Fault,
    /// A fault is over.
    Mend(usize, Fault),
}

/// What a leader answers.
#[derive(Debug)]
pub(super) struct Reply {
    sent_at: Moment,
    revision: Revision,
    grant: Option<Grant>,
    digest: Vec<Seen>,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    DaemonDead,
    DaemonFrozen,
    GuardFrozen,
    GuardDead,
    Postmaster,
    MachineDead,
    MachineFrozen,
    CutOff,
    Deaf,
    Mute,
    Lossy,
    AllDead,
    StandbyCut,
    OneLink,
}

const FAULTS: [Fault; 14] = [
    Fault::DaemonDead,
    Fault::DaemonFrozen,
    Fault::GuardFrozen,
    Fault::GuardDead,
    Fault::Postmaster,
    Fault::MachineDead,
    Fault::MachineFrozen,
    Fault::CutOff,
    Fault::Deaf,
    Fault::Mute,
    Fault::Lossy,
    Fault::AllDead,
    Fault::StandbyCut,
    Fault::OneLink,
];

/// One run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) settings: Settings,
    pub(super) now: u64,
    pub(super) dice: Dice,
    pub(super) nodes: Vec<Node>,
    pub(super) raft: Group,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    serial: u64,
    /// Whether anything gets from one node to another.
    links: [[bool; 3]; 3],
    lossy: bool,
    /// The only stream that is cut although its node is well.
    pub(super) stream_cut: Option<usize>,
    pub(super) judge: Judge,
    ids: u64,
    /// What happened, for people.
    pub trace: Vec<String>,
    /// Since when the leader cannot hear what it needs.
    stuck_since: Option<u64>,
    /// The newest acknowledgement through an open gate.
    served_at: u64,
    opened: std::collections::BTreeSet<Epoch>,
}

impl World {
    /// Three empty machines.
    pub fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed);
        let settings = Settings {
            ttl_ms: if plan.has(Flaw::PromiseIsForgotten) {
                20_000
            } else {
                2_000
            },
            synchronous_mode: plan.mode,
            ..Settings::default()
        };
        let nodes = (0..3)
            .map(|index| Node {
                index,
                machine: Health::Well,
                daemon: Health::Well,
                guard: Health::Well,
                clock: (dice.between(10_000, 90_000_000), dice.between(995, 1_005)),
                blind: plan.has(Flaw::OrphansAreNotReaped),
                ledger: Ledger::default(),
                server: Server::empty(),
                mind: Mind::new(dice.below(u64::MAX)),
                armed: None,
                guard_seen_at: Moment(0),
            })
            .collect();
        let voters = (0..3)
            .map(|_| Voter {
                patience: dice.between(ELECTION_MIN_MS, 400),
                ..Voter::default()
            })
            .collect();
        let mut world = Self {
            plan,
            settings,
            now: 1_000,
            dice,
            nodes,
            raft: Group {
                voters,
                log: Vec::new(),
            },
            queue: BinaryHeap::new(),
            events: std::collections::HashMap::new(),
            serial: 0,
            links: [[true; 3]; 3],
            lossy: false,
            stream_cut: None,
            judge: Judge::default(),
            ids: 0,
            trace: Vec::new(),
            stuck_since: None,
            served_at: 0,
            opened: std::collections::BTreeSet::new(),
        };
        for node in 0..3 {
            world.after(1, Event::Pass(node));
            world.after(2, Event::Raft(node));
            world.after(3, Event::Guard(node));
            world.after(4, Event::Stream(node));
            world.after(5, Event::Judge(node));
        }
        world.after(6, Event::Clients);
        world.after(6_000, Event::Fault);
        world
    }

    pub(super) fn after(&mut self, ms: u64, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse((self.now + ms, self.serial)));
        self.events.insert(self.serial, event);
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.plan.trace {
            let line = format!("{:>7} {}", self.now, what());
            self.trace.push(line);
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whether a connection carries anything: without the way back nothing is acknowledged, and it stands still.
    fn connects(&self, one: usize, other: usize) -> bool {
        self.links[one][other] && self.links[other][one]
    }

    /// Whether what one daemon sends reaches the other.
    pub(super) fn hears(&self, from: usize, to: usize) -> bool {
        self.links[from][to] && self.nodes[from].acts() && self.nodes[to].acts()
    }

    /// Whether the network carries from one machine to the other.
    pub(super) fn carries(&self, from: usize, to: usize) -> bool {
        self.links[from][to]
            && self.nodes[from].machine == Health::Well
            && self.nodes[to].machine == Health::Well
    }

    fn delay(&mut self) -> u64 {
        if self.plan.has(Flaw::DeadlineFromReceipt) || self.plan.has(Flaw::AnswersWithoutQuorum) {
            return self.dice.between(1, 900);
        }
        if self.dice.chance(if self.lossy { 200 } else { 5 }) {
            self.dice.between(50, 600)
        } else {
            self.dice.between(1, 5)
        }
    }

    fn lost(&mut self) -> bool {
        self.lossy && self.dice.chance(200)
    }

    /// Runs to the end; says what was broken, if anything.
    pub fn run(&mut self) -> Result<(), String> {
        let calm_at = self.plan.faults_ms;
        let end = calm_at + self.plan.calm_ms;
        let mut healed = false;
        while let Some(Reverse((at, serial))) = self.queue.pop() {
            self.now = at;
            let Some(event) = self.events.remove(&serial) else {
                continue;
            };
            if at > calm_at && !healed {
                healed = true;
                self.heal();
            }
            self.happen(event);
            if let Some(what) = &self.judge.broken {
                return Err(format!("at {at} ms: {what}"));
            }
            if healed && self.served_at > calm_at + 2_000 {
                return Ok(());
            }
            if at > end {
                break;
            }
        }
        let lead = (0..3).find_map(|node| self.raft.lead(node, self.now));
        Err(format!(
            "P5: nothing is acknowledged {} ms after the last fault; Raft: {lead:?}; {}",
            self.plan.calm_ms,
            self.portrait()
        ))
    }

    /// How much time has passed in it.
    pub fn time_ms(&self) -> u64 {
        self.now
    }

    fn portrait(&self) -> String {
        let one = |node: &Node| {
            format!(
                "n{} {:?}/{:?} {:?} owes {:?} end {:?} standing {:?}",
                node.index,
                node.daemon,
                node.server.life,
                node.mind.state.primacy,
                node.mind.duty,
                node.server.copy.as_ref().map(Copy::end),
                node.mind.desk.standing().reason,
            )
        };
        self.nodes.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass(node) => {
                if self.nodes[node].acts() {
                    agent::pass(self, node);
                }
                let tick = self.dice.between(30, 60);
                self.after(tick, Event::Pass(node));
            }
            Event::Raft(node) => self.raft_tick(node),
            Event::Guard(node) => self.guard_tick(node),
            Event::Stream(node) => {
                self.stream(node);
                self.after(15, Event::Stream(node));
            }
            Event::Judge(node) => self.judge_tick(node),
            Event::Clients => self.clients(),
            Event::Report(to, report) => self.take_report(to, report),
            Event::Confirm(leader, asker, epoch, sent_at) => self.answer(leader, asker, epoch, sent_at),
            Event::Answer(to, reply) => self.take_answer(to, *reply),
            Event::Propose(node, command) => self.propose(node, *command),
            Event::Wal(node, connection, from, records) => self.wal(node, connection, from, &records),
            Event::Flushed(node, connection, records) => {
                if self.nodes[node].machine == Health::Frozen {
                    self.after(20, Event::Flushed(node, connection, records));
                    return;
                }
                let ids = self.nodes[node].server.flushed(connection, records);
                self.tell(node, &ids);
            }
            Event::Promoted(node, run, epoch, timeline) => self.promoted(node, run, epoch, timeline),
            Event::Fault => self.fault(),
            Event::Mend(node, fault) => self.mend(node, fault),
        }
    }

    // ---- Raft, reports, leases

    fn raft_tick(&mut self, node: usize) {
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
    fn lead(&self, node: usize) -> Option<matriarch::cluster::Vote> {
        if self.plan.has(Flaw::AnswersWithoutQuorum) {
            return self.raft.lead(node, self.raft.voters[node].answered_at);
        }
        self.raft.lead(node, self.now)
    }

    fn apply_up_to(&mut self, node: usize, entries: usize) -> Option<Outcome> {
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

    fn judge_tick(&mut self, node: usize) {
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
    fn step_aside(&mut self, node: usize, rule: &str) {
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

    fn propose(&mut self, node: usize, command: Command) {
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

    fn take_report(&mut self, to: usize, report: Box<Report>) {
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

    fn answer(&mut self, leader: usize, asker: usize, asks: Option<Epoch>, sent_at: Moment) {
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

    fn take_answer(&mut self, to: usize, reply: Reply) {
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

    // ---- Guard, streams, clients

    fn guard_tick(&mut self, node: usize) {
        self.after(20, Event::Guard(node));
        let now = self.nodes[node].now(self.now);
        let here = &mut self.nodes[node];
        if here.machine != Health::Well {
            return;
        }
        if here.guard == Health::Well {
            here.guard_seen_at = now;
        }
        let Some((epoch, deadline)) = here.armed else {
            return;
        };
        let acts = here.guard == Health::Well && !self.plan.has(Flaw::NoGuard);
        let late = if self.plan.has(Flaw::GuardIsLate) {
            1_500
        } else {
            0
        };
        if acts && now.plus(150) >= deadline.plus(late) {
            here.armed = None;
            if here.server.life == Life::Down {
                return;
            }
            here.server.end(None);
            self.say(|| format!("n{node}: the guard ends PostgreSQL of epoch {epoch}"));
        }
    }

    fn stream(&mut self, node: usize) {
        if !self.nodes[node].serves() || self.nodes[node].server.primary.is_some() {
            return;
        }
        let Some((to, plain)) = self.nodes[node].server.upstream else {
            return;
        };
        let up = self.carries(node, to)
            && self.carries(to, node)
            && self.nodes[to].serves()
            && self.nodes[to].server.is_writable()
            && self.stream_cut != Some(node);
        if let Some(copy) = &mut self.nodes[node].server.copy {
            let slow = self.plan.has(Flaw::ReplayPositionReported) && self.dice.chance(800);
            copy.replayed = (copy.replayed + if slow { 0 } else { 3 }).min(copy.log.len());
        }
        let Some((connection, _)) = self.nodes[node].server.receiver.filter(|(_, of)| *of == to) else {
            if up && self.dice.chance(200) {
                self.connect(node, to, plain);
            }
            return;
        };
        let known = self.nodes[to]
            .server
            .senders
            .iter()
            .any(|sender| sender.connection == connection);
        if !known && self.nodes[to].machine == Health::Well && self.carries(to, node) {
            self.nodes[node].server.receiver = None;
            return;
        }
        let have = self.nodes[node]
            .server
            .copy
            .as_ref()
            .map_or(0, |copy| copy.log.len());
        if up && let Some(source) = &self.nodes[to].server.copy {
            let news = source.log.get(have..).unwrap_or_default().to_vec();
            let delay = self.dice.between(1, 12);
            self.after(delay, Event::Wal(node, connection, have, news));
        }
        let now = self.now;
        let names = self.nodes[to].server.names.clone();
        for sender in &mut self.nodes[to].server.senders {
            if sender.reads_at <= now {
                sender.names.clone_from(&names);
            }
        }
    }

    fn connect(&mut self, node: usize, to: usize, plain: bool) {
        let Some(source) = self.nodes[to].server.copy.clone() else {
            return;
        };
        let Some(copy) = &self.nodes[node].server.copy else {
            return;
        };
        if !source.admits(copy) {
            return;
        }
        if !source.contains(&copy.log) {
            let why = format!("n{node} follows n{to} although their logs have parted");
            self.judge.accuse(|| why);
        }
        let flushed = copy.log.len();
        let connection = self.next_id();
        let here = &mut self.nodes[node].server;
        if let Some(copy) = &mut here.copy {
            copy.timeline = source.timeline;
            copy.forks = source.forks;
        }
        here.receiver = Some((connection, to));
        let there = &mut self.nodes[to].server;
        there.senders.retain(|sender| sender.to != node);
        there.senders.push(Sender {
            to: node,
            connection,
            plain,
            flushed,
            names: there.names.clone(),
            reads_at: 0,
        });
        self.after(2, Event::Flushed(to, connection, flushed));
    }

    fn wal(&mut self, node: usize, connection: u64, from: usize, records: &[Record]) {
        if !self.nodes[node].serves() {
            return;
        }
        let torn = self.dice.chance(50);
        let server = &mut self.nodes[node].server;
        let Some((_, to)) = server.receiver.filter(|(of, _)| *of == connection) else {
            return;
        };
        let Some(copy) = &mut server.copy else { return };
        let known = copy.log.len().saturating_sub(from);
        copy.log
            .extend_from_slice(records.get(known..).unwrap_or_default());
        copy.torn = torn;
        let flushed = copy.log.len();
        if self.connects(node, to) && !self.lost() {
            let delay = self.delay();
            self.after(delay, Event::Flushed(to, connection, flushed));
        }
    }

    /// Every client writes where it finds a primary: through an open gate, or right at each server.
    fn clients(&mut self) {
        self.after(25, Event::Clients);
        for node in 0..3 {
            let here = &self.nodes[node];
            let orphan = matches!(here.server.life, Life::Orphans(until) if self.now < until);
            let alive = here.machine == Health::Well && (here.server.is_writable() || orphan);
            if !alive || here.server.primary.is_none() || self.dice.chance(300) {
                continue;
            }
            self.write(node);
        }
        for node in 0..3 {
            if let Life::Orphans(until) = self.nodes[node].server.life
                && self.now >= until
            {
                self.nodes[node].server.end(None);
            }
        }
    }

    /// Writes one record and tells the client, now or once enough standbys have it.
    pub(super) fn write(&mut self, node: usize) -> usize {
        let id = self.next_id();
        let told = self.nodes[node].server.write(id);
        let (timeline, records) = self.nodes[node]
            .server
            .copy
            .as_ref()
            .map_or((0, 0), |copy| (copy.timeline, copy.log.len()));
        if !self.plan.has(Flaw::RewindIsSkipped) {
            self.judge.writes(timeline, node);
        }
        if told {
            self.tell(node, &[id]);
        }
        records
    }

    pub(super) fn tell(&mut self, node: usize, ids: &[u64]) {
        let Some(epoch) = self.nodes[node].server.primary else {
            return;
        };
        if ids.is_empty() {
            return;
        }
        let (now, at) = (self.nodes[node].now(self.now), self.now);
        let past = self.nodes[node]
            .armed
            .is_some_and(|(_, deadline)| now >= deadline);
        if past && self.plan.mode == SyncMode::Off {
            self.judge
                .accuse(|| format!("P4: n{node} acknowledged at {at} ms, past the deadline of its lease"));
        }
        if self.plan.mode == SyncMode::Off {
            let other = (0..3).find(|other| {
                *other != node && self.nodes[*other].serves() && self.nodes[*other].server.is_writable()
            });
            if let Some(other) = other {
                self.judge
                    .accuse(|| format!("P1: n{node} acknowledged while n{other} accepts writes as well"));
            }
        }
        for id in ids {
            let told = Told {
                id: *id,
                node,
                epoch,
                at,
            };
            let newest = self.nodes.iter().filter(|other| other.server.is_writable());
            let newest = newest.max_by_key(|other| other.server.primary);
            let synchronous = self.plan.mode != SyncMode::Off;
            let inherited = || {
                let log = newest.and_then(|other| other.server.copy.as_ref());
                synchronous && log.is_some_and(|copy| copy.log.iter().any(|record| record.id == *id))
            };
            self.judge.told(told, inherited);
        }
        if self.nodes[node].mind.risen == Some(epoch) {
            self.served_at = self.now;
        }
    }

    /// Clients are let in: the primary must have everything.
    pub(super) fn open_gate(&mut self, node: usize, epoch: Epoch) {
        if !self.opened.insert(epoch) {
            return;
        }
        if self.plan.mode != SyncMode::Off
            && let Some(copy) = &self.nodes[node].server.copy
        {
            self.judge.opens(node, &copy.log);
        }
    }

    fn promoted(&mut self, node: usize, run: i32, epoch: Epoch, timeline: u32) {
        let frozen = self.nodes[node].machine == Health::Frozen;
        let server = &mut self.nodes[node].server;
        if server.run != run || server.life != Life::Up || server.primary.is_some() {
            return;
        }
        if frozen {
            self.after(20, Event::Promoted(node, run, epoch, timeline));
            return;
        }
        let Some(copy) = &mut server.copy else { return };
        copy.torn = false;
        let known = copy
            .forks
            .iter()
            .map(|(of, ..)| *of)
            .max()
            .unwrap_or(1)
            .max(copy.timeline);
        let collide = self.plan.has(Flaw::TimelinesCollide) || self.plan.has(Flaw::RewindIsSkipped);
        let number = if collide { known + 1 } else { timeline };
        copy.forks.push((number, copy.timeline, copy.log.len()));
        copy.timeline = number;
        server.primary = Some(epoch);
        server.receiver = None;
        self.judge.begins(epoch, node);
        self.say(|| format!("n{node} is promoted in epoch {epoch} to timeline {number}"));
    }

    // ---- Faults

    fn fault(&mut self) {
        if self.now > self.plan.faults_ms {
            return;
        }
        let pause = self.dice.between(200, 4_000);
        self.after(pause, Event::Fault);
        let mut node = self.dice.node(3);
        if self.dice.chance(500)
            && let Some(primary) = (0..3).find(|node| self.nodes[*node].server.is_writable())
        {
            node = primary;
        }
        let fault = FAULTS[usize::try_from(self.dice.below(FAULTS.len() as u64)).unwrap_or(0)];
        let lasts = self.dice.between(100, 7_000);
        match fault {
            Fault::DaemonDead
                if self.nodes[node].machine == Health::Well && self.nodes[node].guard == Health::Well =>
            {
                self.nodes[node].daemon = Health::Dead;
                self.forget(node);
            }
            Fault::DaemonFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].daemon = Health::Frozen;
            }
            Fault::GuardFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].guard = Health::Frozen;
            }
            Fault::GuardDead => self.nodes[node].server.end(None),
            Fault::Postmaster => {
                let longest = if self.plan.has(Flaw::OrphansAreNotReaped) {
                    1_500
                } else {
                    60
                };
                let until = self.now + self.dice.between(5, longest);
                if self.nodes[node].server.life == Life::Up {
                    self.nodes[node].server.end(Some(until));
                }
            }
            Fault::MachineDead => self.crash(node),
            Fault::MachineFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].machine = Health::Frozen
            }
            Fault::CutOff => {
                for other in (0..3).filter(|other| *other != node) {
                    self.links[node][other] = false;
                    self.links[other][node] = false;
                }
            }
            Fault::Deaf => (0..3)
                .filter(|other| *other != node)
                .for_each(|other| self.links[other][node] = false),
            Fault::Mute => (0..3)
                .filter(|other| *other != node)
                .for_each(|other| self.links[node][other] = false),
            Fault::Lossy => self.lossy = true,
            Fault::AllDead if self.dice.chance(300) => (0..3).for_each(|node| self.crash(node)),
            Fault::StandbyCut => self.stream_cut = Some(node),
            Fault::OneLink => {
                let other = (node + 1) % 3;
                self.links[node][other] = false;
                self.links[other][node] = false;
            }
            _ => return,
        }
        self.say(|| format!("n{node}: {fault:?} for {lasts} ms"));
        self.after(lasts, Event::Mend(node, fault));
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].machine = Health::Dead;
        self.nodes[node].server.end(None);
        self.nodes[node].armed = None;
        self.forget(node);
    }

    /// The daemon's memory is gone; so is what a proposal of it had begun.
    fn forget(&mut self, node: usize) {
        let run = self.dice.below(u64::MAX);
        self.nodes[node].mind = Mind::new(run);
        self.raft.voters[node].applied = 0;
        self.raft.voters[node].leads = None;
        self.raft.voters[node].heard_at = self.now;
        if self.plan.has(Flaw::PromiseIsForgotten) {
            self.nodes[node].ledger.promised = Epoch(0);
        }
    }

    fn mend(&mut self, node: usize, fault: Fault) {
        let restart = |here: &mut Node| {
            if here.machine == Health::Dead {
                here.machine = Health::Well;
            }
            if here.daemon == Health::Dead || here.server.life != Life::Up {
                here.take_over();
            }
            here.daemon = Health::Well;
            here.guard = Health::Well;
        };
        match fault {
            Fault::AllDead => self.nodes.iter_mut().for_each(restart),
            Fault::DaemonDead | Fault::MachineDead => restart(&mut self.nodes[node]),
            Fault::DaemonFrozen if self.nodes[node].daemon == Health::Frozen => {
                self.nodes[node].daemon = Health::Well;
            }
            Fault::GuardFrozen if self.nodes[node].guard == Health::Frozen => {
                self.nodes[node].guard = Health::Well
            }
            Fault::MachineFrozen if self.nodes[node].machine == Health::Frozen => {
                self.nodes[node].machine = Health::Well;
                // The guard runs with real-time priority: it looks first.
                self.guard_now(node);
            }
            Fault::CutOff | Fault::Deaf | Fault::Mute | Fault::OneLink => self.links = [[true; 3]; 3],
            Fault::Lossy => self.lossy = false,
            Fault::StandbyCut => self.stream_cut = None,
            _ => {}
        }
    }

    fn guard_now(&mut self, node: usize) {
        let serial = self.serial;
        self.guard_tick(node);
        // It has its own turn already; this one was out of turn.
        self.events
            .retain(|number, event| *number <= serial || !matches!(event, Event::Guard(of) if *of == node));
    }

    fn heal(&mut self) {
        self.say(|| "all faults are over".to_owned());
        self.links = [[true; 3]; 3];
        self.lossy = false;
        self.stream_cut = None;
        if self.plan.one_way_for_ever {
            self.links[0][1] = false;
        }
        for node in 0..3 {
            for fault in FAULTS {
                let links = self.links;
                self.mend(node, fault);
                self.links = links;
            }
        }
    }
}
