//! The simulator: the real judgement over a modelled world, so that a promise is tried ten thousand ways in a minute.
//!
//! One seed is one run. A run picks a mode (`synchronous_mode` off, on, quorum), a layout (three data nodes, or two and
//! a witness), clocks, and a plot of faults and of operators' orders (another primary, now or at a time, a loss accepted,
//! a pause, a tag, a member out and in); it lets 18 simulated seconds go by, heals everything (sometimes all but one
//! direction of one link) and demands that the cluster serves again.
//!
//! ```text
//!    real code                                  model
//!    ---------                                  -----
//!    cluster::apply        <-- committed --     raft      terms, pre-votes, log, ReadIndex, hand-over
//!    lead::Desk, decide::* <-- reports ---      net       loss, delay, doubles, reordering, cuts, one-way cuts
//!    decide::duty, rejoin  <-- Local -----      agent     the node loop, after src/node
//!    decide::sync::names   --> names -----      steps     its jobs: start, promote, rewind, clone, promise, names
//!    decide::lease         --> deadline --      server    postmaster, orphans, guard
//!    lead: handovers asked <-- orders -----     operator, pause, roster
//!                                               streams   walsenders and walreceivers, each end by itself
//!    promises (oracle) are checked at every event that could break them
//! ```
//!
//! **What survives what.** A node's ledger (used, promised, incarnation, reached, unfinished work), Raft's term, vote and
//! log, and flushed WAL survive everything. Everything else dies with its process: daemon, guard, PostgreSQL, machine;
//! a machine that comes back has a boot-time clock that begins anew. Clocks run up to 0.5 % wrong.
//!
//! **Inversions.** [`Bend`] leaves a protection out, by bending the model or what goes into and out of the judgement.
//! Each must break a promise within a stated number of runs (`tests/sim_inversions.rs`); the same plots with nothing left
//! out are part of the ordinary runs.
//!
//! **Caveats.** Raft's storage never fails and syncs at once. Records carry an identity that PostgreSQL's do not, so a
//! copy that streams over another past is seen at the connection. The node loop, the jobs and the guard are *models* of
//! `src/node` and `src/guard`: a defect there is the real tests' to find. A machine that stands still as a whole is
//! tried in the synchronous modes only: otherwise it needs its watchdog.

mod agent;
mod bend;
mod clients;
mod faults;
mod jobs;
mod leader;
mod names;
mod net;
mod node;
mod operator;
mod oracle;
mod pause;
mod plots;
mod postgres;
mod raft;
mod random;
mod roster;
mod server;
mod steps;
mod streams;
mod world;

pub use bend::Bend;

use matriarch::cluster::{
    Act, Command, Epoch, MemberName, Outcome, Settings, State, SyncMode, Timeline, Vote, apply,
};
pub use plots::Plot;
use random::Dice;
use world::{Event, World};

/// The faults end here, microseconds.
const HEALED_AT: u64 = 18_000_000;
/// So long after that everything must be well: a right that was lost takes ten seconds to notice, a start up to ten.
const BOUND: u64 = 40_000_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Story {
    /// The promise that broke.
    pub broken: Option<String>,
    /// Simulated microseconds.
    pub simulated_us: u64,
    /// Events.
    pub events: u64,
    /// Commits that somebody was told of.
    pub acknowledged: u64,
    /// How often a gate opened.
    pub gates: u64,
    /// Handovers that were asked for and begun, and epochs that came about by one.
    pub handovers: u64,
    /// See there.
    pub handed_over: u64,
    /// Scheduled switchovers that began.
    pub scheduled: u64,
    /// Members that had left when it was looked for.
    pub taken_out: u64,
    /// Whether a pause was agreed.
    pub paused: bool,
    /// Whether an operator gave the primary up at any cost.
    pub given_up: bool,
    /// What was run, for people.
    pub told: String,
}

/// Runs one seed. `trace` tells the story on standard error.
pub fn run(seed: u64, bend: Bend, trace: bool) -> Story {
    tell(seed, bend, bend, None, trace)
}

/// The same with this plot, whatever the seed would choose.
pub fn run_plot(seed: u64, plot: Plot, trace: bool) -> Story {
    tell(seed, Bend::No, Bend::No, Some(plot), trace)
}

/// The very story that is told against a missing protection, with the protection in its place.
pub fn run_protected(seed: u64, bend: Bend) -> Story {
    tell(seed, bend, Bend::No, None, false)
}

