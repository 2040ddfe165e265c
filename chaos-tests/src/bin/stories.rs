//! `make chaos-stories`: runs of the simulator, in order of their seeds; a seed alone tells its story.
#![allow(
    clippy::disallowed_methods,
    reason = "it measures how fast it simulates; nothing simulated asks this clock"
)]

use clap::Parser;
use matriarch_chaos::stories::{self, Bend, Plot, Story};
use std::time::Instant;

/// Runs the real judgement over simulated worlds.
#[derive(Parser)]
struct Arguments {
    /// How many runs.
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// One seed only, with its story.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave this protection out (`no` is none, `all` tries each).
    #[arg(long, default_value = "no")]
    bend: String,
    /// Only this plot (`mix`, `ordersmix`, `scheduledcalm`, ...), whatever the seed would choose.
    #[arg(long)]
    plot: Option<String>,
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.bend == "all" {
        for bend in Bend::ALL {
            tried(bend, arguments.first, arguments.runs);
        }
        return;
    }
    let named = |bend: &&Bend| format!("{bend:?}").eq_ignore_ascii_case(&arguments.bend);
    let bend = match Bend::ALL.iter().find(named) {
        Some(bend) => *bend,
        None if arguments.bend == "no" => Bend::No,
        None => {
            let names: Vec<String> = Bend::ALL.iter().map(|bend| format!("{bend:?}")).collect();
            eprintln!(
                "--bend {}: no such protection; there are no, all, {}",
                arguments.bend,
                names.join(", ")
            );
            std::process::exit(2);
        }
    };
    let plot = arguments.plot.as_deref().map(|name| {
        Plot::named(name).filter(|_| bend == Bend::No).unwrap_or_else(|| {
            eprintln!(
                "--plot {name}: no such plot, or together with --bend; there are {}",
                Plot::names()
            );
            std::process::exit(2);
        })
    });
    let story = |seed, trace| match plot {
        Some(plot) => stories::run_plot(seed, plot, trace),
        None => stories::run(seed, bend, trace),
    };
    if let Some(seed) = arguments.seed {
        println!("{:#?}", story(seed, true));
        return;
    }
    if !runs(|seed| story(seed, false), arguments.first, arguments.runs) {
        std::process::exit(1);
    }
}

/// How many runs an inversion needs.
fn tried(bend: Bend, first: u64, runs: u64) {
    let begun = Instant::now();
    let found = (first..first + runs).find_map(|seed| Some((seed, stories::run(seed, bend, false).broken?)));
    let took = begun.elapsed().as_secs_f64();
    match found {
        Some((seed, broken)) => println!("{bend:?}: seed {seed}, {took:.1} s: {broken}"),
        None => println!("{bend:?}: NOT FOUND in {runs} runs, {took:.1} s"),
    }
}

fn runs(tell: impl Fn(u64) -> Story, first: u64, runs: u64) -> bool {
    let begun = Instant::now();
    let (mut simulated, mut acknowledged, mut events, mut gates, mut broken) = (0, 0, 0, 0, 0);
    for seed in first..first + runs {
        let story = tell(seed);
        simulated += story.simulated_us;
        acknowledged += story.acknowledged;
        events += story.events;
        gates += story.gates;
        if let Some(what) = story.broken {
            broken += 1;
            println!("seed {seed}: {what}\n  {}", story.told);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let hours = simulated as f64 / 3.6e9;
    println!(
        "{runs} runs in {took:.1} s: {:.0} runs/s, {hours:.1} simulated hours, {:.2} per second; {events} events, \
         {acknowledged} commits, {gates} gates opened, {broken} broken",
        runs as f64 / took,
        hours / took
    );
    broken == 0
}
