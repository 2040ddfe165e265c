//! PostgreSQL's processes and the guard: start, promote, die, leave orphans, be fenced at the deadline.

use super::bend::Bend;
use super::node::Guard;
use super::postgres::{Names, Proc, Wait};
use super::world::{Event, World};
use matriarch::cluster::{Epoch, Moment};

/// The guard begins this long before the deadline.
const QUIT_BEFORE_MS: u64 = 300;
/// How long after the deadline a guard that is late acts.
const LATE_MS: u64 = 1_500;

impl World {
    /// Starts the postmaster: as a primary of `epoch`, or as a standby.
    pub fn start_postmaster(&mut self, n: usize, epoch: Option<Epoch>) -> u64 {
        let pm = self.fresh();
        let pg = &mut self.nodes[n].pg;
        pg.pm = pm;
        pg.proc = Proc::Starting;
        pg.epoch = epoch;
        pg.receiver = None;
        pg.stopping = None;
        pg.received_since_start = false;
        self.soon(20, 250, Event::Started(n, pm));
        pm
    }

    pub fn started(&mut self, n: usize, pm: u64) {
        let slow = self.nodes[n].slow_replay;
        let pg = &mut self.nodes[n].pg;
        if pg.pm != pm || pg.proc != Proc::Starting {
            return;
        }
        match pg.epoch {
            Some(epoch) => {
                pg.proc = Proc::Primary;
                pg.upstream = None;
                pg.base = pg.log.len();
                pg.replayed = pg.log.len();
                self.writable(n, epoch);
            }
            None => {
                pg.proc = Proc::Standby;
                pg.names = Names::nobody();
                if !slow {
                    pg.replayed = pg.log.len();
                }
                self.soon(0, 50, Event::Connect(n, pm));
            }
        }
        self.wake(n);
        self.probe_now(n);
    }

    pub fn promoted(&mut self, n: usize, pm: u64, target: u32) {
        let id = self.fresh();
        let reserved = self.bend != Bend::TimelineUnreserved;
        let pg = &mut self.nodes[n].pg;
        let (true, Proc::Standby, Some(epoch)) = (pg.pm == pm, pg.proc, pg.epoch) else {
            return;
        };
        let parent = pg.timeline().0;
        let known = pg.histories.keys().copied().max().unwrap_or(1).max(parent);
        let timeline = if reserved {
            target.max(known + 1)
        } else {
            known + 1
        };
        pg.torn = 0;
        let switch = pg.end().lsn.0;
        pg.histories.insert(timeline, (parent, switch));
        pg.flushed = pg.write(id, timeline, 96, epoch);
        pg.replayed = pg.flushed;
        pg.base = pg.flushed;
        pg.proc = Proc::Primary;
        pg.upstream = None;
        self.say(|| format!("{n}: promoted to timeline {timeline} at {switch:X} in epoch {epoch}"));
        self.timeline_begins(n, timeline, epoch);
        self.spring_promotion(n);
        self.close_streams(n);
        self.writable(n, epoch);
        self.wake(n);
        self.probe_now(n);
    }

    /// The postmaster ends at once; its backends may outlive it for a moment.
    pub fn kill_postmaster(&mut self, n: usize, pm: u64, alone: bool) {
        if self.nodes[n].pg.pm != pm || !self.nodes[n].pg.is_up() {
            return;
        }
        self.say(|| format!("{n}: postmaster of epoch {:?} dies", self.nodes[n].pg.epoch));
        let was_primary = self.nodes[n].pg.proc == Proc::Primary;
        let pg = &mut self.nodes[n].pg;
        pg.proc = Proc::Ending;
        pg.waits.clear();
        self.nodes[n].gate = None;
        self.close_streams(n);
        if alone && was_primary {
            self.soon(0, 1_300, Event::Orphan(n, pm));
        }
        if self.nodes[n].guard.is_some() {
            let us = if self.bend == Bend::OrphansLeft {
                1_000
            } else {
                self.dice.ms(3, 60)
            };
            self.after(us, Event::Reaped(n, pm));
        }
        self.wake(n);
    }

