//! Seeded lives of a cluster in a modelled world, and the same with one protection switched off at a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch::cluster::SyncMode;
use matriarch_chaos::sim::{Flaw, Plan, World};

/// Short runs, every mode in turn, a cut that never heals in one of seven.
const RUNS: u64 = 300;

/// Seeds that once broke a promise, by a defect in the judgement or in the model of the world. They stay.
const ONCE_BROKEN: [u64; 12] = [7, 28, 49, 91, 116, 119, 151, 175, 245, 259, 734, 2083];

#[test]
fn no_short_life_breaks_a_promise() {
    for seed in (1..=RUNS).chain(ONCE_BROKEN) {
        let verdict = World::new(Plan::short(seed)).run();
        assert!(verdict.is_ok(), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn a_seed_replays_itself_exactly() {
    let told = |seed| {
        let mut world = World::new(Plan {
            trace: true,
            ..Plan::short(seed)
        });
        let verdict = world.run();
        (verdict, world.trace)
    };
    for seed in [4, 5, 6] {
        let (first, again) = (told(seed), told(seed));
        assert!(first.1.len() > 20, "nothing happens in seed {seed}");
        assert_eq!(first, again, "seed {seed}");
    }
}

/// Each protection, in which mode its absence shows, and within how many runs. Two flaws of the model are not here:
/// `NoReignCheck` and `PromiseIsForgotten` were not noticed within 300 runs, because other protections stand before
/// them; the reign is tested by text in `cluster/apply_test.rs`.
const INVERSIONS: [(Flaw, SyncMode, u64); 15] = [
    (Flaw::NewLeaderDoesNotWait, SyncMode::Off, 300),
    (Flaw::AnswersWithoutQuorum, SyncMode::Off, 300),
    (Flaw::DeadlineFromReceipt, SyncMode::Off, 300),
    (Flaw::WaitIsShortened, SyncMode::Off, 100),
    (Flaw::EpochIsReused, SyncMode::Off, 100),
    (Flaw::NoGuard, SyncMode::Off, 100),
    (Flaw::GuardIsLate, SyncMode::Off, 100),
    (Flaw::NamesBeforeTheRecord, SyncMode::On, 100),
    (Flaw::SettledWithoutProof, SyncMode::Quorum, 300),
    (Flaw::BarrierIsSkipped, SyncMode::Quorum, 300),
    (Flaw::OneStandbyIsHeard, SyncMode::Quorum, 100),
    (Flaw::ReplayPositionReported, SyncMode::Quorum, 100),
    (Flaw::OrphansAreNotReaped, SyncMode::Off, 100),
    (Flaw::TimelinesCollide, SyncMode::Off, 100),
    (Flaw::RewindIsSkipped, SyncMode::Off, 100),
];

/// The first seed in which the judge notices, and what.
fn noticed(flaw: Flaw, mode: SyncMode, within: u64) -> Option<(u64, String)> {
    (1..=within).find_map(|seed| {
        let mut world = World::new(Plan {
            mode,
            flaw: Some(flaw),
            calm_ms: 0,
            one_way_for_ever: false,
            ..Plan::short(seed)
        });
        // A life that does not come to rest is no broken promise here: only what was seen to happen counts.
        world
            .run()
            .err()
            .filter(|what| !what.contains("P5"))
            .map(|what| (seed, what))
    })
}

#[test]
fn every_protection_is_needed() {
    let mut silent = Vec::new();
    for (flaw, mode, within) in INVERSIONS {
        match noticed(flaw, mode, within) {
            Some((seed, what)) => eprintln!("{flaw:?} in mode {mode:?}: seed {seed}: {what}"),
            None => silent.push(flaw),
        }
    }
    assert!(silent.is_empty(), "switched off, and nobody noticed: {silent:?}");
}
