//! What goes wrong: single faults, aimed at roles.

use super::agent::place;
use super::net::Weather;
use super::postgres::Proc;
use super::world::{Event, World};

/// Whom a fault hits; a role is looked up when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Primary,
    Leader,
    /// A node that is neither.
    Third,
    Node(usize),
}

/// One fault; a time is how long it lasts, milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Isolate(Who, u64),
    Cut(Who, Who, bool, u64),
    Mend(usize, usize, bool),
    Weather(Weather, bool),
    CrashNode(Who, u64),
    CrashDaemon(Who, u64),
    CrashGuard(Who),
    KillPostmaster(Who),
    PauseDaemon(Who, u64),
    PauseNode(Who, u64),
    SlowReplay(Who, bool),
    SlowPromotion(Who, bool),
    /// WAL does not reach this standby, everything else does.
    Starve(Who, u64),
    StarveAll(u64),
    Feed,
    Ttl(u64),
    HandOver(Who),
    /// An operator wants another primary: the one named, or the best.
    Switchover(Option<Who>),
    /// The same, in so many milliseconds.
    Schedule(Option<Who>, u64),
    Failover(Who),
    /// An operator who knows that the primary's machine is off accepts what that costs.
    AcceptLoss(Who),
    /// The same with the operator's word that acknowledged rows may be lost.
    FailoverLossy(Who),
    /// What is scheduled is deleted.
    Unscheduled,
    /// Its file says from now on whether it may never be promoted.
    Tag(Who, bool),
    /// An operator takes a member out, and lets it in again after so long.
    TakeOut(Who, u64),
    LetIn(usize),
    /// Nothing has disturbed the leaving or the coming back of a member: it has come about.
    Left,
    Joined,
    /// An operator pauses the cluster for so long.
    Pause(u64),
    Resume,
    /// Nothing has disturbed what an operator asked for: it has come about or is called off.
    Settled,
    /// The next node that promised loses its daemon.
    CrashOnPromise,
    /// The next promoted node loses power before it can say so.
    CrashOnPromotion,
    /// The next node that learns that it holds an epoch is stopped for a while, and Raft does not reach it.
    PauseOnEpoch,
}