fn tell(seed: u64, against: Bend, bend: Bend, only: Option<Plot>, trace: bool) -> Story {
    let mut dice = Dice::new(seed);
    let (chosen, mode) = Plot::against(against, &mut dice);
    let plot = only.unwrap_or(chosen);
    let plain = against == Bend::No && matches!(plot, Plot::Mix | Plot::OrdersMix);
    let witnesses = usize::from(plain && dice.chance(25));
    let strict = plain && dice.chance(20);
    let for_ever = (plain && !strict && dice.chance(25)).then(|| (dice.below(3), dice.below(3)));
    let fence_after = if plain && dice.chance(20) { 0 } else { 500 };
    let start_s = if plot == Plot::TailLost || dice.chance(50) {
        3
    } else {
        10
    };
    let config = format!(
        "ttl=2000 mode={} strict={} fence={fence_after} start={start_s}",
        match mode {
            SyncMode::Off => "off",
            SyncMode::On => "on",
            SyncMode::Quorum => "quorum",
        },
        u8::from(strict)
    );
    let faults = plot.told(mode, &mut dice);
    let told = format!("{plot:?} {config} witnesses={witnesses} for_ever={for_ever:?}");
    let mut world = World::new(dice, bend, mode, 3, witnesses, trace);
    world.say(|| format!("seed {seed}: {told}"));
    world.net.for_ever = for_ever.filter(|(from, to)| from != to);
    let state = agreed_long_ago(&world, &config);
    world.begin(state, settings_of(&config));
    world.add_clients();
    for (at, fault) in faults {
        world.after(at * 1_000, Event::Fault(fault));
    }
    world.after(HEALED_AT, Event::Heal);
    let everybody = world.net.for_ever.is_none();
    if world.run_until(HEALED_AT + 1, |_| false) {
        let mut well = false;
        world.run_until(HEALED_AT + BOUND, |world| {
            well = world.is_well(HEALED_AT, everybody);
            well
        });
        if !well && world.oracle.broken.is_none() {
            world.break_promise(format!(
                "P5: not well {} s after everything was healed",
                BOUND / 1_000_000
            ));
        }
    }
    Story {
        broken: world.oracle.broken.take(),
        simulated_us: world.now,
        events: world.events,
        acknowledged: world.oracle.acknowledged,
        gates: world.oracle.gates,
        handovers: world.oracle.handovers,
        handed_over: world.oracle.handed_over(),
        scheduled: world.oracle.scheduled,
        taken_out: world.oracle.taken_out,
        paused: world.oracle.paused,
        given_up: world.oracle.gives_up(),
        told,
    }
}

/// `a` was primary of epoch 1 on timeline 1, and everybody followed.
fn agreed_long_ago(world: &World, config: &str) -> State {
    let mut state = State::default();
    let a = MemberName::from("a");
    let mut acts: Vec<Act> = world
        .nodes
        .iter()
        .map(|node| Act::Register(node.info()))
        .collect();
    acts.push(Act::Bootstrap {
        member: a.clone(),
        epoch: Epoch(1),
        config: config.to_owned(),
        ttl_ms: settings_of(config).ttl_ms,
    });
    acts.push(Act::Initialized {
        member: a,
        epoch: Epoch(1),
        system_id: agent::SYSTEM,
        timeline: Timeline(1),
    });
    for node in world.nodes.iter().filter(|node| !node.witness) {
        acts.push(Act::Judge {
            member: node.name.clone(),
            fitness: agent::fit(),
        });
    }
    for act in acts {
        let command = Command {
            expected: None,
            vote: Vote::default(),
            rule: "long-ago".to_owned(),
            reason: String::new(),
            at_ms: 0,
            act,
        };
        let outcome = apply::apply(&mut state, &command, Vote::default());
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }
    state
}

/// The dynamic configuration of a simulated cluster is a line of words.
fn settings_of(config: &str) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in config.split_whitespace().filter_map(|word| word.split_once('=')) {
        let number = value.parse().unwrap_or(0);
        match key {
            "ttl" => settings.ttl_ms = number,
            "mode" if value == "on" => settings.synchronous_mode = SyncMode::On,
            "mode" if value == "quorum" => settings.synchronous_mode = SyncMode::Quorum,
            "strict" => settings.synchronous_mode_strict = number == 1,
            "fence" => settings.fence_after_ms = number,
            "start" => settings.primary_start_timeout_s = number,
            _ => {}
        }
    }
    settings
}

fn with_ttl(config: &str, ttl_ms: u64) -> String {
    let (_, rest) = config.split_once(' ').unwrap_or(("", config));
    format!("ttl={ttl_ms} {rest}")
}
