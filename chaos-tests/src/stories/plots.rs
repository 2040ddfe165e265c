//! The plots: faults strung together into stories, each told for its own sake or against a missing protection.

use super::bend::Bend;
use super::faults::{Fault, Who};
use super::net::Weather;
use super::random::Dice;
use matriarch::cluster::SyncMode;

/// The story of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// Anything, at any time.
    Mix,
    /// The primary is cut off and its daemon hangs.
    CutAndHung,
    /// The leader hears nobody, then dies while the primary is cut off.
    LeaderDeaf,
    /// The leader dies together with the way to the primary.
    LeaderLost,
    /// The lead is handed over a moment before the primary is cut off.
    HandOverAndCut,
    /// Answers arrive late, then not at all.
    LateAnswers,
    /// The primary leads, and is cut off.
    LeadsAndServes,
    /// A longer `ttl` is lowered while the primary is cut off.
    TtlLowered,
    /// The postmaster of the primary dies again and again.
    PostmasterDies,
    /// A new holder learns of its epoch late.
    LateHolder,
    /// The standbys are dropped, and the primary dies on the way.
    NarrowAndDie,
    /// Nothing reaches the standbys, and the primary dies.
    LagAndDie,
    /// One that promised crashes.
    PromiseAndCrash,
    /// One standby is behind when the primary dies.
    OneBehind,
    /// A standby that has not replayed what it has is restarted, then the primary dies.
    RestartedStandby,
    /// A promoted node loses power before it can say so.
    PromotedAndGone,
    /// The primary is started again with what nobody acknowledged, and dies.
    RestartAndDie,
    /// The primary comes back with records that its successor lacks.
    TailLost,
    /// An operator wants another primary, and nothing else happens.
    SwitchCalm,
    /// The same, and the candidate has not received everything.
    SwitchBehind,
    /// The same, with anything at any time.
    SwitchMix,
    /// A pause in which the primary ends, and its end.
    PauseAndDie,
    /// A pause of everything, cuts included, and its end.
    PauseMix,
    /// Switchovers at a time, and nothing else happens.
    ScheduledCalm,
    /// An operator names one for a failover that lacks something, and says nothing of a loss.
    FailoverBehind,
    /// The same with the word that it may be lost.
    FailoverLossy,
    /// Both standbys are never to be promoted, and the primary dies.
    TagAndDie,
    /// A standby is taken out and let in again, and nothing else happens.
    TakenOut,
    /// All of what operators may want, with anything at any time.
    OrdersMix,
}

