//! The world of one run: everything there is, and the loop that lets one event happen after the other.

use super::bend::Bend;
use super::clients::Client;
use super::faults::Fault;
use super::net::Net;
use super::node::{Clock, Daemon, Guard, Node};
use super::oracle::Oracle;
use super::raft;
use super::random::Dice;
use super::streams::Stream;
use matriarch::cluster::{Answer, Command, Report, Settings, State, SyncMode};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

/// Between two looks of a Raft voter at its timers.
const RAFT_TICK: u64 = 20_000;

/// What travels between daemons.
#[derive(Clone, Debug)]
pub enum Message {
    Raft(raft::Word),
    Report(Box<Report>, u64),
    Reply(Option<Box<Answer>>, u64),
    Poke,
    Forward(Rc<Command>),
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    Deliver(usize, usize, Message),
    RaftTick(usize, u64),
    Pass(usize, u64, bool),
    Probe(usize, u64, bool),
    Report(usize, u64, usize),
    Lead(usize, u64, bool),
    Propose(usize, u64, Rc<Command>),
    Job(usize, u64, u64, u8),
    SyncWork(usize, u64, u64, u8),
    GuardLooks(usize, u64),
    GuardBorn(usize),
    Started(usize, u64),
    Promoted(usize, u64, u32),
    Kill(usize, u64),
    Reaped(usize, u64),
    Orphan(usize, u64),
    Flush(usize, u64, usize),
    Connect(usize, u64),
    Wal(u64, usize),
    Flushed(u64, usize),
    Feedback(u64, usize, u64),
    CloseSender(u64),
    CloseReceiver(u64),
    Client(usize),
    GiveUp(usize, u64),
    Fault(Fault),
    BootNode(usize),
    BootDaemon(usize),
    Heal,
}

/// Whom a pause holds up.
enum Owner {
    Daemon(usize),
    Machine(usize),
    Nobody,
}

/// One entry of the queue.
struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Everything.
pub struct World {
    /// Microseconds since the run began.
    pub now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    serial: u64,
    pub dice: Dice,
    pub bend: Bend,
    pub mode: SyncMode,
    pub nodes: Vec<Node>,
    pub net: Net,
    pub streams: BTreeMap<u64, Stream>,
    pub clients: Vec<Client>,
    pub oracle: Oracle,
    pub healed: bool,
    pub trace: bool,
    pub events: u64,
}

