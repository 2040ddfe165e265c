//! The primary's synchronous names, after `src/node/synchronous.rs`: names, walsenders of the dropped ended, barrier, proof.

use super::bend::Bend;
use super::node::SyncWork;
use super::postgres::{Names, Proc};
use super::world::{Event, World};
use matriarch::cluster::{Epoch, State, Synced};
use matriarch::decide::sync;
use std::rc::Rc;

/// How often the barrier is asked for.
const POLL: u64 = 8_000;

impl World {
    /// The names follow what is agreed.
    pub fn begin_sync_work(&mut self, n: usize, epoch: Epoch, state: &Rc<State>) {
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
        let Some(work) = daemon.sync_work.clone().filter(|work| work.id == id) else {
            return;
        };
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
}
