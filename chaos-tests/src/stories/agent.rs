//! One pass of the node loop, after `src/node/agent.rs`, `standby.rs` and `facts.rs`: take in, judge, step, publish.

use super::bend::Bend;
use super::node::{Daemon, JOINED, Node, Probe, Purpose};
use super::postgres::Proc;
use super::world::{Event, World};
use matriarch::cluster::{
    Epoch, Fitness, Moment, PostgresReport, PostgresState, Report, Role, Sender, State, Tenure, WalEnd,
};
use matriarch::decide::duty::{Data, Duty, Local, Process, duty, out_of_place};
use matriarch::decide::{lease, view};
use std::rc::Rc;

const TICK: u64 = 100_000;
const DOUBT_MS: u64 = 3_000;
/// What is older says nothing of where a primary's log ends now.
const STALE_MS: u64 = 3_000;
/// The one database cluster of every world.
pub const SYSTEM: u64 = 77;

/// The process as the node loop sees it.
pub fn process(node: &Node, daemon: &Daemon) -> Process {
    if node.guard.is_none() {
        return Process::Ending;
    }
    match node.pg.proc {
        Proc::Down => Process::Down,
        Proc::Ending => Process::Ending,
        _ => Process::Up(
            daemon
                .probe
                .as_ref()
                .filter(|probe| probe.pm == node.pg.pm)
                .map(|probe| {
                    if probe.in_recovery {
                        Role::Replica
                    } else {
                        Role::Primary
                    }
                }),
        ),
    }
}

impl World {
    pub fn pass(&mut self, n: usize, tick: bool) {
        let now = self.moment(n);
        let guarded = self.nodes[n].guard.is_some() || self.nodes[n].witness;
        let Some(daemon) = self.daemon(n) else { return };
        daemon.loop_at = now;
        let run = daemon.run;
        if tick {
            self.after(TICK, Event::Pass(n, run, true));
        } else {
            daemon.pass_due = false;
        }
        if !guarded {
            self.soon(20, 150, Event::GuardBorn(n));
        }
        let state = self.nodes[n].state.clone();
        if self.nodes[n].witness {
            self.publish(n, &state, &Duty::Rest(String::new()), now);
            return;
        }
        self.join_anew(n, &state);
        self.take_in(n, &state, now);
        self.bind(n, &state, now);
        let owed = self.judge(n, &state, now);
        self.tell_duty(n, &owed);
        self.step(n, &state, owed.clone(), now);
        self.publish(n, &state, &owed, now);
    }

    fn tell_duty(&mut self, n: usize, owed: &Duty) {
        let trace = self.trace;
        let Some(daemon) = self
            .daemon(n)
            .filter(|daemon| trace && daemon.owed.as_ref() != Some(owed))
        else {
            return;
        };
        daemon.owed = Some(owed.clone());
        self.say(|| format!("{n}: owes {owed:?}"));
    }

    fn take_in(&mut self, n: usize, state: &Rc<State>, now: Moment) {
        let Node {
            daemon: Some(daemon),
            ledger,
            pg,
            ..
        } = &mut self.nodes[n]
        else {
            return;
        };
        if !daemon.caught_up && daemon.word.at > Moment(0) && state.revision >= daemon.word.revision {
            daemon.caught_up = true;
        }
        let well = primary_endpoint(daemon, state, false, now).is_some();
        note_standby(daemon, pg, state, well, now);
        let followed = daemon
            .streamed_in
            .is_some_and(|(of, epoch)| of == pg.pm && pg.is_up() && epoch == state.epoch);
        let led = daemon.risen.is_some_and(|epoch| epoch == state.epoch);
        let reached = state
            .timeline()
            .filter(|_| state.is_confirmed() && (followed || led));
        if reached.is_some() {
            ledger.reached = reached;
        }
        daemon.unconfirmed_since = if state.is_confirmed() {
            None
        } else {
            Some(daemon.unconfirmed_since.unwrap_or(now))
        };
        let node = &mut self.nodes[n];
        let Some(daemon) = &node.daemon else { return };
        let down = process(node, daemon) == Process::Down && daemon.job.is_none();
        let Some(daemon) = node.daemon.as_mut().filter(|_| down) else {
            return;
        };
        if let Some(epoch) = daemon.running.take() {
            daemon.risen = None;
            daemon.holdings.set_end(None, now);
            (daemon.tenancy.armed, daemon.tenancy.letting_go) = (None, false);
            daemon.ended = Some((epoch, "PostgreSQL is gone".to_owned()));
            node.gate = None;
            self.disarm(n);
        }
    }