impl World {
    pub fn new(dice: Dice, bend: Bend, mode: SyncMode, nodes: usize, witnesses: usize, trace: bool) -> Self {
        let mut dice = dice;
        let clock = |dice: &mut Dice| Clock {
            since: 0,
            offset_us: dice.ms(1_000, 1_000_000_000),
            ppm: dice.between(0, 10_000) as i64 - 5_000,
        };
        let made = (0..nodes)
            .map(|me| Node::new(me, nodes, me >= nodes - witnesses, clock(&mut dice)))
            .collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            serial: 0,
            dice,
            bend,
            mode,
            nodes: made,
            net: Net::new(nodes),
            streams: BTreeMap::new(),
            clients: Vec::new(),
            oracle: Oracle::new(nodes),
            healed: false,
            trace,
            events: 0,
        }
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>10.4} {}", self.now as f64 / 1e6, what());
        }
    }

    /// A number that was never given out before.
    pub fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn after(&mut self, us: u64, event: Event) {
        let serial = self.fresh();
        self.queue.push(Reverse(Due(self.now + us, serial, event)));
    }

    /// Between `low` and `high` milliseconds from now.
    pub fn soon(&mut self, low: u64, high: u64, event: Event) {
        let us = self.dice.ms(low, high);
        self.after(us, event);
    }

    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let raft = matches!(message, Message::Raft(_));
        if self.net.raft_deaf[to] && raft {
            return;
        }
        for us in self.net.travel(from, to, raft, &mut self.dice) {
            self.after(us, Event::Deliver(from, to, message.clone()));
        }
    }

    pub fn send_raft(&mut self, from: usize, words: Vec<(usize, raft::Word)>) {
        for (to, word) in words {
            self.send(from, to, Message::Raft(word));
        }
    }

    /// Lets things happen until `end` or until `done`; false when a promise broke.
    pub fn run_until(&mut self, end: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        while self.oracle.broken.is_none() {
            let Some(Reverse(Due(at, _, event))) = self.queue.pop() else {
                return true;
            };
            if at > end {
                let serial = self.fresh();
                self.queue.push(Reverse(Due(at, serial, event)));
                self.now = end;
                return true;
            }
            self.now = at;
            if let Some(until) = self.held_up(&event) {
                self.after(until - self.now, event);
                continue;
            }
            self.events += 1;
            self.happen(event);
            if done(self) {
                return self.oracle.broken.is_none();
            }
        }
        false
    }

    fn held_up(&self, event: &Event) -> Option<u64> {
        let until = match self.owner(event) {
            Owner::Daemon(n) => self.nodes[n].paused_until.max(self.nodes[n].daemon_paused_until),
            Owner::Machine(n) => self.nodes[n].paused_until,
            Owner::Nobody => 0,
        };
        (until > self.now).then_some(until)
    }

    fn owner(&self, event: &Event) -> Owner {
        let end = |stream: &u64, up: bool| {
            self.streams.get(stream).map_or(Owner::Nobody, |stream| {
                Owner::Machine(if up { stream.from } else { stream.to })
            })
        };
        match event {
            Event::Deliver(_, n, _)
            | Event::RaftTick(n, _)
            | Event::Pass(n, ..)
            | Event::Probe(n, ..)
            | Event::Report(n, ..)
            | Event::Lead(n, ..)
            | Event::Propose(n, ..)
            | Event::Job(n, ..)
            | Event::SyncWork(n, ..) => Owner::Daemon(*n),
            Event::GuardLooks(n, _)
            | Event::GuardBorn(n)
            | Event::Started(n, _)
            | Event::Promoted(n, ..)
            | Event::Kill(n, _)
            | Event::Reaped(n, _)
            | Event::Orphan(n, _)
            | Event::Flush(n, ..)
            | Event::Connect(n, _) => Owner::Machine(*n),
            Event::Wal(stream, _) | Event::Flushed(stream, _) | Event::CloseReceiver(stream) => {
                end(stream, false)
            }
            Event::Feedback(stream, ..) | Event::CloseSender(stream) => end(stream, true),
            _ => Owner::Nobody,
        }
    }

    fn alive(&self, n: usize, run: u64) -> bool {
        self.nodes[n]
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.run == run)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(from, to, message) if self.nodes[to].daemon.is_some() => {
                self.deliver(from, to, message);
            }
            Event::Deliver(..) => {}
            Event::RaftTick(n, run) if self.alive(n, run) => {
                let out = self.nodes[n].raft.tick(self.now, &mut self.dice);
                self.send_raft(n, out);
                self.after_raft(n);
                self.after(RAFT_TICK, Event::RaftTick(n, run));
            }
            Event::Pass(n, run, tick) if self.alive(n, run) => self.pass(n, tick),
            Event::Probe(n, run, tick) if self.alive(n, run) => self.probe(n, tick),
            Event::Report(n, run, to) if self.alive(n, run) => self.report_to(n, to),
            Event::Lead(n, run, tick) if self.alive(n, run) => self.lead(n, tick),
            Event::Propose(n, run, command) if self.alive(n, run) => self.propose(n, command),
            Event::Job(n, run, id, stage) if self.alive(n, run) => self.work(n, id, stage),
            Event::SyncWork(n, run, id, stage) if self.alive(n, run) => self.sync_work(n, id, stage),
            Event::RaftTick(..)
            | Event::Pass(..)
            | Event::Probe(..)
            | Event::Report(..)
            | Event::Lead(..)
            | Event::Propose(..)
            | Event::Job(..)
            | Event::SyncWork(..) => {}
            Event::GuardLooks(n, run) => self.guard_looks(n, run),
            Event::GuardBorn(n) => self.guard_born(n),
            Event::Started(n, pm) => self.started(n, pm),
            Event::Promoted(n, pm, target) => self.promoted(n, pm, target),
            Event::Kill(n, pm) => self.kill_postmaster(n, pm, false),
            Event::Reaped(n, pm) => self.reaped(n, pm),
            Event::Orphan(n, pm) => self.orphan(n, pm),
            Event::Flush(n, pm, upto) => self.flush(n, pm, upto),
            Event::Connect(n, pm) => self.connect(n, pm),
            Event::Wal(stream, upto) => self.wal(stream, upto),
            Event::Flushed(stream, upto) => self.stream_flushed(stream, upto),
            Event::Feedback(stream, upto, since) => self.feedback(stream, upto, since),
            Event::CloseSender(stream) => self.close_sender(stream),
            Event::CloseReceiver(stream) => self.close_receiver(stream),
            Event::Client(client) => self.client(client),
            Event::GiveUp(client, serial) => self.give_up(client, serial),
            Event::Fault(fault) => self.fault(fault),
            Event::BootNode(n) => self.boot_node(n),
            Event::BootDaemon(n) => self.boot_daemon(n),
            Event::Heal => self.heal(),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        match message {
            Message::Raft(word) => {
                let out = self.nodes[to].raft.hear(from, word, self.now, &mut self.dice);
                self.send_raft(to, out);
                self.after_raft(to);
            }
            Message::Report(report, serial) => self.receive(from, to, *report, serial),
            Message::Reply(answer, serial) => self.replied(from, to, answer, serial),
            Message::Poke => self.poked(to),
            Message::Forward(command) => {
                if let Some((_, _, out)) = self.nodes[to].raft.propose(command, self.now) {
                    self.send_raft(to, out);
                    self.after_raft(to);
                }
            }
        }
    }

    /// The beginning: agreed long ago, `a` was primary of epoch 1, then everything was switched off.
    pub fn begin(&mut self, state: State, settings: Settings) {
        let (state, settings) = (Rc::new(state), Rc::new(settings));
        self.oracle.learn(&state);
        for n in 0..self.nodes.len() {
            self.nodes[n].state = state.clone();
            self.nodes[n].settings = settings.clone();
            self.nodes[n].up = false;
            self.soon(0, 300, Event::BootNode(n));
        }
    }

    pub fn boot_node(&mut self, n: usize) {
        if self.nodes[n].up {
            return;
        }
        let rebooted = self.now > 400_000;
        let offset_us = self.dice.ms(1_000, 20_000);
        let now = self.now;
        let node = &mut self.nodes[n];
        node.up = true;
        if rebooted {
            // The boot-time clock begins anew.
            node.clock = Clock {
                since: now,
                offset_us,
                ..node.clock
            };
        }
        self.boot_daemon(n);
    }

    pub fn boot_daemon(&mut self, n: usize) {
        if !self.nodes[n].up || self.nodes[n].daemon.is_some() {
            return;
        }
        let run = self.fresh();
        let now = self.now;
        let voters = self.nodes.len();
        self.nodes[n].raft.reboot(now, &mut self.dice);
        let node = &mut self.nodes[n];
        let moment = node.clock.at(now);
        let mut daemon = Daemon::new(run, voters, node.info(), moment);
        daemon.desk.note_state(&node.state, moment);
        if node.guard.is_none() && !node.witness {
            node.guard = Some(Guard {
                run,
                ..Guard::default()
            });
        }
        if let (true, Some((epoch, until))) = (node.pg.is_up(), node.guard.and_then(|guard| guard.armed)) {
            daemon.tenancy.epoch = epoch;
            daemon.tenancy.until = until;
            daemon.tenancy.armed = Some(epoch);
            daemon.running = Some(epoch);
        }
        node.daemon = Some(Box::new(daemon));
        self.say(|| format!("{n}: daemon starts"));
        self.soon(0, 20, Event::RaftTick(n, run));
        self.soon(0, 20, Event::Pass(n, run, true));
        self.soon(0, 20, Event::Lead(n, run, true));
        self.soon(0, 20, Event::Probe(n, run, true));
        for to in 0..voters {
            self.soon(0, 50, Event::Report(n, run, to));
        }
        self.note_reach();
    }

    /// What was committed is applied; what waited for it goes on.
    pub fn after_raft(&mut self, n: usize) {
        loop {
            let node = &mut self.nodes[n];
            if node.raft.applied >= node.raft.commit {
                break;
            }
            let entry = node.raft.log[node.raft.applied].clone();
            node.raft.applied += 1;
            self.apply(n, entry);
        }
        self.grant_confirmed(n);
    }

    pub fn moment(&self, n: usize) -> matriarch::cluster::Moment {
        self.nodes[n].clock.at(self.now)
    }

    pub fn daemon(&mut self, n: usize) -> Option<&mut Daemon> {
        self.nodes[n].daemon.as_deref_mut()
    }

    /// The node loop of `n` looks again at once.
    pub fn wake(&mut self, n: usize) {
        let Some(daemon) = self.daemon(n) else { return };
        if !std::mem::replace(&mut daemon.pass_due, true) {
            let run = daemon.run;
            self.after(200, Event::Pass(n, run, false));
        }
    }

    /// The newest agreed state that anybody applied.
    pub fn agreed(&self) -> &Rc<State> {
        let newest = self
            .nodes
            .iter()
            .map(|node| &node.state)
            .max_by_key(|state| state.revision);
        newest.unwrap_or(&self.nodes[0].state)
    }
}
