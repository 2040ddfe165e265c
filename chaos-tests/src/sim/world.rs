//! The world of a run: three machines, a network between them, a queue of what happens next, and faults.
//!
//! Time is true time in milliseconds; every machine has its own clock, which runs up to half a per cent fast or slow.
//! Nothing here decides anything about primacy: that is the product's own `apply`, `Desk` (plan, grants) and `duty`.

use super::agent;
use super::dice::Dice;
use super::judge::Judge;
use super::node::{Health, Ledger, Mind, Node};
use super::raft::{ELECTION_MIN_MS, Group, Voter};
use super::server::{Copy, Record, Server};
use super::{Flaw, Plan};
use matriarch::cluster::{Command, Epoch, Grant, Moment, Report, Revision, Seen, Settings};
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
    pub(super) sent_at: Moment,
    pub(super) revision: Revision,
    pub(super) grant: Option<Grant>,
    pub(super) digest: Vec<Seen>,
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

pub(super) const FAULTS: [Fault; 14] = [
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
    pub(super) events: std::collections::HashMap<u64, Event>,
    pub(super) serial: u64,
    /// Whether anything gets from one node to another.
    pub(super) links: [[bool; 3]; 3],
    pub(super) lossy: bool,
    /// The only stream that is cut although its node is well.
    pub(super) stream_cut: Option<usize>,
    pub(super) judge: Judge,
    ids: u64,
    /// What happened, for people.
    pub trace: Vec<String>,
    /// Since when the leader cannot hear what it needs.
    pub(super) stuck_since: Option<u64>,
    /// The newest acknowledgement through an open gate.
    pub(super) served_at: u64,
    pub(super) opened: std::collections::BTreeSet<Epoch>,
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
    pub(super) fn connects(&self, one: usize, other: usize) -> bool {
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

    pub(super) fn delay(&mut self) -> u64 {
        if self.plan.has(Flaw::DeadlineFromReceipt) || self.plan.has(Flaw::AnswersWithoutQuorum) {
            return self.dice.between(1, 900);
        }
        if self.dice.chance(if self.lossy { 200 } else { 5 }) {
            self.dice.between(50, 600)
        } else {
            self.dice.between(1, 5)
        }
    }

    pub(super) fn lost(&mut self) -> bool {
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

    pub(super) fn portrait(&self) -> String {
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

    pub(super) fn happen(&mut self, event: Event) {
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
}
