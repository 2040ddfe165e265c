//! What a node does towards its duty, one job at a time, after `src/node/steps.rs`, `jobs.rs` and `settle.rs`.

use super::agent::{place, primary_endpoint, process};
use super::bend::Bend;
use super::node::{Holdings, Purpose};
use super::postgres::Proc;
use super::world::{Event, World};
use matriarch::cluster::{Epoch, Incarnation, Moment, Origin, Role, State, Timeline};
use matriarch::decide::duty::{Data, Duty, Process};
use std::rc::Rc;

const RETRY_MS: u64 = 1_000;
const LEFTOVERS_MS: u64 = 500;
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
            Duty::Withdraw(_) => self.start_job(n, Purpose::Stop, 5, 60),
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
            Duty::Yield(epoch) => self.hand_over(n, epoch),
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

    /// The checkpoint costs nothing here; what matters is that a clean stop ends the epoch.
    fn hand_over(&mut self, n: usize, epoch: Epoch) {
        self.nodes[n].gate = None;
        let Some(daemon) = self.daemon(n) else { return };
        daemon.sync_work = None;
        daemon.finishing = true;
        daemon.streamed_in = None;
        self.say(|| format!("{n}: stops PostgreSQL, another is to be primary after epoch {epoch}"));
        self.start_job(n, Purpose::Stop, 5, 60);
    }

    fn rise(&mut self, n: usize, epoch: Epoch, origin: Origin, timeline: Option<Timeline>, now: Moment) {
        let node = &mut self.nodes[n];
        node.ledger.used = epoch;
        let Some(daemon) = &mut node.daemon else { return };
        let up =
            daemon.probe.as_ref().is_some_and(|probe| probe.in_recovery) && node.pg.proc == Proc::Standby;
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

    fn upstream(&self, n: usize, holder: usize, state: &State) -> (usize, bool) {
        let node = &self.nodes[n];
        let plain = !state.sync.is_on() || state.sync.counts(&node.name, node.ledger.incarnation);
        (holder, plain)
    }

    fn follow(&mut self, n: usize, state: &Rc<State>, now: Moment) {
        let Some((holder, _)) = state.primacy.held() else {
            return;
        };
        let wanted = self.upstream(n, place(state, holder), state);
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        match process(node, daemon) {
            Process::Down if daemon.may_try("start", now) => {
                self.check_hands_off(n, "starts PostgreSQL");
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
        let holder = state
            .primacy
            .held()
            .map(|(holder, _)| holder)
            .filter(|holder| **holder != node.name);
        let upstream = holder.map(|holder| self.upstream(n, place(state, holder), state));
        self.check_hands_off(n, "starts PostgreSQL");
        self.start_job(n, Purpose::Standby(upstream), 5, 30);
    }

    fn stop_first(&mut self, n: usize, now: Moment) -> bool {
        let node = &mut self.nodes[n];
        let down = node
            .daemon
            .as_ref()
            .is_none_or(|daemon| process(node, daemon) == Process::Down);
        if !down {
            self.check_hands_off(n, "stops a standby");
            if let Some(daemon) = self.daemon(n) {
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
        let Some(source) = primary_endpoint(daemon, state, true, now) else {
            return;
        };
        daemon.rewound = daemon.holdings.end;
        self.check_hands_off(n, "rewinds");
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
        let Some(source) = primary_endpoint(daemon, state, false, now).filter(|_| ready) else {
            return;
        };
        if self.nodes[n].pg.present && !self.nodes[n].ledger.doing {
            self.check_hands_off(n, "copies over data");
        }
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

    pub fn retry(&mut self, n: usize, what: &'static str) {
        let now = self.moment(n);
        if let Some(daemon) = self.daemon(n) {
            daemon.job = None;
            daemon.retry_at.insert(what, now.plus(RETRY_MS));
        }
    }

    pub fn finished(&mut self, n: usize) {
        if let Some(daemon) = self.daemon(n) {
            daemon.job = None;
        }
        self.wake(n);
    }

    pub fn again(&mut self, n: usize, id: u64) {
        if let Some(run) = self.daemon(n).map(|daemon| daemon.run) {
            self.after(POLL, Event::Job(n, run, id, 1));
        }
    }

    /// A job goes on.
    pub fn work(&mut self, n: usize, id: u64, stage: u8) {
        let Some(daemon) = self.daemon(n) else { return };
        let Some((_, purpose)) = daemon.job.clone().filter(|(of, _)| *of == id) else {
            return;
        };
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
            Purpose::Stop if self.nodes[n].pg.proc == Proc::Primary => self.stop_cleanly(n, id),
            Purpose::Fence | Purpose::Stop => self.stop(n, id, stage),
            Purpose::Clone(source) => self.cloned(n, source),
            Purpose::Rewind(source) => self.rewound(n, source),
            Purpose::Promise(epoch) => self.promise(n, id, epoch, stage),
        }
    }
}
