//! Faults at random, one on top of the other, and two promises: never two writers, and in the end everybody is back.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::{Herd, Options, processes};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Faults of one storm (`STORM_FAULTS`).
const FAULTS: usize = 12;
/// Longest pause between two faults: long enough for a failover, short enough to hit one under way
/// (`STORM_PAUSE_MS`).
const PAUSE_MS: u64 = 3_000;

/// A small generator (xorshift): the same seed makes the same storm, as far as the machine allows.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What is wrong with a node on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plight {
    Well,
    NoDaemon,
    FrozenDaemon,
    Dead,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Undoes what was done to a node.
fn mend(herd: &mut Herd, node: usize, plight: &mut Plight) {
    match plight {
        Plight::Well => {}
        Plight::NoDaemon | Plight::Dead => herd.nodes[node].start(),
        Plight::FrozenDaemon => herd.nodes[node].thaw_daemon(),
    }
    *plight = Plight::Well;
}

/// Does something to a node that is well. A process that has just gone by itself is no target.
fn hurt(herd: &mut Herd, node: usize, kind: u64, plight: &mut Plight) -> &'static str {
    let victim = &mut herd.nodes[node];
    let target = match kind {
        0 => victim.postmaster_pid(),
        1 => victim.guard_pid(),
        _ => None,
    };
    if let Some(pid) = target {
        processes::send(pid, Signal::SIGKILL);
        processes::wait_dead(pid);
        return if kind == 0 {
            "postmaster killed"
        } else {
            "guard killed"
        };
    }
    match kind {
        2 => {
            victim.kill_daemon();
            *plight = Plight::NoDaemon;
            "daemon killed"
        }
        3 => {
            victim.freeze_daemon();
            *plight = Plight::FrozenDaemon;
            "daemon frozen"
        }
        _ => {
            victim.kill_whole();
            *plight = Plight::Dead;
            "node killed"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_at_random_never_make_two_writers_and_everybody_comes_back() {
    let seed = number("STORM_SEED", matriarch::clock::boot_ns() | 1);
    let faults = number("STORM_FAULTS", u64::try_from(FAULTS).unwrap());
    let pause_ms = number("STORM_PAUSE_MS", PAUSE_MS);
    let mut dice = Dice(seed);
    let synchronous_mode = match std::env::var("STORM_MODE").as_deref() {
        Ok("on") => Some("on"),
        Ok("quorum") => Some("quorum"),
        _ => None,
    };
    let options = synchronous_mode.map_or_else(Options::default, Options::synchronous);
    let mut herd = Herd::grown(3, options).await;
    let crowd = Crowd::gather(&herd).await;
    let mut plights = [Plight::Well; 3];
    eprintln!("the storm of seed {seed}, {}", herd.dir().display());
    for fault in 0..faults {
        let node = usize::try_from(dice.below(3)).unwrap();
        let kind = dice.below(5);
        let what = if plights[node] == Plight::Well {
            hurt(&mut herd, node, kind, &mut plights[node])
        } else {
            mend(&mut herd, node, &mut plights[node]);
            "mended"
        };
        eprintln!("{fault}: {}: {what}", herd.nodes[node].name);
        tokio::time::sleep(Duration::from_millis(dice.below(pause_ms))).await;
        for node in &mut herd.nodes {
            let ended = node.exit();
            assert!(ended.is_none(), "seed {seed}: {} gave up: {ended:?}", node.name);
        }
    }
    for (node, plight) in plights.iter_mut().enumerate() {
        mend(&mut herd, node, plight);
    }
    herd.await_whole(2 * RETURN_S).await;
    crowd.await_flow(&herd).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    eprintln!(
        "{} rows acknowledged by the writer, {} lost in {} faults",
        writes.len(),
        verdict.lost.len(),
        faults
    );
    verdict.demand_sound();
    if synchronous_mode.is_some() {
        verdict.demand_nothing_lost();
    }
}
