//! `make bench`: how long writes stand still, what is lost, and what an idle node costs, on real PostgreSQL.
//!
//! One client commits one numbered row after another, as libpq does it with all hosts and
//! `target_session_attrs=read-write` (10 ms between attempts). The gap is the longest interval between two
//! acknowledged commits around the fault. A pinned client per node shows whether two nodes ever accept writes at once.
//! Two floors come from the same run: promotion until the first commit on two plain servers, and the ttl.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made ends with its message"
)]

mod beats;
mod failover;
mod floor;
mod idle;
mod peers;
mod proxy;
mod switchover;

use clap::Parser;

/// Measures failover gaps, lost rows and idle cost of Matriarch on this machine.
#[derive(Parser)]
struct Arguments {
    /// Trials for each fault.
    #[arg(long, default_value_t = 10)]
    trials: usize,
    /// Length of a lease in seconds.
    #[arg(long, default_value_t = 2.0)]
    ttl: f64,
    /// `synchronous_mode`: off, on or quorum.
    #[arg(long, default_value = "off", value_parser = ["off", "on", "quorum"])]
    mode: String,
    /// Only the faults, or with `--peers` the systems, whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Measure memory, processor time and log entries of an idle cluster instead.
    #[arg(long)]
    idle: bool,
    /// Measure Patroni with etcd and HAProxy beside Matriarch instead, from packages that are fetched now.
    #[arg(long)]
    peers: bool,
    /// Measure what the built-in proxy costs instead, beside HAProxy and pgBouncer.
    #[arg(long)]
    proxy: bool,
    /// With `--proxy`: three minutes instead of ten.
    #[arg(long)]
    quick: bool,
    /// With `--proxy`: sessions that come and go, to see what is left of them.
    #[arg(long, default_value_t = 100_000)]
    visits: usize,
    /// With `--proxy`: only Matriarch and HAProxy, one right after the other for so many rounds.
    #[arg(long)]
    duel: Option<usize>,
    /// Measure planned switchovers under pgbench that comes through the proxies instead.
    #[arg(long)]
    switchover: bool,
    /// Connections of that pgbench.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// How long an idle cluster is watched.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    if arguments.idle {
        println!("{}", idle::measure(arguments.ttl, arguments.idle_seconds).await);
        return;
    }
    if arguments.peers {
        return show(peers::measure(&arguments.mode, arguments.trials, &arguments.only).await);
    }
    if arguments.proxy {
        let extent = proxy::Extent {
            quick: arguments.quick,
            visits: arguments.visits,
            only: arguments.only,
            duel: arguments.duel,
        };
        return show(proxy::measure(&extent).await);
    }
    if arguments.switchover {
        let table = switchover::measure(arguments.trials, arguments.clients, &arguments.mode).await;
        println!("{table}");
        return;
    }
    let floor = floor::promotion(arguments.trials).await;
    let mut rows = Vec::new();
    for fault in failover::Fault::ALL {
        if fault.name().contains(&arguments.only) {
            rows.push(failover::measure(fault, &arguments.mode, arguments.ttl, arguments.trials).await);
        }
    }
    println!("{}", report(&arguments, &floor, &rows));
}

fn show(table: Result<String, String>) {
    match table {
        Ok(table) => println!("{table}"),
        Err(why) => {
            eprintln!("bench: {why}");
            std::process::exit(1);
        }
    }
}

/// The table for the README, with the command that makes it.
fn report(arguments: &Arguments, floor: &[f64], rows: &[failover::Row]) -> String {
    let mut text = format!(
        "`make bench` (synchronous_mode {}, trials {}, ttl {} s, the Raft leader beside a replica, fsync on); median (min-max)\n\n\
         | fault | write gap, s | acknowledged rows lost | two nodes accepting writes | old primary streams again, s |\n\
         |---|---|---|---|---|\n",
        arguments.mode, arguments.trials, arguments.ttl
    );
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            row.fault.name(),
            spread(&row.gaps_s),
            spread_counts(&row.lost),
            row.overlaps,
            spread(&row.returns_s)
        ));
    }
    text.push_str(&format!(
        "| *floor: promotion until the first commit* | {} | | | |\n",
        spread(floor)
    ));
    text.push_str(&format!("| *floor: ttl* | {:.2} | | | |\n", arguments.ttl));
    text
}

/// Median and extremes of measurements in seconds.
fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(most)) => format!("{:.2} ({least:.2}-{most:.2})", middle(&sorted)),
        _ => "not measured".to_owned(),
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[half - 1], sorted[half])
    } else {
        sorted[half]
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a trial of months would lose a nanosecond"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The same for counts.
fn spread_counts(values: &[usize]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(most)) => format!("{} ({least}-{most})", sorted[sorted.len() / 2]),
        _ => "not measured".to_owned(),
    }
}
