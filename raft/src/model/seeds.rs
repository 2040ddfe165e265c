//! The runs, and the protections without which a run is seen to fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::run::{Outcome, run};
use crate::model::world::Bend;

/// Runs of one ordinary test; `MODEL_SEEDS` for more.
const RUNS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn tell(seed: u64, outcome: &Outcome, lines: usize) -> String {
    let from = outcome.trace.len().saturating_sub(lines);
    let why = outcome.broken.as_deref().unwrap_or("nothing is broken");
    format!("{}\nseed {seed}: {why}", outcome.trace[from..].join("\n"))
}

#[test]
fn nothing_agreed_is_lost_whatever_happens() {
    if let Some(seed) = number("MODEL_SEED") {
        println!("{}", tell(seed, &run(seed, Bend::Nothing), usize::MAX));
        return;
    }
    let runs = number("MODEL_SEEDS").unwrap_or(RUNS);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let next = AtomicU64::new(0);
    let one_after_the_other = || -> Vec<Outcome> {
        let seeds =
            std::iter::repeat_with(|| next.fetch_add(1, Ordering::SeqCst)).take_while(|seed| *seed < runs);
        let play = |seed| {
            let outcome = run(seed, Bend::Nothing);
            assert!(outcome.broken.is_none(), "{}", tell(seed, &outcome, 200));
            outcome
        };
        seeds.map(play).collect()
    };
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(one_after_the_other)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    let simulated: Duration = outcomes.iter().map(|outcome| outcome.lasted).sum();
    let slowest = outcomes.iter().map(|outcome| outcome.healed_in).max();
    let acknowledged: usize = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    let reigns: usize = outcomes.iter().map(|outcome| outcome.reigns).sum();
    println!(
        "{runs} runs, {simulated:?}: {acknowledged} acknowledged, {reigns} reigns, whole again within {slowest:?}"
    );
    assert!(
        reigns as u64 > 2 * runs,
        "the faults moved nothing: {reigns} reigns"
    );
    assert!(
        acknowledged as u64 > 50 * runs,
        "hardly anything was agreed: {acknowledged}"
    );
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 4] {
        let (first, second) = (run(seed, Bend::Nothing), run(seed, Bend::Nothing));
        let parted = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        if let Some(line) = parted {
            panic!(
                "seed {seed} parts at line {line}: {:?} and {:?}",
                first.trace[line], second.trace[line]
            );
        }
        assert_eq!(first.trace.len(), second.trace.len());
    }
}

/// The first seed at which the judge sees that a protection is missing.
fn noticed(bend: Bend, within: u64) -> u64 {
    let found = (0..within).find(|seed| run(*seed, bend).broken.is_some());
    println!("{bend:?}: {found:?}");
    found.unwrap_or_else(|| panic!("{bend:?} was not noticed in {within} runs"))
}

#[test]
fn entries_that_are_acknowledged_before_they_are_durable_are_noticed() {
    noticed(Bend::AnswersBeforeSync, 20);
}

#[test]
fn votes_that_are_given_before_they_are_durable_are_noticed() {
    noticed(Bend::VoteNotSynced, 20);
}

#[test]
fn a_leader_that_does_not_ask_the_quorum_is_noticed() {
    noticed(Bend::NotConfirmed, 20);
}
