//! What runs without the daemons: guards, streams, clients and what they are told.

use super::Flaw;
use super::judge::Told;
use super::node::Health;
use super::server::{Life, Record, Sender};
use super::world::{Event, World};
use matriarch::cluster::{Epoch, SyncMode};

impl World {
    pub(super) fn guard_tick(&mut self, node: usize) {
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

    pub(super) fn stream(&mut self, node: usize) {
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

    pub(super) fn connect(&mut self, node: usize, to: usize, plain: bool) {
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

    pub(super) fn wal(&mut self, node: usize, connection: u64, from: usize, records: &[Record]) {
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
    pub(super) fn clients(&mut self) {
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

    pub(super) fn promoted(&mut self, node: usize, run: i32, epoch: Epoch, timeline: u32) {
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
}
