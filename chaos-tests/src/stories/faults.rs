//! What goes wrong: single faults, aimed at roles, and the plots that string them together.

use super::agent::place;
use super::bend::Bend;
use super::net::Weather;
use super::postgres::Proc;
use super::random::Dice;
use super::world::{Event, World};
use matriarch::cluster::{Act, Command, SyncMode, Vote};
use std::rc::Rc;

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
    /// The next node that promised loses its daemon.
    CrashOnPromise,
    /// The next promoted node loses power before it can say so.
    CrashOnPromotion,
    /// The next node that learns that it holds an epoch is stopped for a while, and Raft does not reach it.
    PauseOnEpoch,
}

/// The story of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Anything, at any time.
    Mix,
    CutAndHung,
    LeaderDeaf,
    LeaderLost,
    HandOverAndCut,
    LateAnswers,
    LeadsAndServes,
    TtlLowered,
    PostmasterDies,
    LateHolder,
    NarrowAndDie,
    LagAndDie,
    PromiseAndCrash,
    OneBehind,
    RestartedStandby,
    PromotedAndGone,
    RestartAndDie,
    TailLost,
}

impl Plot {
    const TOLD: [Self; 17] = [
        Self::CutAndHung,
        Self::LeaderDeaf,
        Self::LeaderLost,
        Self::HandOverAndCut,
        Self::LateAnswers,
        Self::LeadsAndServes,
        Self::TtlLowered,
        Self::PostmasterDies,
        Self::LateHolder,
        Self::NarrowAndDie,
        Self::LagAndDie,
        Self::PromiseAndCrash,
        Self::OneBehind,
        Self::RestartedStandby,
        Self::PromotedAndGone,
        Self::RestartAndDie,
        Self::TailLost,
    ];

    /// The story that brings a missing protection to light, and the mode it is told in.
    pub fn against(bend: Bend, dice: &mut Dice) -> (Self, SyncMode) {
        let sync = SyncMode::Quorum;
        let off = SyncMode::Off;
        match bend {
            Bend::No => {
                let plot = if dice.chance(55) {
                    Self::Mix
                } else {
                    Self::TOLD[dice.below(Self::TOLD.len())]
                };
                let mode = [SyncMode::Off, SyncMode::On, SyncMode::Quorum, SyncMode::Quorum][dice.below(4)];
                (plot, mode)
            }
            Bend::NoWaitByANewLeader => (Self::LeaderLost, off),
            Bend::WaitFromNoticing => (Self::LeaderDeaf, off),
            Bend::AnswerUnconfirmed => (Self::LeadsAndServes, off),
            Bend::DeadlineFromReceipt => (Self::LateAnswers, off),
            Bend::WaitLessVoteLease => (Self::HandOverAndCut, off),
            Bend::EpochReused => (Self::PostmasterDies, off),
            Bend::TtlUnsettled => (Self::TtlLowered, off),
            Bend::GuardLate | Bend::GuardMissing => (Self::CutAndHung, off),
            Bend::AnyEpochLeased => (Self::LateHolder, off),
            Bend::NamesBeforeRecord => (Self::NarrowAndDie, sync),
            Bend::SettleUnproved => (Self::LagAndDie, sync),
            Bend::PromiseForgotten => (Self::PromiseAndCrash, sync),
            Bend::OneHeard => (Self::OneBehind, sync),
            Bend::SaidPosition => (Self::RestartedStandby, sync),
            Bend::OrphansLeft => (Self::PostmasterDies, off),
            Bend::TimelineUnreserved => (Self::PromotedAndGone, off),
            Bend::BarrierSkipped => (Self::RestartAndDie, sync),
            Bend::RewindSkipped => (Self::TailLost, off),
        }
    }

