//! The jobs themselves, after `src/node/jobs.rs` and `settle.rs`: what each does to the server and its data.

use super::agent::SYSTEM;
use super::bend::Bend;
use super::node::Holdings;
use super::postgres::{Names, Proc};
use super::world::{Event, World};
use matriarch::cluster::{Epoch, Moment, Promise, Timeline, WalEnd};
use matriarch::decide::duty::Data;
use matriarch::decide::sync;

/// How long a stop waits for those who stream: shorter than in the product, so that stories see what comes after.
const PATIENCE: u64 = 3_000_000;

impl World {
    pub fn inspect(&mut self, n: usize, now: Moment) {
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

    pub fn restart(&mut self, n: usize, id: u64, epoch: Epoch, stage: u8) {
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

    pub fn promote(&mut self, n: usize, id: u64, epoch: Epoch, target: Timeline, stage: u8) {
        if stage == 0 {
            let names = self.first_names(n);
            let slow = self.nodes[n].slow_promotion;
            let pg = &mut self.nodes[n].pg;
            pg.names = names;
            pg.epoch = Some(epoch);
            // From the request on it asks nobody for more.
            pg.upstream = None;
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
            daemon.spared.succeeded();
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
            daemon
                .spared
                .failed("it could not become primary".to_owned(), now);
            daemon.holdings.data = Data::Unknown;
            daemon.job = None;
        }
        self.fence(n, "it did not become primary");
    }

    /// Clients are sent away, and everybody who streams is given everything, the record of the stop too.
    pub fn stop_cleanly(&mut self, n: usize, id: u64) {
        let (record, now) = (self.fresh(), self.now);
        let pg = &mut self.nodes[n].pg;
        let pm = pg.pm;
        if pg.stopping.is_none() {
            pg.stopping = Some(now);
            pg.waits.clear();
            let (timeline, epoch) = (pg.timeline().0, pg.epoch.unwrap_or_default());
            pg.flushed = pg.write(record, timeline, 104, epoch);
            self.pump(n);
        }
        let pg = &self.nodes[n].pg;
        let (since, all) = (pg.stopping.unwrap_or(now), pg.log.len());
        let mut open = self
            .streams
            .values()
            .filter(|stream| stream.from == n && stream.sender_open);
        if open.all(|stream| stream.flushed >= all) || now > since + PATIENCE {
            self.soon(1, 10, Event::Kill(n, pm));
        }
        self.again(n, id);
    }

    pub fn stop(&mut self, n: usize, id: u64, stage: u8) {
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

    pub fn cloned(&mut self, n: usize, source: usize) {
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

    pub fn rewound(&mut self, n: usize, source: usize) {
        if !self.source_serves(n, source) {
            self.retry(n, "rewind");
            return;
        }
        let from = &self.nodes[source].pg;
        if let Some(point) = from.rewind_point(&self.nodes[n].pg) {
            let own = self.nodes[n].pg.log.iter().filter(|record| record.end <= point);
            let theirs = from.log[..from.flushed]
                .iter()
                .filter(|record| record.end > point);
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

    pub fn promise(&mut self, n: usize, id: u64, epoch: Epoch, stage: u8) {
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
        self.say(|| {
            format!(
                "{n}: promises {epoch}, its log ends at {}@{}",
                end.timeline, end.lsn
            )
        });
        self.finished(n);
    }
}
