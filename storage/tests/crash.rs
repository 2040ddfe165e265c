//! kill -9 again and again: nothing acknowledged is missing, the vote never regresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Chance, Judge};

const HERDS: u64 = 4;
const KILLS_EACH: usize = 55;

#[test]
fn child() {
    common::child();
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let killers: Vec<_> = (0..HERDS)
        .map(|seed| std::thread::spawn(move || kill_again_and_again(seed)))
        .collect();
    let heard: usize = killers.into_iter().map(|killer| killer.join().unwrap()).sum();
    let kills = HERDS as usize * KILLS_EACH;
    println!("{kills} kills, {heard} acknowledgements checked");
    assert!(
        kills >= 200 && heard > 50 * kills,
        "the kills must hit a writing child"
    );
}

fn kill_again_and_again(seed: u64) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance(seed);
    let mut judge = Judge::default();
    for kill in 0..KILLS_EACH {
        let (mut child, mut lines) = common::spawn(dir.path(), true);
        // One in eight dies before or while it opens the store.
        let enough = if chance.below(8) == 0 {
            0
        } else {
            1 + chance.below(300) as usize
        };
        let heard_before = judge.lines;
        while judge.lines - heard_before < enough {
            judge.hear(&lines.next().expect("the child lives until it is killed"));
        }
        child.kill().unwrap();
        lines.for_each(|line| judge.hear(&line));
        child.wait().unwrap();
        judge
            .verdict(dir.path())
            .unwrap_or_else(|what| panic!("herd {seed}, kill {kill}: {what}"));
    }
    judge.lines
}