    /// The faults and when they happen, milliseconds.
    pub fn told(self, mode: SyncMode, dice: &mut Dice) -> Vec<(u64, Fault)> {
        use Fault as F;
        use Who::{Leader, Primary, Third};
        let t = dice.between(7_500, 8_500);
        let long = 9_000;
        match self {
            Self::Mix => mix(mode, dice),
            Self::CutAndHung => vec![(t, F::Isolate(Primary, long)), (t, F::PauseDaemon(Primary, long))],
            Self::LeaderDeaf => {
                let then = t + dice.between(1_300, 1_800);
                vec![
                    (t, F::Cut(Leader, Third, false, then - t)),
                    (then, F::CrashDaemon(Leader, 60)),
                    (then, F::Isolate(Primary, long)),
                    (then, F::PauseDaemon(Primary, long)),
                ]
            }
            Self::LeaderLost => vec![
                (t, F::CrashDaemon(Leader, dice.between(50, 400))),
                (t, F::Isolate(Primary, long)),
                (t, F::PauseDaemon(Primary, long)),
            ],
            Self::HandOverAndCut => vec![
                (t, F::HandOver(Third)),
                (t + dice.between(2, 6), F::Isolate(Primary, long)),
                (t + 6, F::PauseDaemon(Primary, long)),
            ],
            Self::LateAnswers => {
                let slow = Weather {
                    slow: 100,
                    slow_ms: 240,
                    ..Weather::default()
                };
                vec![
                    (t, F::Weather(slow, true)),
                    (t + 2_000 + dice.between(0, 300), F::Isolate(Primary, long)),
                    (t + 2_400, F::PauseDaemon(Primary, long)),
                ]
            }
            Self::LeadsAndServes => vec![
                (t, F::HandOver(Primary)),
                (t + dice.between(500, 1_500), F::Isolate(Primary, long)),
            ],
            Self::TtlLowered => vec![
                (t - 3_000, F::Ttl(6_000)),
                (t, F::Isolate(Primary, long)),
                (t, F::PauseDaemon(Primary, long)),
                (t + dice.between(50, 900), F::Ttl(2_000)),
            ],
            Self::PostmasterDies => vec![
                (t, F::KillPostmaster(Primary)),
                (t + 4_000, F::KillPostmaster(Primary)),
                (t + 8_000, F::KillPostmaster(Primary)),
            ],
            Self::LateHolder => vec![
                (t, F::StarveAll(1_500)),
                (t + 200, F::PauseOnEpoch),
                (t + 300, F::KillPostmaster(Primary)),
            ],
            Self::NarrowAndDie => {
                let dies = t + dice.between(1_300, 2_500);
                vec![
                    (t, F::StarveAll(12_000)),
                    (dies, F::CrashNode(Primary, long)),
                    (dies + 1, F::CrashDaemon(Leader, 60)),
                    (t + 2_550, F::Feed),
                ]
            }
            Self::LagAndDie => {
                let t = dice.between(2_500, 5_000);
                vec![
                    (t, F::StarveAll(3_000)),
                    (t + dice.between(300, 900), F::CrashNode(Primary, long)),
                    (t + 950, F::Feed),
                ]
            }
            Self::PromiseAndCrash => vec![
                (t, F::Starve(Third, 3_000)),
                (t + 350, F::CrashOnPromise),
                (t + 400, F::Cut(Primary, Leader, true, long)),
            ],
            Self::OneBehind => vec![
                (t, F::Starve(Third, 2_000)),
                (t + dice.between(300, 900), F::CrashNode(Primary, long)),
            ],
            Self::RestartedStandby => vec![
                (t - 1_500, F::SlowReplay(Leader, true)),
                (t, F::Starve(Third, 3_000)),
                (t + 300, F::KillPostmaster(Leader)),
                (t + 301, F::StarveAll(2_000)),
                (t + 900, F::CrashNode(Primary, long)),
            ],
            Self::PromotedAndGone => vec![(t, F::CrashOnPromotion), (t, F::CrashNode(Primary, 1_000))],
            Self::RestartAndDie => vec![
                (t, F::StarveAll(6_000)),
                (t + 200, F::KillPostmaster(Primary)),
                (t + dice.between(450, 750), F::CrashNode(Primary, long)),
                (t + 760, F::Feed),
            ],
            Self::TailLost => vec![(t, F::StarveAll(400)), (t + 300, F::CrashNode(Primary, 5_000))],
        }
    }
}

