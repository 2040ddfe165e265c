//! `make bench-proxy`: what stands between a client and its server costs, side by side: ours, HAProxy, pgBouncer.
//!
//! One plain PostgreSQL, one of each program in front of it, and pgbench through one after the other in an order that
//! rotates, so that whatever else the machine does falls on all of them. A ratio is taken to the direct connection of the
//! same round. The built-in proxy is told by the measurement what a daemon would tell it.

mod crowd;
mod load;
mod ways;

use crate::{middle, spread};
use load::{Load, Outcome};
use ways::{Site, Way};

/// The part without pgbench, by name.
const CROWD: &str = "crowd";

/// Of one run of pgbench.
const SECONDS: usize = 1;

/// How much is measured.
pub(crate) struct Extent {
    /// Fewer rows and rounds: three minutes.
    pub(crate) quick: bool,
    /// Sessions that come and go.
    pub(crate) visits: usize,
    /// Only the loads whose name contains this.
    pub(crate) only: String,
    /// Only Matriarch and HAProxy, so many rounds: what differs by less than a machine's noise shows in pairs.
    pub(crate) duel: Option<usize>,
}

/// One load: for each way the outcomes of all rounds.
struct Row {
    load: Load,
    outcomes: Vec<Vec<Option<Outcome>>>,
}

/// Measures everything and returns the tables.
pub(crate) async fn measure(extent: &Extent) -> Result<String, String> {
    matriarch_chaos::crowd::raise_limit();
    if let Some(rounds) = extent.duel {
        return duel(extent, rounds);
    }
    let mut text = String::new();
    if extent.only != CROWD {
        text.push_str(&loads(extent)?);
    }
    if extent.only.is_empty() || extent.only == CROWD {
        text.push_str(&crowd::measure(extent.visits).await?);
    }
    Ok(text)
}

/// Every load through every way in turn, in an order that rotates.
fn run(extent: &Extent, ways: &[&Way], rounds: usize) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for load in Load::all(extent.quick) {
        if load.name().contains(&extent.only) {
            let outcomes = ways.iter().map(|_| Vec::new()).collect();
            rows.push(Row { load, outcomes });
        }
    }
    for round in 0..rounds {
        for (place, row) in rows.iter_mut().enumerate() {
            for turn in 0..ways.len() {
                let way = (turn + round + place) % ways.len();
                let outcome = row.load.run(ways[way], SECONDS)?;
                row.outcomes[way].push(outcome);
            }
            eprintln!("round {}/{rounds}: {}", round + 1, row.load.name());
        }
    }
    Ok(rows)
}

/// Matriarch against HAProxy, as ratios within a round.
fn duel(extent: &Extent, rounds: usize) -> Result<String, String> {
    let site = Site::open()?;
    let ways: Vec<&Way> = site
        .ways
        .iter()
        .filter(|way| ["Matriarch", "HAProxy"].contains(&way.name))
        .collect();
    let mut text = format!(
        "`make bench-proxy{} DUEL={rounds}` ({rounds} rounds of {SECONDS} s; Matriarch as ratio to HAProxy in the same round): median \
         (middle half)\n\n| load | transactions/s | processor time of a transaction |\n|---|---|---|\n",
        if extent.quick { " QUICK=1" } else { "" }
    );
    for row in run(extent, &ways, rounds)? {
        let ratios = |of: fn(&Outcome) -> f64| {
            let pairs = row.outcomes[0].iter().zip(&row.outcomes[1]);
            let ratio = |(ours, theirs): (&Option<Outcome>, &Option<Outcome>)| {
                Some(of(ours.as_ref()?) / of(theirs.as_ref()?))
            };
            middle_half(pairs.filter_map(ratio).collect())
        };
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            row.load.name(),
            ratios(|outcome| outcome.tps),
            ratios(|outcome| outcome.cpu_ms_per_10k)
        ));
    }
    Ok(text)
}

fn middle_half(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    spread(&values[quarter..values.len() - quarter])
}

/// What pgbench says.
fn loads(extent: &Extent) -> Result<String, String> {
    let site = Site::open()?;
    let ways: Vec<&Way> = site.ways.iter().collect();
    let rounds = if extent.quick { 4 } else { 7 };
    let rows = run(extent, &ways, rounds)?;
    let mut text = format!(
        "`make bench-proxy{}` ({rounds} rounds of {SECONDS} s, interleaved; direct in transactions/s, the others as ratio to \
         it in the same round): median (min-max)\n\n{}\n\
         Processor time of the program in between, ms per 10,000 transactions: median\n\n{}\n",
        if extent.quick { " QUICK=1" } else { "" },
        throughput(&ways, &rows),
        processor(&ways, &rows)
    );
    if let Some(table) = latency(&ways, &rows) {
        text.push_str(&format!(
            "Added latency, one client, µs (direct: absolute): median of the rounds\n\n{table}\n"
        ));
    }
    Ok(text)
}

fn head(first: &str, ways: &[&Way]) -> String {
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    format!(
        "| {first} | {} |\n|---{}|\n",
        names.join(" | "),
        "|---".repeat(ways.len())
    )
}

fn throughput(ways: &[&Way], rows: &[Row]) -> String {
    let mut text = head("load", ways);
    for row in rows {
        text.push_str(&format!("| {} ", row.load.name()));
        for (way, outcomes) in row.outcomes.iter().enumerate() {
            let cell = if way == 0 {
                let tps: Vec<f64> = outcomes.iter().flatten().map(|outcome| outcome.tps).collect();
                let (least, most) = ends(&tps);
                format!("{:.0} ({least:.0}-{most:.0})", median(&tps))
            } else {
                let pairs = outcomes.iter().zip(&row.outcomes[0]);
                let ratios: Vec<f64> = pairs
                    .filter_map(|(outcome, direct)| Some(outcome.as_ref()?.tps / direct.as_ref()?.tps))
                    .collect();
                if ratios.is_empty() {
                    "-".to_owned()
                } else {
                    spread(&ratios)
                }
            };
            text.push_str(&format!("| {cell} "));
        }
        text.push_str("|\n");
    }
    text
}

fn processor(ways: &[&Way], rows: &[Row]) -> String {
    let mut text = head("load", &ways[1..]);
    for row in rows {
        text.push_str(&format!("| {} ", row.load.name()));
        for outcomes in &row.outcomes[1..] {
            let costs: Vec<f64> = outcomes
                .iter()
                .flatten()
                .map(|outcome| outcome.cpu_ms_per_10k)
                .collect();
            let cell = if costs.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.0}", median(&costs))
            };
            text.push_str(&format!("| {cell} "));
        }
        text.push_str("|\n");
    }
    text
}

/// Of the first load with one client.
fn latency(ways: &[&Way], rows: &[Row]) -> Option<String> {
    let row = rows.iter().find(|row| row.load.clients == 1)?;
    let mut text = head(&row.load.name(), ways);
    let quantile = |of: fn(&Outcome) -> f64| -> Vec<f64> {
        let values = row
            .outcomes
            .iter()
            .map(|rounds| rounds.iter().flatten().map(of).collect::<Vec<f64>>());
        values.map(|values| median(&values)).collect()
    };
    for (name, values) in [
        ("p50", quantile(|outcome| outcome.p50_us)),
        ("p99", quantile(|outcome| outcome.p99_us)),
    ] {
        text.push_str(&format!("| {name} | {:.0} ", values[0]));
        for value in &values[1..] {
            text.push_str(&format!("| {:+.0} ", value - values[0]));
        }
        text.push_str("|\n");
    }
    Some(text)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        f64::NAN
    } else {
        middle(&sorted)
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    (least, most)
}
