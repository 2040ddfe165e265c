//! `make chaos`: faults at random on three real nodes in a network of their own, a verdict, and a page that shows it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a judge that cannot judge ends with its message"
)]

use clap::Parser;
use matriarch_chaos::Options;
use matriarch_chaos::chaos::arena::Arena;
use matriarch_chaos::chaos::fault::Fault;
use matriarch_chaos::chaos::report;
use matriarch_chaos::chaos::run::{self, Plan, Run};
use matriarch_chaos::chaos::verdict::Mode;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Seconds of one lease.
const TTL_S: f64 = 2.0;

/// Chaos on a real cluster. Ends with 0 when no promise was broken.
#[derive(Parser)]
struct Arguments {
    /// Minutes in which faults come.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the schedule; the same seed makes the same schedule.
    #[arg(long)]
    seed: Option<u64>,
    /// How commits are acknowledged: async, on or quorum.
    #[arg(long, default_value = "async")]
    mode: String,
    /// Only these faults, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// All but these faults, separated by commas.
    #[arg(long, value_delimiter = ',')]
    except: Vec<String>,
    /// Where the page is written; default: chaos-SEED.html in the temporary directory.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Directory to which the nodes' logs are copied; default: beside the page.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Show the faults' names and end.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for fault in Fault::ALL {
            println!("{}", fault.name());
        }
        return ExitCode::SUCCESS;
    }
    match judge(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("chaos: {why}");
            ExitCode::from(2)
        }
    }
}

fn judge(arguments: &Arguments) -> Result<bool, String> {
    let mode = Mode::named(&arguments.mode).ok_or("--mode is async, on or quorum")?;
    let kinds = kinds(arguments)?;
    let seed = arguments
        .seed
        .unwrap_or_else(|| matriarch::clock::wall_ms() % 100_000);
    let options = Options {
        ttl: TTL_S,
        synchronous_mode: mode.setting(),
        ..Options::default()
    };
    // The thread is moved among the clients here; the runtime it makes lives there.
    let wanted: Vec<_> = kinds.iter().filter_map(|fault| fault.needs()).collect();
    let mut arena = Arena::enter(options, &wanted)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let plan = Plan {
        seed,
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        mode,
        kinds,
        ttl_ms: 2_000,
        loud: true,
    };
    eprintln!(
        "chaos of seed {seed}, mode {mode:?}, {} minutes, {}",
        arguments.minutes,
        arena.herd.dir().display()
    );
    let over = Arc::new(AtomicBool::new(false));
    let outcome = runtime.block_on(async {
        let wanted = Arc::clone(&over);
        tokio::spawn(async move {
            let Ok(mut term) = signal(SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            eprintln!("ending early: undoing every fault");
            wanted.store(true, Ordering::SeqCst);
        });
        run::run(&mut arena, &plan, || over.load(Ordering::SeqCst)).await
    })?;
    let page = arguments
        .report
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("chaos-{seed}.html")));
    std::fs::write(&page, report::page(&outcome)).map_err(|error| format!("{}: {error}", page.display()))?;
    keep_logs(&arena, arguments, &page);
    tell(&outcome, &page);
    Ok(outcome.is_good())
}

fn kinds(arguments: &Arguments) -> Result<Vec<Fault>, String> {
    let named = |names: &[String]| {
        names
            .iter()
            .map(|name| Fault::named(name).ok_or(format!("no fault is called {name}; --list shows all")))
            .collect::<Result<Vec<_>, _>>()
    };
    let mut kinds = if arguments.only.is_empty() {
        Fault::ALL.to_vec()
    } else {
        named(&arguments.only)?
    };
    let except = named(&arguments.except)?;
    kinds.retain(|fault| !except.contains(fault));
    Ok(kinds)
}

fn keep_logs(arena: &Arena, arguments: &Arguments, page: &std::path::Path) {
    let dir = arguments
        .logs
        .clone()
        .unwrap_or_else(|| page.with_extension("logs"));
    let _ = std::fs::create_dir_all(&dir);
    for node in &arena.herd.nodes {
        let _ = std::fs::write(dir.join(format!("{}.log", node.name)), node.log());
    }
    eprintln!("logs: {}", dir.display());
}

fn tell(outcome: &Run, page: &std::path::Path) {
    for skipped in &outcome.skipped {
        println!("skipped: {skipped}");
    }
    for missed in &outcome.missed {
        println!("aimed at nothing: {missed}");
    }
    for excused in &outcome.verdict.excused {
        println!("known limit: {excused}");
    }
    for (what, value) in &outcome.verdict.counts {
        println!("{what}: {value}");
    }
    for violation in &outcome.verdict.violations {
        println!("VIOLATION: {violation}");
    }
    println!("{}\npage: {}", outcome.sentence(), page.display());
}