fn mix(mode: SyncMode, dice: &mut Dice) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    if dice.chance(40) {
        let weather = Weather {
            loss: dice.between(0, 12),
            twice: dice.between(0, 10),
            slow: dice.between(0, 30),
            slow_ms: dice.between(1, 400),
        };
        faults.push((dice.between(0, 5_000), Fault::Weather(weather, dice.chance(40))));
    }
    for _ in 0..dice.between(2, 9) {
        let at = dice.between(500, 17_000);
        faults.push((at, any(mode, dice)));
    }
    // Misfortunes rarely come alone: a few more while a failover is under way.
    if dice.chance(60) {
        let at = dice.between(4_000, 14_000);
        let first = [
            Fault::CrashNode(Who::Primary, 3_000),
            Fault::Isolate(Who::Primary, 3_000),
            Fault::KillPostmaster(Who::Primary),
        ];
        faults.push((at, first[dice.below(3)]));
        for _ in 0..dice.between(1, 5) {
            faults.push((at + dice.between(0, 1_500), any(mode, dice)));
        }
    }
    faults
}

fn anybody(dice: &mut Dice) -> Who {
    [
        Who::Primary,
        Who::Primary,
        Who::Leader,
        Who::Third,
        Who::Node(0),
        Who::Node(1),
        Who::Node(2),
    ][dice.below(7)]
}

fn any(mode: SyncMode, dice: &mut Dice) -> Fault {
    let who = anybody(dice);
    let ms = if dice.chance(50) {
        dice.between(20, 900)
    } else {
        dice.between(900, 6_000)
    };
    match dice.below(23) {
        20 => Fault::CrashOnPromise,
        21 => Fault::CrashOnPromotion,
        22 => Fault::PauseOnEpoch,
        0 | 1 => Fault::Isolate(who, ms),
        2 => Fault::Cut(who, anybody(dice), false, ms),
        3 => Fault::Cut(who, anybody(dice), true, ms),
        4 | 5 => Fault::CrashNode(who, ms),
        6 | 7 => Fault::CrashDaemon(who, ms),
        8 => Fault::CrashGuard(who),
        9 | 10 => Fault::KillPostmaster(who),
        11 | 12 => Fault::PauseDaemon(who, ms),
        // Without synchronous standbys a machine that stands still needs its watchdog, which is a power cut.
        13 if mode != SyncMode::Off => Fault::PauseNode(who, ms),
        13 => Fault::CrashNode(who, ms),
        14 => Fault::SlowReplay(who, true),
        15 => Fault::SlowPromotion(who, true),
        16 => Fault::Starve(who, ms),
        17 => Fault::StarveAll(ms),
        18 => Fault::Ttl(dice.between(1_700, 5_000)),
        _ => Fault::HandOver(who),
    }
}

impl World {
    fn who(&self, who: Who) -> usize {
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
        if self.healed {
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
            Fault::CrashOnPromise => self.net.traps.promise = true,
            Fault::CrashOnPromotion => self.net.traps.promotion = true,
            Fault::PauseOnEpoch => self.net.traps.epoch = true,
            _ => {}
        }
    }

    /// An operator changes the ttl, at whoever leads.
    fn configure_ttl(&mut self, ttl_ms: u64) {
        let leader = self.who(Who::Leader);
        let node = &self.nodes[leader];
        let Some(term) = node.raft.lead(self.now, true).filter(|_| node.daemon.is_some()) else {
            return;
        };
        let command = Command {
            expected: None,
            vote: Vote {
                term,
                node: leader as u64 + 1,
            },
            rule: "operator".to_owned(),
            reason: String::new(),
            at_ms: 0,
            act: Act::Configure {
                paused: false,
                config: super::with_ttl(&node.state.config, ttl_ms),
                ttl_ms,
            },
        };
        if let Some((_, _, out)) = self.nodes[leader].raft.propose(Rc::new(command), self.now) {
            self.send_raft(leader, out);
            self.after_raft(leader);
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
        }
        self.note_reach();
    }
}
