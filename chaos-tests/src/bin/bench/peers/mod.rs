//! `make bench PEERS=1`: the same faults and the same client on Patroni with etcd and HAProxy, and on Matriarch.
//!
//! Systems are measured one after another on this machine, from registries' packages: etcd from the distribution, Patroni
//! from PyPI, both unpacked into the measurement's own temporary directory. Nothing of them is left behind.

mod patroni;
mod system;

use matriarch::clock::boot_ns;
use matriarch_chaos::oracle;
use matriarch_chaos::writer::Write;
use patroni::Timings;
use std::time::Duration;
use system::System;

/// Rows that flow before a fault.
const ROWS_BEFORE: usize = 200;
/// How long writes must flow again before a trial counts as healed.
const CALM: Duration = Duration::from_secs(2);
/// Patroni's lease is 30 s; what takes three times as long has failed.
const DEADLINE_S: u64 = 120;

/// What is done to the primary.
#[derive(Clone, Copy)]
enum Fault {
    Switchover,
    Postmaster,
    Node,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Switchover, Self::Postmaster, Self::Node];

    fn name(self) -> &'static str {
        match self {
            Self::Switchover => "planned switchover",
            Self::Postmaster => "postmaster killed",
            Self::Node => "node killed (agent and PostgreSQL)",
        }
    }
}

/// What the trials of one fault on one system measured.
#[derive(Default)]
struct Cell {
    gaps_s: Vec<f64>,
    failed: Vec<usize>,
    lost: Vec<usize>,
}

/// Measures every system and returns the table.
pub(crate) async fn measure(mode: &str, trials: usize, only: &str) -> Result<String, String> {
    let makers: [(&str, Option<Timings>, bool); 4] = [
        ("Patroni + etcd + HAProxy, defaults", Some(Timings::DEFAULT), true),
        ("the same at their minima", Some(Timings::LEAST), true),
        ("Matriarch + HAProxy", None, true),
        ("Matriarch, all hosts in the client", None, false),
    ];
    let mut programs = None;
    let mut columns: Vec<(&str, Vec<Cell>)> = Vec::new();
    for (name, timings, balanced) in makers {
        if !name.contains(only) {
            continue;
        }
        let mut system = match timings {
            Some(timings) => {
                let fetched = match &programs {
                    Some(fetched) => fetched,
                    None => programs.insert(patroni::fetch()?),
                };
                System::patroni(fetched, &timings, mode).await?
            }
            None => System::ours(mode, balanced).await?,
        };
        let mut cells = Vec::new();
        for fault in Fault::ALL {
            let mut cell = Cell::default();
            for trial in 1..=trials {
                one(&mut system, fault, &mut cell).await?;
                let gap = cell.gaps_s.last().unwrap();
                eprintln!("{name}: {} {trial}/{trials}: gap {gap:.2} s", fault.name());
            }
            cells.push(cell);
        }
        columns.push((name, cells));
    }
    Ok(table(mode, trials, &columns))
}

async fn one(system: &mut System, fault: Fault, cell: &mut Cell) -> Result<(), String> {
    let old = system.await_whole(DEADLINE_S).await?;
    system.clear(old).await?;
    let client = system.client();
    let flows = async |rows: usize| {
        let since = boot_ns();
        system::until("rows", DEADLINE_S, async || client.acked_since(since) >= rows).await
    };
    flows(ROWS_BEFORE).await?;
    let since = boot_ns();
    match fault {
        Fault::Switchover => system.switch_over(old).await?,
        Fault::Postmaster => system.kill_postmaster(old)?,
        Fault::Node => system.kill(old),
    }
    if !matches!(fault, Fault::Postmaster) {
        let moved = async || system.primary().await.is_some_and(|now| now != old);
        system::until("another primary", DEADLINE_S, moved).await?;
    }
    flows(1).await?;
    tokio::time::sleep(CALM).await;
    flows(1).await?;
    let writes = client.stop().await;
    if matches!(fault, Fault::Node) {
        system.start(old)?;
    }
    let found = system.rows().await?;
    let verdict = oracle::weigh(&found, &writes);
    cell.gaps_s.push(oracle::gap_s(&writes, since));
    cell.failed
        .push(writes.iter().filter(|write| !Write::is_acked(write)).count());
    cell.lost.push(verdict.lost.len());
    Ok(())
}

fn table(mode: &str, trials: usize, columns: &[(&str, Vec<Cell>)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut text = format!(
        "`make bench PEERS=1` (synchronous_mode {mode}, trials {trials}, fsync on, one after another on this machine): \
         longest time between two acknowledged commits around the fault, s, median (min-max); failed statements; lost rows\n\n\
         | fault | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (row, fault) in Fault::ALL.iter().enumerate() {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, cells)| {
                let cell = &cells[row];
                let failed: usize = cell.failed.iter().sum();
                let lost: usize = cell.lost.iter().sum();
                format!("{}; {failed} failed; {lost} lost", super::spread(&cell.gaps_s))
            })
            .collect();
        text.push_str(&format!("| {} | {} |\n", fault.name(), cells.join(" | ")));
    }
    text
}