    fn judge(&self, n: usize, state: &State, now: Moment) -> Duty {
        let node = &self.nodes[n];
        let Some(daemon) = &node.daemon else {
            return Duty::Rest(String::new());
        };
        let process = process(node, daemon);
        let (lease_epoch, lease_until) = (daemon.tenancy.epoch, daemon.tenancy.until);
        if !daemon.caught_up {
            let over = daemon.running.is_some() && now >= lease::stop_at(lease_until);
            let stray = daemon.running.is_none() && process == Process::Up(Some(Role::Primary));
            return if over || stray {
                Duty::Fence("without the group's word".to_owned())
            } else {
                Duty::Rest("waiting to hear from the group".to_owned())
            };
        }
        let local = Local {
            me: &node.name,
            data: &daemon.holdings.data,
            fork: daemon.holdings.fork,
            reached: node.ledger.reached,
            primary: primary_position(daemon, node, state, now),
            unconfirmed_ms: daemon.unconfirmed_since.map_or(0, |since| now.since(since)),
            process,
            promised: (
                node.ledger.promised,
                daemon
                    .promise
                    .is_some_and(|promise| promise.epoch == node.ledger.promised),
            ),
            used: self.used(n),
            running: daemon.running,
            lease_epoch,
            lease_until,
            guest: false,
            leaving: false,
            hands_off: state.pause.is_on() && !daemon.finishing && self.bend != Bend::HandsOn,
        };
        let gone = state.is_removed(&node.name) && state.member(&node.name).is_none();
        let told =
            out_of_place(&local, "it was taken out").filter(|_| gone && self.bend != Bend::LeaverStays);
        told.unwrap_or_else(|| duty(state, &local, now))
    }

    /// The highest epoch used here, as far as anybody asks.
    fn used(&self, n: usize) -> Epoch {
        if self.bend == Bend::EpochReused {
            Epoch(1)
        } else {
            self.nodes[n].ledger.used
        }
    }

    pub fn probe_now(&mut self, n: usize) {
        if let Some(run) = self.daemon(n).map(|daemon| daemon.run) {
            self.soon(1, 6, Event::Probe(n, run, false));
        }
    }

    pub fn probe(&mut self, n: usize, tick: bool) {
        let node = &self.nodes[n];
        let Some(run) = node.daemon.as_ref().map(|daemon| daemon.run) else {
            return;
        };
        let pg = &node.pg;
        let answers = matches!(pg.proc, Proc::Standby | Proc::Primary);
        if answers {
            let standby = pg.proc == Proc::Standby;
            let stream = pg.receiver.and_then(|id| self.streams.get(&id));
            let streaming = standby && stream.is_some_and(|stream| stream.receiver_open);
            let end = pg.lsn(pg.log.len());
            let upstream = stream
                .filter(|_| streaming)
                .map(|stream| &self.nodes[stream.from].pg);
            let followed = upstream.map(|up| up.timeline()).filter(|timeline| {
                pg.histories
                    .get(&timeline.0)
                    .is_none_or(|(_, switch)| end.0 >= *switch)
            });
            let probe = Probe {
                pm: pg.pm,
                in_recovery: standby,
                timeline: Some(followed.unwrap_or(pg.timeline())),
                location: (!standby).then_some(end),
                received: (standby && pg.received_since_start)
                    .then_some(matriarch::cluster::Lsn(end.0 + pg.torn)),
                replayed: standby.then(|| pg.lsn(pg.replayed)),
                streaming,
                senders: if standby { Vec::new() } else { self.senders(n) },
            };
            if let Some(daemon) = &mut self.nodes[n].daemon {
                daemon.probe = Some(probe);
            }
            self.wake(n);
        }
        if tick {
            let us = if answers { 200_000 } else { 40_000 };
            self.after(us, Event::Probe(n, run, true));
        }
    }

    /// `pg_stat_replication`.
    fn senders(&self, n: usize) -> Vec<Sender> {
        let open = self
            .streams
            .values()
            .filter(|stream| stream.from == n && stream.sender_open);
        open.map(|stream| {
            let name = &self.nodes[stream.to].name;
            Sender {
                name: if stream.plain {
                    name.0.clone()
                } else {
                    format!("{name} (new)")
                },
                streaming: true,
                flushed: Some(self.nodes[n].pg.lsn(stream.flushed)),
                sync_state: String::new(),
            }
        })
        .collect()
    }

