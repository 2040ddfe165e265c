//! One run: a group forms, is hurt by chance for a while, is mended, and must be whole again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::group::Group;
use crate::model::net::Weather;
use crate::model::world::{Bend, World};
use crate::types::Runtime;

/// From the end of the last fault to everybody having everything.
const WHOLE_AGAIN: Duration = Duration::from_secs(6);
/// Faults in one run.
const FAULTS: usize = 12;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) broken: Option<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) acknowledged: usize,
    pub(crate) reigns: usize,
    pub(crate) healed_in: Duration,
    pub(crate) lasted: Duration,
}

/// Plays the run of that seed. Every fourth has five voters, the others three.
pub(crate) fn run(seed: u64, bend: Bend) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Runtime::scope(seed, async move {
        let begun = tokio::time::Instant::now();
        let world = World::new(seed, if seed % 4 == 3 { 5 } else { 3 }, bend);
        play(&world).await;
        let mut judge = world.judge();
        Outcome {
            broken: judge.broken.take(),
            trace: std::mem::take(&mut judge.trace),
            acknowledged: judge.acknowledged.len(),
            reigns: judge.held.len(),
            healed_in: judge.healed_in.unwrap_or_default(),
            lasted: begun.elapsed(),
        }
    }))
}

async fn play(world: &Arc<World>) {
    for site in 0..world.count() {
        let pause = world.dice().within(0, 200);
        sleep(Duration::from_millis(pause)).await;
        world.start(site);
    }
    if !world.whole(WHOLE_AGAIN).await {
        return;
    }
    for site in 0..world.count() {
        tokio::spawn(world.clone().client(site));
        tokio::spawn(world.clone().reader(site));
    }
    let replaced = world.dice().chance(300);
    for fault in 0..FAULTS {
        hurt(world).await;
        let pause = world.dice().within(50, 1200);
        sleep(Duration::from_millis(pause)).await;
        if replaced && fault == FAULTS / 2 && !replace(world).await {
            return;
        }
        if world.judge().broken.is_some() {
            return;
        }
    }
    mend(world);
    if world.whole(WHOLE_AGAIN).await {
        world.end();
        // The slowest proposal has its answer by then.
        sleep(Duration::from_secs(6)).await;
        world.judge().at_the_end();
    }
}

fn mend(world: &Arc<World>) {
    world.judge().note("everything is mended");
    *world.weather() = Weather::fair(world.count());
    for site in 0..world.count() {
        if world.living(site).is_none() {
            world.start(site);
        }
    }
}

/// A whole group loses one disk; the node comes back under another id, and in the end as a voter.
async fn replace(world: &Arc<World>) -> bool {
    mend(world);
    if !world.whole(WHOLE_AGAIN).await {
        return false;
    }
    let site = world.dice().below(world.count() as u64) as usize;
    world.wipe(site);
    world.start(site);
    for _ in 0..1000 {
        sleep(Duration::from_millis(20)).await;
        let (voters, id) = (world.voters(), world.id_of(site));
        if id != 0 && voters.values().any(|voter| *voter == id) && voters.len() == world.count() {
            return true;
        }
    }
    world
        .judge()
        .blame("liveness: a node that lost its disk is no voter after 20 s".to_owned());
    false
}

fn any(world: &World) -> usize {
    world.dice().below(world.count() as u64) as usize
}

fn set_cut(world: &World, from: usize, to: usize) {
    world.judge().note(&format!("cut from node{from} to node{to}"));
    world.weather().cut[from][to] = true;
}

async fn hurt(world: &Arc<World>) {
    let count = world.count();
    let what = match (world.bend, world.dice().below(17)) {
        // Only a new leader that came about at once finds an old one that may still believe in itself.
        (Bend::NotConfirmed, any) => 10 + any % 2 * 4,
        (_, any) => any,
    };
    match what {
        0 | 1 => world.crash(any(world)),
        2 => match world.leader() {
            Some(site) => world.crash(site),
            None => world.crash(any(world)),
        },
        3 => (0..count).for_each(|site| world.crash(site)),
        4..=6 => {
            for site in 0..count {
                if world.living(site).is_none() && world.dice().chance(800) {
                    world.start(site);
                }
            }
        }
        7 => isolate(world, world.leader().unwrap_or_else(|| any(world))),
        8 => {
            let (site, out) = (any(world), world.dice().chance(500));
            for other in (0..count).filter(|other| *other != site) {
                match out {
                    true => set_cut(world, site, other),
                    false => set_cut(world, other, site),
                }
            }
        }
        9 => {
            let sides: Vec<bool> = (0..count).map(|_| world.dice().chance(500)).collect();
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            for (a, b) in pairs.filter(|(a, b)| sides[*a] != sides[*b]) {
                set_cut(world, a, b);
            }
        }
        10 | 11 => {
            world.judge().note("the cuts are mended");
            world.weather().cut = Weather::fair(count).cut;
        }
        12 => {
            let (lost, doubled, slow) = {
                let mut dice = world.dice();
                (dice.below(300), dice.below(300), dice.within(1, 150))
            };
            world.judge().note(&format!(
                "weather: {lost} lost, {doubled} doubled, up to {slow} ms"
            ));
            let mut weather = world.weather();
            (weather.lost, weather.doubled, weather.slow) = (lost, doubled, slow);
        }
        13 => {
            world.judge().note("the next voter dies");
            world.trap.store(true, Ordering::SeqCst);
            match world.leader() {
                Some(site) if world.dice().chance(700) => world.crash(site),
                _ => {}
            }
        }
        14 => hand_over_and_cut(world).await,
        _ => hand_over_or_restart(world).await,
    }
}

fn isolate(world: &World, alone: usize) {
    for other in (0..world.count()).filter(|other| *other != alone) {
        set_cut(world, alone, other);
        set_cut(world, other, alone);
    }
}

/// The old leader does not hear that another was elected, against the time that voters stick to their leader.
async fn hand_over_and_cut(world: &Arc<World>) {
    let Some(site) = world.leader() else {
        return;
    };
    let Some(node) = world.living(site) else {
        return;
    };
    let to = world.id_of(any(world));
    world
        .judge()
        .note(&format!("node{site} hands over and is cut off"));
    tokio::spawn(async move { Group { node }.hand_over(to).await });
    let pause = world.dice().within(1, 8);
    sleep(Duration::from_millis(pause)).await;
    isolate(world, site);
}

async fn hand_over_or_restart(world: &Arc<World>) {
    let Some(site) = world.leader() else {
        return;
    };
    if world.dice().chance(500) {
        world.stop(site).await;
        return world.start(site);
    }
    let to = world.id_of(any(world));
    if let Some(node) = world.living(site) {
        let handed = Group { node }.hand_over(to).await;
        world
            .judge()
            .note(&format!("node{site} hands over: {}", handed.is_ok()));
    }
}
