//! The promises, each checked at the event that could break it.

use super::postgres::Proc;
use super::world::World;
use matriarch::cluster::{Command, Epoch, Outcome, Revision, State, SyncMode, Vote};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What was seen, and the first promise that broke.
pub struct Oracle {
    pub broken: Option<String>,
    /// Records that somebody was told of, or could read at a gate, and in which epoch.
    must: BTreeMap<u64, Epoch>,
    /// Gates that opened: epoch, node, everything in its log.
    served: Vec<(Epoch, usize, HashSet<u64>)>,
    /// How each epoch came about: the rule, and whether commits waited for standbys.
    epochs: BTreeMap<Epoch, (String, bool)>,
    /// Epochs that an operator said rows may be lost for.
    lossy: BTreeSet<Epoch>,
    /// Since when a node's file has said that it is never to be promoted.
    pub tagged_since: Vec<Option<u64>>,
    pub scheduled: u64,
    pub taken_out: u64,
    postmasters: BTreeMap<Epoch, (usize, u64)>,
    timelines: BTreeMap<u32, usize>,
    /// Since when a node has had no way to a majority.
    cut_since: Vec<Option<u64>>,
    /// Machines that stood still: nothing bounds what they answer then.
    pub stood_still: Vec<bool>,
    longest_ttl_ms: u64,
    pub acknowledged: u64,
    pub gate_answer_at: u64,
    pub gates: u64,
    pub handovers: u64,
    /// A pause was agreed in this story.
    pub paused: bool,
    /// Since when every primary has had a deadline; `None` while a pause lasts.
    bounded_since: Option<u64>,
}

impl Oracle {
    pub fn new(nodes: usize) -> Self {
        Self {
            broken: None,
            must: BTreeMap::new(),
            served: Vec::new(),
            epochs: BTreeMap::new(),
            lossy: BTreeSet::new(),
            tagged_since: vec![None; nodes],
            scheduled: 0,
            taken_out: 0,
            postmasters: BTreeMap::new(),
            timelines: BTreeMap::new(),
            cut_since: vec![None; nodes],
            stood_still: vec![false; nodes],
            longest_ttl_ms: 0,
            acknowledged: 0,
            gate_answer_at: 0,
            gates: 0,
            handovers: 0,
            paused: false,
            bounded_since: Some(0),
        }
    }

    /// Epochs that began because an operator wanted it.
    pub fn handed_over(&self) -> u64 {
        let by_order =
            |(rule, _): &&(String, bool)| ["switchover", "manual failover"].contains(&rule.as_str());
        self.epochs.values().filter(by_order).count() as u64
    }

    /// Whether an operator accepted a loss, and it came to that.
    pub fn gives_up(&self) -> bool {
        !self.lossy.is_empty()
    }

    /// An operator's explicit word: what was acknowledged before may be lost with it.
    pub fn may_lose(&mut self, epoch: Epoch) {
        self.lossy.insert(epoch);
    }

    pub fn learn(&mut self, state: &State) {
        self.longest_ttl_ms = self.longest_ttl_ms.max(state.ttl_ms);
        let rule = state
            .events
            .last()
            .map(|event| event.rule.clone())
            .unwrap_or_default();
        self.epochs
            .entry(state.epoch)
            .or_insert((rule, state.sync.is_on()));
    }
}

impl World {
    pub fn break_promise(&mut self, what: String) {
        self.say(|| format!("BROKEN {what}"));
        self.oracle.broken.get_or_insert(what);
    }

    /// P6: what was decided on another revision or under another vote changes nothing.
    pub fn check_applied(
        &mut self,
        n: usize,
        command: &Command,
        vote: Vote,
        before: Revision,
        outcome: &Outcome,
    ) {
        let applied = matches!(outcome, Outcome::Applied(_));
        if applied && (command.vote != vote || command.expected.is_some_and(|expected| expected != before)) {
            self.break_promise(format!("P6: {n} applied a stale {:?}", command.act));
        }
    }

    /// In a pause a primary has no deadline.
    pub fn note_pause(&mut self) {
        let unbounded = self.agreed().pause.is_unbounded();
        self.oracle.paused |= unbounded;
        self.oracle.bounded_since = match self.oracle.bounded_since {
            _ if unbounded => None,
            since => since.or(Some(self.now)),
        };
    }

    /// A server accepts writes from now on.
    pub fn writable(&mut self, n: usize, epoch: Epoch) {
        let pm = self.nodes[n].pg.pm;
        let first = *self.oracle.postmasters.entry(epoch).or_insert((n, pm));
        if first != (n, pm) {
            self.break_promise(format!(
                "P6: epoch {epoch} has a second postmaster, at {n}, after {first:?}"
            ));
        }
        self.check_alone(n, epoch);
    }

    fn check_alone(&mut self, n: usize, epoch: Epoch) {
        if self.mode != SyncMode::Off {
            return;
        }
        let other = (0..self.nodes.len()).find(|m| *m != n && self.nodes[*m].pg.proc == Proc::Primary);
        if let Some(other) = other {
            let of = self.nodes[other].pg.epoch;
            self.break_promise(format!(
                "P1: {n} accepts writes in epoch {epoch} while {other} does in epoch {of:?}"
            ));
        }
    }

