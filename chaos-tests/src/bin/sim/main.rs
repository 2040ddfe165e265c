//! `make chaos-sim`: many short seeded lives of a cluster, each judged after every event.
#![allow(clippy::panic, reason = "a seed that breaks a promise ends the run")]

use clap::Parser;
use matriarch_chaos::sim::{Plan, World};
use std::time::Instant;

/// Simulates seeded lives of a cluster and stops at the first broken promise.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// Print every step of the first seed.
    #[arg(long)]
    trace: bool,
    /// Go on after a broken promise.
    #[arg(long)]
    keep_going: bool,
}

#[allow(
    clippy::disallowed_methods,
    reason = "speed is shown to people; nothing in a run sees this clock"
)]
fn main() {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let (mut simulated_ms, mut broken) = (0, 0);
    for seed in arguments.seed..arguments.seed + arguments.runs {
        let mut world = World::new(Plan {
            trace: arguments.trace,
            ..Plan::short(seed)
        });
        let verdict = world.run();
        simulated_ms += world.time_ms();
        for line in &world.trace {
            println!("{line}");
        }
        if let Err(what) = verdict {
            broken += 1;
            println!("seed {seed}: {what}");
            if !arguments.keep_going {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    let hours = simulated_ms as f64 / 3_600_000.0;
    println!(
        "{} runs, {broken} broken; {hours:.1} simulated hours in {seconds:.1} s, {:.2} hours a second",
        arguments.runs,
        hours / seconds
    );
    std::process::exit(i32::from(broken > 0));
}