impl Plot {
    const TOLD: [Self; 28] = [
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
        Self::SwitchCalm,
        Self::SwitchBehind,
        Self::SwitchMix,
        Self::PauseAndDie,
        Self::PauseMix,
        Self::ScheduledCalm,
        Self::FailoverBehind,
        Self::FailoverLossy,
        Self::TagAndDie,
        Self::TakenOut,
        Self::OrdersMix,
    ];

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let all = Self::TOLD.into_iter().chain([Self::Mix]);
        all.into_iter()
            .find(|plot| format!("{plot:?}").eq_ignore_ascii_case(name))
    }

    /// The names of all.
    pub fn names() -> String {
        let all = std::iter::once(Self::Mix).chain(Self::TOLD);
        all.map(|plot| format!("{plot:?}")).collect::<Vec<_>>().join(", ")
    }

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
            Bend::CandidateUnchecked => (Self::SwitchBehind, off),
            Bend::HandsOn => (Self::PauseAndDie, off),
            Bend::PauseTimed => (Self::PauseMix, off),
            Bend::LossUnasked => (Self::FailoverBehind, sync),
            Bend::TimeIgnored => (Self::ScheduledCalm, off),
            Bend::TagUnheard => (Self::TagAndDie, off),
            Bend::LeaverStays => (Self::TakenOut, sync),
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
            Self::SwitchCalm => vec![
                (t - 3_000, F::Switchover(None)),
                (t + 3_000, F::Settled),
                (t + 3_500, F::Switchover(Some(Third))),
                (t + 9_500, F::Settled),
            ],
            Self::SwitchBehind => vec![
                (t, F::Starve(Third, dice.between(2_000, 9_000))),
                (t + dice.between(20, 300), F::Switchover(Some(Third))),
            ],
            Self::SwitchMix => {
                let mut faults = mix(mode, dice);
                let asked = dice.between(3_000, 14_000);
                faults.push((asked, F::Switchover(dice.chance(60).then(|| anybody(dice)))));
                for _ in 0..dice.between(1, 4) {
                    faults.push((asked + dice.between(0, 1_200), any(mode, dice)));
                }
                faults
            }
            Self::PauseAndDie => vec![
                (t - 2_000, F::Pause(dice.between(5_000, 8_000))),
                (
                    t,
                    [F::KillPostmaster(Primary), F::CrashNode(Primary, 1_000)][dice.below(2)],
                ),
                (t + 500, F::KillPostmaster(Third)),
            ],
            Self::PauseMix => {
                let ms = dice.between(1_000, 9_000);
                let mut faults = vec![
                    (t - 2_000, F::Pause(ms)),
                    (t, F::Isolate(Primary, dice.between(3_000, 8_000))),
                ];
                if dice.chance(50) {
                    faults.push((
                        t - 2_000 + dice.between(0, ms),
                        F::Switchover(Some(anybody(dice))),
                    ));
                }
                for _ in 0..dice.below(4) {
                    faults.push((t + dice.between(0, 6_000), any(mode, dice)));
                }
                faults
            }
            Self::ScheduledCalm => vec![
                (t - 4_000, F::Schedule(None, 1_500)),
                (t + 3_500, F::Settled),
                (t + 3_600, F::Schedule(Some(Third), 1_000)),
                (t + 9_500, F::Settled),
            ],
            Self::FailoverBehind => vec![
                (t, F::Starve(Third, dice.between(2_000, 9_000))),
                (t + dice.between(20, 300), F::Failover(Third)),
            ],
            Self::FailoverLossy => vec![
                (t, F::Starve(Third, dice.between(2_000, 9_000))),
                (t + dice.between(20, 4_000), F::FailoverLossy(Third)),
                (t + dice.between(20, 3_000), any(mode, dice)),
            ],
            Self::TagAndDie => vec![
                (900, F::Tag(Leader, true)),
                (900, F::Tag(Third, true)),
                (dice.between(13_000, 14_000), F::CrashNode(Primary, 3_000)),
            ],
            Self::TakenOut => vec![
                (t - 4_000, F::TakeOut(Third, 4_000)),
                (t - 500, F::Left),
                (t + 8_500, F::Joined),
                (t + 8_500, F::Settled),
            ],
            Self::OrdersMix => {
                let mut faults = mix(mode, dice);
                for _ in 0..dice.between(1, 6) {
                    faults.push((dice.between(1_000, 16_000), order(dice)));
                }
                if dice.chance(20) {
                    faults.extend(given_up(dice));
                }
                // Misfortunes while it is under way.
                let asked = dice.between(3_000, 14_000);
                faults.push((asked, order(dice)));
                for _ in 0..dice.between(1, 4) {
                    faults.push((asked + dice.between(0, 1_200), any(mode, dice)));
                }
                faults
            }
        }
    }
}

fn order(dice: &mut Dice) -> Fault {
    let who = anybody(dice);
    let ms = dice.between(50, 5_000);
    match dice.below(11) {
        0 | 1 => Fault::Schedule(dice.chance(60).then_some(who), ms),
        2 => Fault::Unscheduled,
        3 | 4 => Fault::FailoverLossy(who),
        5 => Fault::Failover(who),
        6 => Fault::Tag(who, dice.chance(70)),
        7 | 8 => Fault::TakeOut(who, ms),
        9 => Fault::AcceptLoss(who),
        _ => Fault::Pause(ms),
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

/// The primary's machine is lost, often in a pause, and an operator gives it up.
fn given_up(dice: &mut Dice) -> Vec<(u64, Fault)> {
    let at = dice.between(4_000, 14_000);
    let mut faults = vec![
        (at, Fault::CrashNode(Who::Primary, dice.between(1_500, 6_000))),
        (at + dice.between(100, 1_500), Fault::AcceptLoss(anybody(dice))),
    ];
    if dice.chance(60) {
        let before = at - dice.between(1, 1_500);
        faults.push((before, Fault::Pause(dice.between(1_000, 6_000))));
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
    match dice.below(27) {
        23 | 24 => Fault::Switchover(dice.chance(60).then(|| anybody(dice))),
        25 => Fault::Failover(who),
        26 => Fault::Pause(ms),
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