    /// A client is told that its write is done.
    pub fn acknowledged(&mut self, n: usize, id: u64, epoch: Epoch) {
        self.oracle.acknowledged += 1;
        self.check_alone(n, epoch);
        let allowed = self.oracle.longest_ttl_ms * 1_006 + 5_000;
        let bounded = self.oracle.bounded_since;
        let since = self.oracle.cut_since[n].and_then(|since| Some(since.max(bounded?)));
        if let Some(since) = since.filter(|since| self.now > since + allowed)
            && !self.oracle.stood_still[n]
        {
            let ms = (self.now - since) / 1_000;
            self.break_promise(format!("P4: {n} acknowledges {ms} ms after it lost the majority"));
        }
        let later = self.oracle.served.iter().find(|(of, _, log)| {
            // Nothing bounds a machine that stands still, and nobody was asked for a promise.
            let excused = self.oracle.lossy.contains(of) && self.oracle.stood_still[n];
            *of > epoch && !log.contains(&id) && !excused
        });
        if let Some((of, by, _)) = later {
            let (of, by) = (*of, *by);
            self.break_promise(format!(
                "P1/P2: {n} acknowledges {id} of epoch {epoch}, which {by}, serving in epoch {of}, does not have"
            ));
        }
        self.oracle.must.entry(id).or_insert(epoch);
    }

    /// Clients are let in.
    pub fn gate_opens(&mut self, n: usize, epoch: Epoch) {
        self.oracle.gates += 1;
        self.say(|| format!("{n}: gate opens in epoch {epoch}"));
        let log: HashSet<u64> = self.nodes[n].pg.log.iter().map(|record| record.id).collect();
        let rule = self
            .oracle
            .epochs
            .get(&epoch)
            .map(|(rule, _)| rule.clone())
            .unwrap_or_default();
        // Without synchronous standbys a failover by the end of a lease may cost what nobody had received; also one
        // that never came as far as its gate, before this one.
        let last = self.oracle.served.last().map_or(Epoch(0), |(of, ..)| *of);
        let may_lose = self
            .oracle
            .epochs
            .range(last.next()..=epoch.max(last.next()))
            .any(|(of, (rule, sync))| {
                let unproved = ["lease-over", "best-standby", "long-ago", "manual failover"];
                !sync && unproved.contains(&rule.as_str()) || self.oracle.lossy.contains(of)
            });
        // An old primary that wakes up may open its gate until its lease ends: it lacks what came later.
        let known = self.oracle.must.iter().filter(|(_, of)| **of <= epoch);
        let lost: Vec<u64> = known.map(|(id, _)| *id).filter(|id| !log.contains(id)).collect();
        if may_lose {
            self.oracle.must.retain(|id, _| log.contains(id));
        } else if !lost.is_empty() {
            self.break_promise(format!(
                "P2: {n} serves in epoch {epoch} ({rule}) without {} records that clients know of, e.g. {:?}",
                lost.len(),
                lost.iter().min()
            ));
        }
        if self.nodes[n].state.sync.is_on() {
            let base = self.nodes[n].pg.base;
            for record in &self.nodes[n].pg.log[..base] {
                self.oracle.must.entry(record.id).or_insert(epoch);
            }
        }
        self.oracle.served.push((epoch, n, log));
    }

    /// One writer for each timeline.
    pub fn timeline_begins(&mut self, n: usize, timeline: u32, epoch: Epoch) {
        if let Some(first) = self.oracle.timelines.insert(timeline, n) {
            self.break_promise(format!(
                "P6: timeline {timeline} begins a second time, at {n} in epoch {epoch}, after {first}"
            ));
        }
    }

    /// Who has a way to a majority now.
    pub fn note_reach(&mut self) {
        let count = self.nodes.len();
        let alive = |n: usize| self.nodes[n].daemon.is_some();
        let leads = |l: usize| {
            let with = (0..count)
                .filter(|v| alive(*v) && self.net.connects(l, *v))
                .count();
            alive(l) && with > count / 2
        };
        let could: Vec<bool> = (0..count).map(leads).collect();
        let reaches = |n: usize| alive(n) && (0..count).any(|l| could[l] && self.net.connects(n, l));
        let reached: Vec<bool> = (0..count).map(reaches).collect();
        for (since, reached) in self.oracle.cut_since.iter_mut().zip(reached) {
            *since = if reached {
                None
            } else {
                Some(since.unwrap_or(self.now))
            };
        }
    }

    /// Whether the cluster serves again as it should after everything was healed.
    pub fn is_well(&self, healed_at: u64, everybody: bool) -> bool {
        let served = self.oracle.gate_answer_at > healed_at + 1_500_000
            && self.oracle.gate_answer_at + 1_000_000 > self.now;
        let Some(primary) = (0..self.nodes.len()).find(|n| self.nodes[*n].gate.is_some()) else {
            return false;
        };
        let follows = |n: usize| {
            let stream = self.nodes[n].pg.receiver.and_then(|id| self.streams.get(&id));
            stream.is_some_and(|stream| stream.from == primary)
        };
        served
            && (!everybody
                || (0..self.nodes.len()).all(|n| n == primary || self.nodes[n].witness || follows(n)))
    }
}