impl World {
    pub fn who(&self, who: Who) -> usize {
        let state = self.agreed();
        let primary = state.primacy.last().map_or(0, |(name, _)| place(state, name));
        let leader = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].raft.believes_to_lead())
            .max_by_key(|n| self.nodes[*n].raft.term)
            .unwrap_or(0);
        match who {
            Who::Primary => primary,
            Who::Leader => leader,
            Who::Node(n) => n,
            Who::Third => {
                let free = |n: &usize| *n != primary && *n != leader;
                (0..self.nodes.len()).find(free).unwrap_or(0)
            }
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        if self.healed && !matches!(fault, Fault::Resume | Fault::LetIn(_)) {
            return;
        }
        self.say(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::Isolate(who, ms) => {
                let n = self.who(who);
                self.net.isolate(n, true);
                self.soon(ms, ms + 1, Event::Fault(Fault::Mend(n, n, true)));
            }
            Fault::Cut(from, to, both, ms) => {
                let (from, to) = (self.who(from), self.who(to));
                self.net.cut(from, to, true);
                if both {
                    self.net.cut(to, from, true);
                }
                self.soon(ms, ms + 1, Event::Fault(Fault::Mend(from, to, both)));
            }
            Fault::Mend(from, to, both) => {
                if from == to {
                    self.net.isolate(from, false);
                }
                self.net.cut(from, to, false);
                if both {
                    self.net.cut(to, from, false);
                }
            }
            Fault::Weather(weather, calm) => {
                self.net.weather = weather;
                self.net.raft_calm = calm;
            }
            Fault::Starve(who, ms) => {
                let n = self.who(who);
                self.net.starved[n] = true;
                self.soon(ms, ms + 1, Event::Fault(Fault::Feed));
            }
            Fault::StarveAll(ms) => {
                self.net.starved.fill(true);
                self.soon(ms, ms + 1, Event::Fault(Fault::Feed));
            }
            Fault::Feed => self.net.starved.fill(false),
            _ => self.process_fault(fault),
        }
        self.note_reach();
    }

    fn process_fault(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::CrashNode(who, ms) => {
                let n = self.who(who);
                self.crash_node(n);
                self.soon(ms, ms + 300, Event::BootNode(n));
            }
            Fault::CrashDaemon(who, ms) => {
                let n = self.who(who);
                self.crash_daemon(n);
                self.soon(ms, ms + 30, Event::BootDaemon(n));
            }
            Fault::CrashGuard(who) => {
                let n = self.who(who);
                if self.nodes[n].daemon.is_some() {
                    self.crash_guard(n);
                }
            }
            Fault::KillPostmaster(who) => {
                let n = self.who(who);
                let pm = self.nodes[n].pg.pm;
                self.kill_postmaster(n, pm, true);
            }
            Fault::PauseDaemon(who, ms) => {
                let n = self.who(who);
                self.nodes[n].daemon_paused_until = now + ms * 1_000;
            }
            Fault::PauseNode(who, ms) => {
                let n = self.who(who);
                self.nodes[n].paused_until = now + ms * 1_000;
                self.oracle.stood_still[n] = true;
            }
            Fault::SlowReplay(who, slow) => {
                let n = self.who(who);
                self.nodes[n].slow_replay = slow;
            }
            Fault::SlowPromotion(who, slow) => {
                let n = self.who(who);
                self.nodes[n].slow_promotion = slow;
            }
            Fault::Ttl(ttl_ms) => self.configure_ttl(ttl_ms),
            Fault::HandOver(to) => {
                let (leader, to) = (self.who(Who::Leader), self.who(to));
                let out = self.nodes[leader].raft.hand_over(to);
                if leader != to {
                    self.send_raft(leader, out);
                }
            }
            Fault::Switchover(to) => self.switchover(to, None),
            Fault::Schedule(to, in_ms) => self.switchover(to, Some(in_ms)),
            Fault::Failover(to) => self.failover(to, false),
            Fault::AcceptLoss(to) => self.accept_loss(to),
            Fault::FailoverLossy(to) => self.failover(to, true),
            Fault::Unscheduled => self.unschedule(),
            Fault::Tag(who, tagged) => {
                let n = self.who(who);
                self.tag(n, tagged);
            }
            Fault::TakeOut(who, ms) => {
                let n = self.who(who);
                self.take_out(n);
                self.soon(ms, ms + 1, Event::Fault(Fault::LetIn(n)));
            }
            Fault::LetIn(n) => self.let_in(n),
            Fault::Left => self.check_left(),
            Fault::Joined => self.check_joined(),
            Fault::Pause(ms) => {
                self.pause();
                self.soon(ms, ms + 1, Event::Fault(Fault::Resume));
            }
            Fault::Resume => self.resume(),
            Fault::Settled => self.check_settled(),
            Fault::CrashOnPromise => self.net.traps.promise = true,
            Fault::CrashOnPromotion => self.net.traps.promotion = true,
            Fault::PauseOnEpoch => self.net.traps.epoch = true,
            _ => {}
        }
    }

    /// A promise was made.
    pub fn spring_promise(&mut self, n: usize) {
        if n == self.who(Who::Third) && std::mem::take(&mut self.net.traps.promise) {
            self.net.starved.fill(false);
            self.soon(2, 4, Event::Fault(Fault::CrashDaemon(Who::Node(n), 60)));
        }
    }

    pub fn spring_promotion(&mut self, n: usize) {
        if std::mem::take(&mut self.net.traps.promotion) {
            self.after(1, Event::Fault(Fault::CrashNode(Who::Node(n), 9_000)));
        }
    }

    /// A node learns that it holds a new epoch.
    pub fn spring_epoch(&mut self, n: usize) {
        if std::mem::take(&mut self.net.traps.epoch) {
            self.net.raft_deaf[n] = true;
            self.nodes[n].daemon_paused_until = self.now + 2_900_000;
        }
    }

    /// Everything is well from now on, but perhaps for one direction of one link.
    pub fn heal(&mut self) {
        self.say(|| "everything is healed".to_owned());
        self.healed = true;
        self.net.heal();
        self.net.weather = Weather::default();
        if let Some((from, to)) = self.net.for_ever {
            self.net.cut(from, to, true);
        }
        let now = self.now;
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            node.paused_until = node.paused_until.min(now);
            node.daemon_paused_until = node.daemon_paused_until.min(now);
            node.slow_replay = false;
            node.slow_promotion = false;
            if node.pg.proc == Proc::Standby {
                node.pg.replayed = node.pg.flushed;
            }
            self.boot_node(n);
            self.boot_daemon(n);
            self.tag(n, false);
            self.let_in(n);
        }
        self.note_reach();
        self.resume();
    }
}
