//! Commits a second against the floor of the same disk in the same run; run it with `--ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::disallowed_methods, reason = "a measurement asks the time")]

use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use matriarch_storage::{Log, Options, Store};

const COMMITS: usize = 2_000;
const ROUNDS: usize = 5;
const ENTRY: [u8; 200] = [7; 200];

#[test]
#[ignore = "a measurement, not a check"]
fn single_commits_against_append_and_fdatasync() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), "herd", Options::default()).unwrap();
    let mut raw = std::fs::File::create(dir.path().join("raw")).unwrap();
    let mut next = 0;
    let (mut floor, mut ours, mut batched) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // The two take turns, so that the machine's other work falls on both.
        time(&mut floor, COMMITS, || {
            raw.write_all(&ENTRY).unwrap();
            raw.sync_data().unwrap();
        });
        time(&mut ours, COMMITS, || commit(&store, &mut next, 1));
        time(&mut batched, COMMITS / 10, || commit(&store, &mut next, 64));
        store.purge_to(next - 100, Vec::new()).unwrap();
    }
    let (floor, ours, batched) = (
        summary("raw append + fdatasync", 1, floor),
        summary("store, 1 a sync", 1, ours),
        summary("store, 64 a sync", 64, batched),
    );
    println!(
        "store / floor: {:.2} single, {:.1} batched",
        ours / floor,
        batched / floor
    );
}

fn commit(store: &Store, next: &mut u64, count: u64) {
    let (answer, outcome) = sync_channel(1);
    let entries = (*next..*next + count)
        .map(|index| (index, ENTRY.to_vec()))
        .collect();
    *next += count;
    store.append(entries, Box::new(move |result| answer.send(result).unwrap()));
    outcome.recv().unwrap().unwrap();
}

fn time(samples: &mut Vec<Duration>, times: usize, mut work: impl FnMut()) {
    for _ in 0..times {
        let begin = Instant::now();
        work();
        samples.push(begin.elapsed());
    }
}

fn summary(name: &str, entries: usize, mut samples: Vec<Duration>) -> f64 {
    let total: Duration = samples.iter().sum();
    samples.sort();
    let rate = (samples.len() * entries) as f64 / total.as_secs_f64();
    let at = |part: usize| samples[samples.len() * part / 100];
    println!("{name:24} {rate:9.0} /s   p50 {:?}   p99 {:?}", at(50), at(99));
    rate
}