    fn publish(&mut self, n: usize, state: &State, owed: &Duty, now: Moment) {
        let report = self.report(n, state, now);
        let skipped = self.bend == Bend::BarrierSkipped;
        let node = &mut self.nodes[n];
        let Some(daemon) = &mut node.daemon else { return };
        let serving =
            matches!(owed, Duty::Serve(_)) && daemon.risen.is_some() && daemon.risen == daemon.running;
        let barrier = !state.sync.is_on() || daemon.barrier_in == daemon.risen || skipped;
        let gate = daemon
            .risen
            .filter(|_| serving && barrier && node.pg.proc == Proc::Primary);
        let opened = gate.filter(|_| node.gate != gate);
        node.gate = gate;
        let important = std::mem::take(&mut daemon.poked) || gist(&daemon.report) != gist(&report);
        daemon.report = report;
        if let Some(epoch) = opened {
            self.gate_opens(n, epoch);
        }
        if important {
            self.report_at_once(n);
        }
    }

    fn report(&self, n: usize, state: &State, now: Moment) -> Report {
        let node = &self.nodes[n];
        let mut report = Report::first(node.info());
        let Some(daemon) = &node.daemon else { return report };
        report.run = daemon.run;
        report.sent_at = now;
        report.revision = state.revision;
        report.tenure = self.tenure(n, daemon, state);
        report.unpromotable = daemon.spared.why(now).map(str::to_owned);
        report.promise = daemon.promise;
        report.synced = daemon.synced;
        report.rearmed = self.rearmed(n, state, now);
        report.postgres = (!node.witness).then(|| postgres_report(node, daemon));
        if let (Some(postgres), Some(probe)) = (&mut report.postgres, &daemon.probe)
            && node.pg.is_up()
            && probe.pm == node.pg.pm
            && !probe.in_recovery
        {
            postgres.senders = probe.senders.clone();
        }
        report
    }

    fn tenure(&self, n: usize, daemon: &Daemon, state: &State) -> Tenure {
        let node = &self.nodes[n];
        let Some((holder, epoch)) = state.primacy.last() else {
            return Tenure::None;
        };
        if *holder != node.name || !daemon.caught_up {
            return match (daemon.running, daemon.caught_up) {
                (Some(epoch), false) => Tenure::Holding { epoch },
                _ => Tenure::None,
            };
        }
        let used = self.used(n);
        if daemon.running == Some(epoch) || used < epoch {
            return Tenure::Holding { epoch };
        }
        if daemon.running.is_some() {
            return Tenure::None;
        }
        let why = "its PostgreSQL does not run".to_owned();
        let holdings = &daemon.holdings;
        let known = holdings.end.is_some() || matches!(holdings.data, Data::Absent | Data::Broken(_));
        match process(node, daemon) {
            Process::Down if known => Tenure::Ended {
                epoch,
                end: holdings.end,
                why,
            },
            Process::Up(Some(Role::Replica)) => Tenure::Ended {
                epoch,
                end: None,
                why,
            },
            _ => Tenure::None,
        }
    }
}

/// Where the serving primary's log ended when last heard of, and whether that was after the own end was read.
fn primary_position(
    daemon: &Daemon,
    node: &Node,
    state: &State,
    now: Moment,
) -> Option<(matriarch::cluster::Lsn, bool)> {
    let (holder, epoch) = state.primacy.held()?;
    let seen = daemon
        .word
        .digest
        .iter()
        .find(|seen| seen.report.member() == holder)?;
    view::serves(&seen.report, epoch).then_some(())?;
    let position = seen.report.postgres.as_ref()?.location?;
    if seen.age_ms + now.since(daemon.word.at) > STALE_MS {
        return None;
    }
    let age_ms = seen.age_ms + 2 * node.settings.report_interval_ms;
    Some((
        position,
        daemon.word.at.0.saturating_sub(age_ms) > daemon.holdings.end_at.0,
    ))
}

/// The primary's place, if its newest report shows that it serves; `checkpointed` asks for more.
pub fn primary_endpoint(daemon: &Daemon, state: &State, checkpointed: bool, now: Moment) -> Option<usize> {
    let (holder, epoch) = state.primacy.held()?;
    let seen = daemon
        .word
        .digest
        .iter()
        .find(|seen| seen.report.member() == holder)?;
    let ready = !checkpointed || seen.report.postgres.as_ref().is_some_and(|p| p.checkpointed);
    (view::serves(&seen.report, epoch) && ready && now.since(daemon.word.at) < 3_000)
        .then(|| place(state, holder))
}