    pub fn reaped(&mut self, n: usize, pm: u64) {
        let pg = &mut self.nodes[n].pg;
        if pg.pm != pm || pg.proc != Proc::Ending {
            return;
        }
        pg.crash(false, &mut self.dice);
        pg.proc = Proc::Down;
        let guard = self.nodes[n].guard.as_mut();
        if let Some(guard) = guard
            && let Some(epoch) = guard.fencing.take()
        {
            guard.fenced = Some(epoch);
            guard.armed = None;
        }
        self.wake(n);
    }

    /// A backend that outlived its postmaster commits and answers its client, if it is still there.
    pub fn orphan(&mut self, n: usize, pm: u64) {
        let there = self.nodes[n].pg.pm == pm && self.nodes[n].pg.proc == Proc::Ending;
        let pg = &self.nodes[n].pg;
        if pg.names != Names::Empty || !(there || self.bend == Bend::OrphansLeft && self.nodes[n].up) {
            return;
        }
        let id = self.fresh();
        let pg = &mut self.nodes[n].pg;
        let epoch = pg.log.last().map_or(Epoch(0), |record| record.epoch);
        if there {
            let timeline = pg.timeline().0;
            pg.flushed = pg.write(id, timeline, 120, epoch);
        }
        self.say(|| format!("{n}: an orphan of epoch {epoch} commits"));
        self.acknowledged(n, id, epoch);
    }

    /// Power is gone.
    pub fn crash_node(&mut self, n: usize) {
        self.say(|| format!("{n}: power is gone"));
        self.close_streams(n);
        self.forget_promise(n);
        let node = &mut self.nodes[n];
        node.up = false;
        node.daemon = None;
        node.guard = None;
        node.gate = None;
        node.paused_until = 0;
        node.daemon_paused_until = 0;
        node.pg.crash(true, &mut self.dice);
        node.pg.proc = Proc::Down;
        self.note_reach();
    }

    pub fn crash_daemon(&mut self, n: usize) {
        self.say(|| format!("{n}: daemon dies"));
        self.forget_promise(n);
        let node = &mut self.nodes[n];
        node.daemon = None;
        node.gate = None;
        node.daemon_paused_until = 0;
        self.note_reach();
    }

    /// Only where the promise is not durable.
    fn forget_promise(&mut self, n: usize) {
        if self.bend != Bend::PromiseForgotten {
            return;
        }
        let node = &mut self.nodes[n];
        node.ledger.promised = Epoch(0);
        if let Some(upstream) = node.pg.before_promise.take() {
            node.pg.upstream = Some(upstream);
            let pm = node.pg.pm;
            self.after(1_000, Event::Connect(n, pm));
        }
    }

    /// PostgreSQL dies with its guard, and nobody has swept behind it.
    pub fn crash_guard(&mut self, n: usize) {
        if self.nodes[n].guard.take().is_none() {
            return;
        }
        self.say(|| format!("{n}: guard dies"));
        let pm = self.nodes[n].pg.pm;
        self.soon(0, 30, Event::Kill(n, pm));
        self.wake(n);
    }

    pub fn guard_born(&mut self, n: usize) {
        if self.nodes[n].up && self.nodes[n].guard.is_none() {
            let run = self.fresh();
            self.nodes[n].guard = Some(Guard {
                run,
                ..Guard::default()
            });
            self.wake(n);
        }
    }

    /// Gives the guard a deadline; false when it will not take it.
    pub fn arm(&mut self, n: usize, epoch: Epoch, until: Moment) -> bool {
        let bend = self.bend;
        let node = &mut self.nodes[n];
        let Some(guard) = &mut node.guard else {
            return false;
        };
        let over = guard.fencing.is_some() || guard.fenced.is_some_and(|fenced| epoch <= fenced);
        if over || guard.armed.is_some_and(|(armed, _)| epoch < armed) {
            return false;
        }
        let old = guard
            .armed
            .filter(|(armed, _)| *armed == epoch)
            .map(|(_, until)| until);
        guard.armed = Some((epoch, old.map_or(until, |old| old.max(until))));
        if guard.waking || bend == Bend::GuardMissing {
            return true;
        }
        guard.waking = true;
        let run = guard.run;
        self.guard_sleeps(n, run);
        true
    }

