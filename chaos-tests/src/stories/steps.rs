//! What a node does towards its duty, one job at a time, after `src/node/steps.rs`, `jobs.rs` and `settle.rs`.

use super::agent::{SYSTEM, place, primary_endpoint, process};
use super::bend::Bend;
use super::node::{Holdings, Purpose, SyncWork};
use super::postgres::{Names, Proc};
use super::world::{Event, World};
use matriarch::cluster::{
    Epoch, Incarnation, Moment, Origin, Promise, Role, State, Synced, Timeline, WalEnd,
};
use matriarch::decide::duty::{Data, Duty, Process};
use matriarch::decide::sync;
use std::rc::Rc;

const RETRY_MS: u64 = 1_000;
const LEFTOVERS_MS: u64 = 500;
const SPARED_MS: u64 = 60_000;
/// How often a job asks whether it is there.
const POLL: u64 = 8_000;

impl World {
    fn start_job(&mut self, n: usize, purpose: Purpose, low: u64, high: u64) {
        let id = self.fresh();
        let Some(daemon) = self.daemon(n) else { return };
        daemon.job = Some((id, purpose));
        let run = daemon.run;
        self.soon(low, high, Event::Job(n, run, id, 0));
    }

    pub fn step(&mut self, n: usize, state: &Rc<State>, owed: Duty, now: Moment) {
        if let Duty::Fence(why) = &owed {
            self.fence(n, why);
            return;
        }
        self.drop_stale_job(n, &owed);
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let ending = node.pg.proc == Proc::Ending && node.guard.is_some();
        if !ending {
            daemon.ending_since = None;
        } else if now.since(*daemon.ending_since.get_or_insert(now)) > LEFTOVERS_MS && daemon.job.is_none() {
            self.fence(n, "processes of an ended PostgreSQL are left");
            return;
        }
        if daemon.job.is_some() || self.look(n, now) {
            return;
        }
        let doing = self.nodes[n].ledger.doing;
        let Some(daemon) = self.daemon(n) else { return };
        match owed {
            Duty::Rest(_) | Duty::AwaitLease(_) | Duty::Fence(_) => {}
            Duty::End(epoch) => {
                if daemon.ended.as_ref().is_none_or(|(ended, _)| *ended < epoch) {
                    daemon.ended = Some((epoch, "its PostgreSQL does not run".to_owned()));
                }
            }
            Duty::Rise {
                epoch,
                origin,
                timeline,
            } => self.rise(n, epoch, origin, timeline, now),
            Duty::Serve(epoch) => self.serve(n, epoch, state, now),
            Duty::Promise(epoch) => self.start_job(n, Purpose::Promise(epoch), 3, 15),
            Duty::Follow(_) | Duty::Stand if doing => daemon.holdings = Holdings::default(),
            Duty::Follow(_) => self.follow(n, state, now),
            Duty::Stand => self.stand(n, state, now),
            Duty::Rewind(..) if self.bend == Bend::RewindSkipped => self.follow(n, state, now),
            Duty::Rewind(_, why) => self.rewind(n, state, now, why),
            Duty::Clone(..) => self.clone_data(n, state, now),
        }
    }