/// Where a member stands in the list of nodes.
pub fn place(state: &State, name: &matriarch::cluster::MemberName) -> usize {
    state
        .member(name)
        .map_or(0, |member| ((member.info.raft_id - 1) % JOINED) as usize)
}

fn note_standby(daemon: &mut Daemon, pg: &super::postgres::Pg, state: &State, well: bool, now: Moment) {
    let Some(probe) = daemon
        .probe
        .clone()
        .filter(|probe| probe.pm == pg.pm && pg.is_up())
    else {
        daemon.adrift_since = None;
        return;
    };
    let seen = daemon
        .timeline_seen
        .filter(|(of, _)| *of == pg.pm)
        .map(|(_, timeline)| timeline);
    if let Some(timeline) = probe.timeline.max(seen) {
        daemon.timeline_seen = Some((pg.pm, timeline));
        daemon.holdings.fork = pg.fork(timeline).or(daemon.holdings.fork);
    }
    if !probe.in_recovery {
        return;
    }
    if probe.streaming && well && state.is_confirmed() && probe.timeline == state.timeline() {
        daemon.streamed_in = Some((pg.pm, state.epoch));
    }
    if probe.streaming || !well {
        daemon.adrift_since = None;
        if let Data::Present { end, .. } = &mut daemon.holdings.data {
            *end = None;
        }
        return;
    }
    let since = *daemon.adrift_since.get_or_insert(now);
    if now.since(since) > DOUBT_MS
        && let (Some((_, timeline)), Some(lsn)) = (daemon.timeline_seen, probe.replayed)
    {
        daemon.holdings.set_end(Some(WalEnd { timeline, lsn }), now);
    }
}

fn postgres_report(node: &Node, daemon: &Daemon) -> PostgresReport {
    let process = process(node, daemon);
    let state = match (&daemon.job, process) {
        (Some((_, Purpose::Clone(_))), _) => PostgresState::CreatingReplica,
        (Some((_, Purpose::Fence | Purpose::Stop)), Process::Up(_)) => PostgresState::Stopping,
        (_, Process::Up(Some(_))) => PostgresState::Running,
        (_, Process::Up(None)) => PostgresState::Starting,
        (_, Process::Ending) => PostgresState::Stopping,
        (_, Process::Down) if daemon.ended.is_some() => PostgresState::Crashed,
        _ => PostgresState::Stopped,
    };
    let role = match process {
        Process::Up(Some(role)) => role,
        _ if daemon.ended.is_some() => Role::Demoted,
        _ => Role::Replica,
    };
    let mut report = PostgresReport {
        state,
        role,
        system_id: Some(SYSTEM),
        timeline: daemon.holdings.timeline,
        fork: daemon.holdings.fork,
        ..PostgresReport::default()
    };
    let Some(probe) = daemon
        .probe
        .clone()
        .filter(|probe| probe.pm == node.pg.pm && node.pg.is_up())
    else {
        return report;
    };
    let seen = daemon
        .timeline_seen
        .filter(|(of, _)| *of == node.pg.pm)
        .map(|(_, timeline)| timeline);
    report.timeline = probe.timeline.max(seen).max(report.timeline);
    if probe.in_recovery {
        report.received = probe.received;
        report.replayed = probe.replayed;
        report.replication_state = probe.streaming.then(|| "streaming".to_owned());
        report.streamed_in = daemon
            .streamed_in
            .filter(|(of, _)| *of == node.pg.pm)
            .map(|(_, epoch)| epoch);
    } else {
        report.location = probe.location;
        report.checkpointed = daemon.checkpointed.is_some() && daemon.checkpointed == daemon.running;
    }
    report
}

/// What the leader should hear of at once.
fn gist(report: &Report) -> impl PartialEq + use<> {
    let postgres = report.postgres.as_ref().map(|p| {
        let stream = (p.streamed_in, p.replication_state.clone());
        (p.state, p.role, p.timeline, p.fork, p.checkpointed, stream)
    });
    (
        report.info.clone(),
        report.tenure.clone(),
        postgres,
        report.unpromotable.clone(),
        (report.promise, report.synced, report.rearmed),
    )
}

/// Everybody is fit at the beginning.
pub fn fit() -> Fitness {
    Fitness::Fit
}