    fn guard_sleeps(&mut self, n: usize, run: u64) {
        let Some((_, until)) = self.nodes[n].guard.and_then(|guard| guard.armed) else {
            return;
        };
        let late = if self.bend == Bend::GuardLate { LATE_MS } else { 0 };
        let at = Moment((until.0 + late).saturating_sub(QUIT_BEFORE_MS));
        let when = self.nodes[n].clock.when(at).max(self.now);
        self.after(when - self.now, Event::GuardLooks(n, run));
    }

    pub fn disarm(&mut self, n: usize) {
        if let Some(guard) = &mut self.nodes[n].guard
            && guard.fencing.is_none()
        {
            guard.armed = None;
            // What it slept towards may be years away.
            guard.waking = false;
        }
    }

    pub fn guard_looks(&mut self, n: usize, run: u64) {
        let late = if self.bend == Bend::GuardLate { LATE_MS } else { 0 };
        let now = self.moment(n);
        let pg = self.nodes[n].pg.pm;
        let up = self.nodes[n].pg.is_up();
        let Some(guard) = self.nodes[n].guard.as_mut().filter(|guard| guard.run == run) else {
            return;
        };
        guard.waking = false;
        let Some((epoch, until)) = guard.armed else { return };
        let until = until.plus(late);
        if now.plus(QUIT_BEFORE_MS + 1) < until {
            guard.waking = true;
            self.guard_sleeps(n, run);
            return;
        }
        if !up {
            guard.armed = None;
            guard.fenced = Some(epoch);
            self.wake(n);
            return;
        }
        guard.fencing = Some(epoch);
        self.say(|| format!("{n}: the guard fences epoch {epoch}"));
        let last = self.nodes[n].clock.when(until).max(self.now + 1);
        let us = self.dice.between(0, last - self.now);
        self.after(us, Event::Kill(n, pg));
    }

    /// A client's write reaches the server; answers whether it was taken.
    pub fn write(&mut self, n: usize, client: Option<(usize, u64)>) -> bool {
        let node = &self.nodes[n];
        let takes = node.pg.proc == Proc::Primary && node.pg.stopping.is_none();
        let Some(epoch) = node.pg.epoch.filter(|_| takes) else {
            return false;
        };
        let id = self.fresh();
        let bytes = self.dice.between(60, 9_000);
        let pg = &mut self.nodes[n].pg;
        let timeline = pg.timeline().0;
        let upto = pg.write(id, timeline, bytes, epoch);
        pg.waits.push(Wait {
            upto,
            id,
            epoch,
            client,
        });
        let pm = pg.pm;
        let us = self.dice.between(300, 3_000);
        self.after(us, Event::Flush(n, pm, upto));
        true
    }

    pub fn flush(&mut self, n: usize, pm: u64, upto: usize) {
        let pg = &mut self.nodes[n].pg;
        if pg.pm != pm || pg.proc != Proc::Primary {
            return;
        }
        pg.flushed = pg.flushed.max(upto);
        self.pump(n);
        self.release(n);
    }

    /// Commits whose wait is over are answered.
    pub fn release(&mut self, n: usize) {
        let pg = &self.nodes[n].pg;
        if pg.proc != Proc::Primary {
            return;
        }
        let upto = pg.flushed.min(self.acknowledged_upto(n));
        let (done, waits) = self.nodes[n].pg.waits.iter().partition(|wait| wait.upto <= upto);
        self.nodes[n].pg.waits = waits;
        let done: Vec<Wait> = done;
        for wait in done {
            self.acknowledged(n, wait.id, wait.epoch);
            if let Some((client, serial)) = wait.client {
                self.answered(client, serial, n);
            }
        }
    }

    /// How much of the log enough standbys have flushed, by the names in force.
    fn acknowledged_upto(&self, n: usize) -> usize {
        let Names::Any(count, names) = &self.nodes[n].pg.names else {
            return usize::MAX;
        };
        let mut flushed: Vec<usize> = self
            .streams
            .values()
            .filter(|stream| stream.from == n && stream.sender_open && stream.plain)
            .filter(|stream| names.contains(self.nodes[stream.to].name.as_str()))
            .map(|stream| stream.flushed)
            .collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        flushed
            .get((*count as usize).saturating_sub(1))
            .copied()
            .unwrap_or(0)
    }
}