    fn look(&mut self, n: usize, now: Moment) -> bool {
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return false };
        if daemon.holdings.data == Data::Unknown && daemon.may_try("inspect", now) {
            self.start_job(n, Purpose::Inspect, 1, 5);
            return true;
        }
        let unread = matches!(daemon.holdings.data, Data::Present { end: None, .. });
        if unread && process(node, daemon) == Process::Down && daemon.may_try("read-end", now) {
            self.start_job(n, Purpose::ReadEnd, 8, 60);
            return true;
        }
        false
    }

    fn drop_stale_job(&mut self, n: usize, owed: &Duty) {
        let Some(daemon) = self.daemon(n) else { return };
        let stale = match &daemon.job {
            Some((_, Purpose::Restart(of) | Purpose::Promote(of, _))) => daemon.running != Some(*of),
            Some((_, Purpose::Clone(_))) => !matches!(owed, Duty::Clone(..)),
            Some((_, Purpose::Promise(of))) => *owed != Duty::Promise(*of),
            _ => false,
        };
        if stale {
            daemon.job = None;
            daemon.holdings = Holdings::default();
        }
    }

    pub fn fence(&mut self, n: usize, why: &str) {
        self.nodes[n].gate = None;
        let Some(daemon) = self.daemon(n) else { return };
        if matches!(daemon.job, Some((_, Purpose::Fence))) {
            return;
        }
        daemon.sync_work = None;
        self.say(|| format!("{n}: stops PostgreSQL: {why}"));
        self.start_job(n, Purpose::Fence, 0, 2);
    }

    fn rise(&mut self, n: usize, epoch: Epoch, origin: Origin, timeline: Option<Timeline>, now: Moment) {
        let node = &mut self.nodes[n];
        node.ledger.used = epoch;
        let Some(daemon) = &mut node.daemon else { return };
        let up = daemon.probe.as_ref().is_some_and(|probe| probe.in_recovery) && node.pg.proc == Proc::Standby;
        let down = node.pg.proc == Proc::Down;
        let until = daemon.tenancy.until;
        let leased = daemon.tenancy.epoch == epoch;
        if !(leased && self.arm(n, epoch, until)) {
            if let Some(daemon) = self.daemon(n) {
                daemon.ended = Some((epoch, "the guard did not take its deadline".to_owned()));
            }
            return;
        }
        let Some(daemon) = self.daemon(n) else { return };
        daemon.tenancy.armed = Some(epoch);
        daemon.running = Some(epoch);
        daemon.risen = None;
        daemon.ended = None;
        daemon.configured = None;
        daemon.sync_work = None;
        daemon.loop_at = now;
        self.say(|| format!("{n}: becomes primary of epoch {epoch} ({origin:?})"));
        match (origin, timeline) {
            (Origin::Promotion, Some(target)) if up => {
                self.start_job(n, Purpose::Promote(epoch, target), 1, 8);
            }
            (Origin::Restart, _) if down => self.start_job(n, Purpose::Restart(epoch), 1, 8),
            _ => self.start_job(n, Purpose::Fence, 0, 2),
        }
    }

    fn serve(&mut self, n: usize, epoch: Epoch, state: &Rc<State>, now: Moment) {
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        if daemon.risen != Some(epoch) {
            let reserved = state.primacy.origin().and_then(|(_, timeline)| timeline);
            match (process(node, node.daemon.as_ref().expect("checked")), reserved) {
                (Process::Up(Some(Role::Primary)), Some(agreed)) if node.pg.timeline() == agreed => {
                    if let Some(daemon) = &mut node.daemon {
                        daemon.risen = Some(epoch);
                    }
                }
                (Process::Up(Some(_)), _) => self.fence(n, "its promotion was interrupted"),
                _ => {}
            }
            return;
        }
        if daemon.checkpointed != Some(epoch) && daemon.may_try("chores", now) {
            self.start_job(n, Purpose::Chores, 50, 400);
        }
        self.begin_sync_work(n, epoch, state);
    }

    /// The names follow what is agreed.
    fn begin_sync_work(&mut self, n: usize, epoch: Epoch, state: &Rc<State>) {
        let id = self.fresh();
        let unproved = self.bend == Bend::SettleUnproved;
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let serial = state.sync.serial;
        let done = Synced { epoch, serial };
        let Some(quorum) = state.sync.current() else {
            node.pg.names = Names::Empty;
            daemon.sync_work = None;
            self.release(n);
            return;
        };
        let under_way = daemon
            .sync_work
            .as_ref()
            .is_some_and(|work| (work.epoch, work.serial) == (epoch, serial));
        let proved = daemon.synced == Some(done) && !unproved;
        if quorum.primary != node.name || under_way || proved {
            return;
        }
        if unproved {
            if daemon.synced == Some(done) {
                return;
            }
            daemon.synced = Some(done);
            daemon.barrier_in = Some(epoch);
        }
        daemon.sync_work = Some(SyncWork {
            id,
            epoch,
            serial,
            barrier: None,
        });
        let run = daemon.run;
        let (low, high) = if unproved { (2_000, 4_000) } else { (4, 30) };
        self.soon(low, high, Event::SyncWork(n, run, id, 0));
    }

    pub fn sync_work(&mut self, n: usize, id: u64, stage: u8) {
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        let Some(work) = daemon.sync_work.clone().filter(|work| work.id == id) else { return };
        let state = node.state.clone();
        let run = daemon.run;
        let same = daemon.running == Some(work.epoch)
            && state.sync.serial == work.serial
            && node.pg.proc == Proc::Primary;
        let Some(quorum) = state.sync.current().filter(|_| same) else {
            if let Some(daemon) = self.daemon(n) {
                daemon.sync_work = None;
            }
            return;
        };
        match stage {
            0 => {
                let names = Names::parse(&sync::names(quorum, node.settings.synchronous_mode));
                self.take_names(n, names);
                self.soon(4, 30, Event::SyncWork(n, run, id, 1));
            }
            1 => {
                self.write(n, None);
                let barrier = self.nodes[n].pg.log.len();
                if let Some(work) = self.daemon(n).and_then(|daemon| daemon.sync_work.as_mut()) {
                    work.barrier = Some(barrier);
                }
                self.after(POLL, Event::SyncWork(n, run, id, 2));
            }
            _ => {
                let barrier = work.barrier.unwrap_or(usize::MAX);
                let waiting = self.nodes[n].pg.waits.iter().any(|wait| wait.upto == barrier);
                if waiting {
                    self.after(POLL, Event::SyncWork(n, run, id, 2));
                    return;
                }
                if let Some(daemon) = self.daemon(n) {
                    daemon.sync_work = None;
                    daemon.barrier_in = Some(work.epoch);
                    daemon.synced = Some(Synced {
                        epoch: work.epoch,
                        serial: work.serial,
                    });
                }
                self.wake(n);
            }
        }
    }

    /// New names are in force; walsenders of the dropped, or all of them where more must flush, are ended.
    pub fn take_names(&mut self, n: usize, names: Names) {
        let count = |names: &Names| match names {
            Names::Empty => 0,
            Names::Any(count, _) => *count,
        };
        let grows = count(&names) > count(&self.nodes[n].pg.names);
        let member = |to: usize| match &names {
            Names::Any(_, members) => members.contains(self.nodes[to].name.as_str()),
            Names::Empty => false,
        };
        let ended: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.from == n && stream.sender_open && stream.plain)
            .filter(|(_, stream)| grows || !member(stream.to))
            .map(|(id, _)| *id)
            .collect();
        self.say(|| format!("{n}: names are {names:?}"));
        self.nodes[n].pg.names = names;
        for id in ended {
            self.close_sender(id);
        }
        self.release(n);
    }

    fn upstream(&self, n: usize, holder: usize, state: &State) -> (usize, bool) {
        let node = &self.nodes[n];
        let plain = !state.sync.is_on() || state.sync.counts(&node.name, node.ledger.incarnation);
        (holder, plain)
    }

    fn follow(&mut self, n: usize, state: &Rc<State>, now: Moment) {
        let Some((holder, _)) = state.primacy.held() else { return };
        let wanted = self.upstream(n, place(state, holder), state);
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        match process(node, daemon) {
            Process::Down if daemon.may_try("start", now) => {
                self.start_job(n, Purpose::Standby(Some(wanted)), 5, 30);
            }
            Process::Up(Some(Role::Replica)) if daemon.configured != Some(wanted) => {
                self.start_job(n, Purpose::Configure(wanted.0, wanted.1), 5, 30);
            }
            _ => {}
        }
    }

    fn stand(&mut self, n: usize, state: &Rc<State>, now: Moment) {
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        if process(node, daemon) != Process::Down || !daemon.may_try("start", now) {
            return;
        }
        let holder = state.primacy.held().map(|(holder, _)| holder).filter(|holder| **holder != node.name);
        let upstream = holder.map(|holder| self.upstream(n, place(state, holder), state));
        self.start_job(n, Purpose::Standby(upstream), 5, 30);
    }

    fn stop_first(&mut self, n: usize, now: Moment) -> bool {
        let node = &mut self.nodes[n];
        let down = node.daemon.as_ref().is_none_or(|daemon| process(node, daemon) == Process::Down);
        if !down {
            if let Some(daemon) = &mut node.daemon {
                daemon.holdings.set_end(None, now);
            }
            self.start_job(n, Purpose::Stop, 0, 3);
        }
        !down
    }

    fn rewind(&mut self, n: usize, state: &Rc<State>, now: Moment, why: String) {
        if self.stop_first(n, now) {
            return;
        }
        let Some(daemon) = self.daemon(n) else { return };
        if !daemon.may_try("rewind", now) {
            return;
        }
        if daemon.rewound.is_some() && daemon.rewound == daemon.holdings.end {
            daemon.rewound = None;
            daemon.holdings.data = Data::Broken(why);
            return;
        }
        let Some(source) = primary_endpoint(daemon, state, true, now) else { return };
        daemon.rewound = daemon.holdings.end;
        self.new_copy(n);
        self.say(|| format!("{n}: rewinds from {source}: {why}"));
        self.start_job(n, Purpose::Rewind(source), 100, 900);
    }

    fn clone_data(&mut self, n: usize, state: &Rc<State>, now: Moment) {
        if self.stop_first(n, now) {
            return;
        }
        let Some(daemon) = self.daemon(n) else { return };
        let ready = daemon.may_try("clone", now);
        let Some(source) = primary_endpoint(daemon, state, false, now).filter(|_| ready) else { return };
        self.new_copy(n);
        self.nodes[n].pg.present = false;
        self.say(|| format!("{n}: clones from {source}"));
        self.start_job(n, Purpose::Clone(source), 200, 2_000);
    }

    /// What this copy acknowledged is forgotten from now on.
    fn new_copy(&mut self, n: usize) {
        let copy = self.fresh();
        let ledger = &mut self.nodes[n].ledger;
        ledger.doing = true;
        ledger.incarnation = Some(Incarnation(copy + 100));
    }

    fn retry(&mut self, n: usize, what: &'static str) {
        let now = self.moment(n);
        if let Some(daemon) = self.daemon(n) {
            daemon.job = None;
            daemon.retry_at.insert(what, now.plus(RETRY_MS));
        }
    }

    fn finished(&mut self, n: usize) {
        if let Some(daemon) = self.daemon(n) {
            daemon.job = None;
        }
        self.wake(n);
    }

    fn again(&mut self, n: usize, id: u64) {
        if let Some(run) = self.daemon(n).map(|daemon| daemon.run) {
            self.after(POLL, Event::Job(n, run, id, 1));
        }
    }

    /// A job goes on.
    pub fn work(&mut self, n: usize, id: u64, stage: u8) {
        let Some(daemon) = self.daemon(n) else { return };
        let Some((_, purpose)) = daemon.job.clone().filter(|(of, _)| *of == id) else { return };
        let now = self.moment(n);
        match purpose {
            Purpose::Inspect => self.inspect(n, now),
            Purpose::ReadEnd => {
                let end = self.nodes[n].pg.end();
                let fork = self.nodes[n].pg.fork(end.timeline);
                if let Some(daemon) = self.daemon(n) {
                    daemon.holdings.set_end(Some(end), now);
                    daemon.holdings.fork = fork;
                }
                self.finished(n);
            }
            Purpose::Restart(epoch) => self.restart(n, id, epoch, stage),
            Purpose::Promote(epoch, target) => self.promote(n, id, epoch, target, stage),
            Purpose::Standby(upstream) => {
                self.disarm(n);
                self.nodes[n].pg.upstream = upstream;
                self.start_postmaster(n, None);
                if let Some(daemon) = self.daemon(n) {
                    daemon.configured = upstream;
                    daemon.tenancy.armed = None;
                }
                self.finished(n);
            }
            Purpose::Configure(from, plain) => {
                if let Some(daemon) = self.daemon(n) {
                    daemon.configured = Some((from, plain));
                }
                self.repoint(n, Some((from, plain)));
                self.finished(n);
            }
            Purpose::Chores => {
                if let Some(daemon) = self.daemon(n) {
                    daemon.checkpointed = daemon.running;
                }
                self.finished(n);
            }
            Purpose::Fence | Purpose::Stop => self.stop(n, id, stage),
            Purpose::Clone(source) => self.cloned(n, source),
            Purpose::Rewind(source) => self.rewound(n, source),
            Purpose::Promise(epoch) => self.promise(n, id, epoch, stage),
        }
    }

    fn inspect(&mut self, n: usize, now: Moment) {
        let (doing, present) = (self.nodes[n].ledger.doing, self.nodes[n].pg.present);
        let timeline = self.nodes[n].pg.timeline();
        if let Some(daemon) = self.daemon(n) {
            daemon.holdings.set_end(None, now);
            daemon.holdings.timeline = Some(timeline);
            daemon.holdings.data = match (present, doing) {
                (false, _) => Data::Absent,
                (true, true) => Data::Broken("work on it was interrupted".to_owned()),
                _ => Data::Present {
                    system_id: SYSTEM,
                    end: None,
                },
            };
        }
        self.finished(n);
    }

    /// The names that are in force before anything of `epoch` accepts a write.
    fn first_names(&self, n: usize) -> Names {
        let node = &self.nodes[n];
        match node.state.sync.current() {
            None => Names::Empty,
            Some(quorum) if quorum.primary == node.name => {
                Names::parse(&sync::names(quorum, node.settings.synchronous_mode))
            }
            Some(_) => Names::nobody(),
        }
    }

    fn restart(&mut self, n: usize, id: u64, epoch: Epoch, stage: u8) {
        let pg = &self.nodes[n].pg;
        if stage == 0 {
            if pg.proc == Proc::Down {
                self.nodes[n].pg.names = self.first_names(n);
                self.start_postmaster(n, Some(epoch));
            }
            self.again(n, id);
            return;
        }
        match pg.proc {
            Proc::Primary => self.risen(n, epoch, true),
            Proc::Starting => self.again(n, id),
            _ => self.not_risen(n),
        }
    }

    fn promote(&mut self, n: usize, id: u64, epoch: Epoch, target: Timeline, stage: u8) {
        if stage == 0 {
            let names = self.first_names(n);
            let slow = self.nodes[n].slow_promotion;
            let pg = &mut self.nodes[n].pg;
            pg.names = names;
            pg.epoch = Some(epoch);
            let pm = pg.pm;
            let (low, high) = if slow { (800, 4_000) } else { (20, 200) };
            self.soon(low, high, Event::Promoted(n, pm, target.0));
            self.again(n, id);
            return;
        }
        let pg = &self.nodes[n].pg;
        match pg.proc {
            Proc::Primary if pg.timeline() == target || self.bend == Bend::TimelineUnreserved => {
                self.risen(n, epoch, false);
            }
            Proc::Standby => self.again(n, id),
            _ => self.not_risen(n),
        }
    }

    fn risen(&mut self, n: usize, epoch: Epoch, checkpointed: bool) {
        let timeline = self.nodes[n].pg.timeline();
        let fork = self.nodes[n].pg.fork(timeline);
        if let Some(daemon) = self.daemon(n) {
            daemon.risen = Some(epoch);
            daemon.holdings.fork = fork;
            if checkpointed {
                daemon.checkpointed = Some(epoch);
            }
        }
        self.probe_now(n);
        self.finished(n);
    }

    fn not_risen(&mut self, n: usize) {
        let now = self.moment(n);
        if let Some(daemon) = self.daemon(n) {
            daemon.unpromotable = Some(("it could not become primary".to_owned(), now.plus(SPARED_MS)));
            daemon.holdings.data = Data::Unknown;
            daemon.job = None;
        }
        self.fence(n, "it did not become primary");
    }

    fn stop(&mut self, n: usize, id: u64, stage: u8) {
        let pg = &self.nodes[n].pg;
        let pm = pg.pm;
        match pg.proc {
            Proc::Down => {
                self.finished(n);
                return;
            }
            Proc::Ending if self.nodes[n].guard.is_some() => {
                self.soon(5, 30, Event::Reaped(n, pm));
            }
            _ if stage == 0 => self.soon(5, 40, Event::Kill(n, pm)),
            _ => {}
        }
        self.again(n, id);
    }

    fn source_serves(&self, n: usize, source: usize) -> bool {
        self.nodes[source].pg.proc == Proc::Primary && self.net.connects(n, source)
    }

    fn cloned(&mut self, n: usize, source: usize) {
        if !self.source_serves(n, source) {
            self.retry(n, "clone");
            return;
        }
        let from = &self.nodes[source].pg;
        let (log, histories) = (from.log[..from.flushed].to_vec(), from.histories.clone());
        let node = &mut self.nodes[n];
        node.pg.flushed = log.len();
        node.pg.replayed = log.len();
        node.pg.log = log;
        node.pg.histories = histories;
        node.pg.present = true;
        self.new_data(n);
    }

    fn new_data(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.ledger.doing = false;
        node.ledger.reached = None;
        if let Some(daemon) = &mut node.daemon {
            daemon.holdings = Holdings::default();
        }
        self.finished(n);
    }

    fn rewound(&mut self, n: usize, source: usize) {
        if !self.source_serves(n, source) {
            self.retry(n, "rewind");
            return;
        }
        let from = &self.nodes[source].pg;
        if let Some(point) = from.rewind_point(&self.nodes[n].pg) {
            let own = self.nodes[n].pg.log.iter().filter(|record| record.end <= point);
            let theirs = from.log[..from.flushed].iter().filter(|record| record.end > point);
            let log: Vec<_> = own.chain(theirs).copied().collect();
            let histories = from.histories.clone();
            let pg = &mut self.nodes[n].pg;
            pg.flushed = log.len();
            pg.replayed = log.len();
            pg.log = log;
            pg.histories = histories;
        }
        self.new_data(n);
    }

    fn promise(&mut self, n: usize, id: u64, epoch: Epoch, stage: u8) {
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let run = daemon.run;
        if stage == 0 {
            node.ledger.promised = epoch;
            node.pg.before_promise = node.pg.upstream.or(node.pg.before_promise);
            daemon.configured = None;
            self.soon(5, 80, Event::Job(n, run, id, 1));
            return;
        }
        if stage == 1 {
            self.repoint(n, None);
            self.soon(5, 25, Event::Job(n, run, id, 2));
            return;
        }
        if node.pg.receiver.is_some() || !matches!(node.pg.proc, Proc::Standby | Proc::Down) {
            self.finished(n);
            return;
        }
        let end = if self.bend == Bend::SaidPosition && node.pg.proc == Proc::Standby {
            let received = node.pg.received_since_start.then_some(node.pg.end().lsn);
            let lsn = received.unwrap_or_default().max(node.pg.lsn(node.pg.replayed));
            WalEnd {
                timeline: node.pg.timeline(),
                lsn,
            }
        } else {
            node.pg.end()
        };
        daemon.promise = Some(Promise { epoch, end });
        daemon.poked = true;
        self.spring_promise(n);
        self.say(|| format!("{n}: promises {epoch}, its log ends at {}@{}", end.timeline, end.lsn));
        self.finished(n);
    }
}
