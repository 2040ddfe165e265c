//! Planned switchovers under pgbench that comes through the proxies: how long its clients stand still, and what they are told.
//!
//! Each node's proxy gets a share of the connections. Three numbers of each switchover: the longest time in which no
//! transaction at all was completed, the longest one of a single client (which waits for others' row locks too, so the
//! longest of the seconds before stands beside it), and clients that were sent away.

use super::{seconds, spread, spread_counts};
use matriarch::clock::{boot_ns, wall_ms};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Options};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const RW: u16 = 15_000;
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// How long pgbench runs, seconds.
const RUN_S: u64 = 12;
/// It connects, and runs for a while, before the order.
const CALM: Duration = Duration::from_secs(5);
/// The seconds before the order that are compared with.
const WARM_US: u64 = 2_500_000;
/// A herd that does not heal within this time ends the measurement.
const HEAL_S: u64 = 60;
/// `pgbench -s`.
const SCALE: &str = "10";

/// What one kind of load noticed.
#[derive(Default)]
struct Row {
    pauses_s: Vec<f64>,
    longest_s: Vec<f64>,
    before_s: Vec<f64>,
    orders_s: Vec<f64>,
    errors: Vec<usize>,
    moved: Vec<usize>,
}

/// Measures each protocol of pgbench in turn; the table for the README, with the command that makes it.
pub(crate) async fn measure(trials: usize, clients: usize, mode: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file of passwords");
    std::fs::write(file.path(), format!("\"postgres\" \"{PASSWORD}\"\n")).expect("it is written");
    let herd = Herd::grown(3, options(file.path(), mode)).await;
    let primary = herd.await_whole(HEAL_S).await;
    fill(&herd, primary).await;
    let mut text = format!(
        "`bench --switchover --trials {trials} --clients {clients} --mode {mode}` (pgbench TPC-B, scale {SCALE}, a third of the \
         connections through each node's proxy, SCRAM); median (min-max)\n\n\
         | pgbench | no transaction completed, s | longest transaction, s | the same in the seconds before | the order, s | clients \
         sent away | sessions moved |\n|---|---|---|---|---|---|---|\n"
    );
    for protocol in ["simple", "prepared"] {
        let mut row = Row::default();
        for trial in 1..=trials {
            one(&herd, protocol, clients, &mut row).await;
            eprintln!(
                "{protocol} {trial}/{trials}: pause {:.3} s, longest {:.3} s (before {:.3} s), order {:.3} s, {} sent away, {} moved",
                row.pauses_s.last().unwrap(),
                row.longest_s.last().unwrap(),
                row.before_s.last().unwrap(),
                row.orders_s.last().unwrap(),
                row.errors.last().unwrap(),
                row.moved.last().unwrap(),
            );
        }
        text.push_str(&format!(
            "| -M {protocol} | {} | {} | {} | {} | {} | {} |\n",
            spread(&row.pauses_s),
            spread(&row.longest_s),
            spread(&row.before_s),
            spread(&row.orders_s),
            spread_counts(&row.errors),
            spread_counts(&row.moved)
        ));
    }
    text
}

fn options(auth_file: &Path, mode: &str) -> Options {
    Options {
        sections: format!(
            "proxy:\n  listen: '{{ip}}'\n  rw: {RW}\n  ro: 15001\n  auth_file: {}\n",
            auth_file.display()
        ),
        synchronous_mode: match mode {
            "on" => Some("on"),
            "quorum" => Some("quorum"),
            _ => None,
        },
        max_connections: 300,
        ..Options::default()
    }
}

async fn fill(herd: &Herd, primary: usize) {
    let node = &herd.nodes[primary];
    let output = Command::new(format!("{BIN}/pgbench"))
        .args(["-i", "-q", "-I", "dtGvp", "-s", SCALE, "-U", "postgres", "-h"])
        .arg(node.ip.to_string())
        .args([
            "-p",
            &matriarch_chaos::addresses::POSTGRES_PORT.to_string(),
            "postgres",
        ])
        .env("PGPASSWORD", PASSWORD)
        .output()
        .await
        .expect("pgbench runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// pgbench through one node's proxy.
struct Load {
    child: Child,
    log: PathBuf,
}

/// Completed transactions as (completion, duration), microseconds of the wall clock; clients that were sent away.
type Done = (Vec<(u64, u64)>, usize);

impl Load {
    fn start(herd: &Herd, node: usize, protocol: &str, clients: usize, dir: &Path) -> Self {
        let log = dir.join(format!("load{node}"));
        let child = Command::new(format!("{BIN}/pgbench"))
            .args(["-n", "-U", "postgres", "-M", protocol, "-T", &RUN_S.to_string()])
            .args(["-c", &clients.to_string(), "-p", &RW.to_string(), "-h"])
            .arg(herd.nodes[node].ip.to_string())
            .args(["--log", "--log-prefix"])
            .arg(&log)
            .arg("postgres")
            .env("PGPASSWORD", PASSWORD)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("pgbench starts");
        Self { child, log }
    }

    async fn done(self) -> Done {
        let pid = self.child.id().expect("pgbench still runs");
        let output = self.child.wait_with_output().await.expect("pgbench ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let sent_away: Vec<&str> = said.lines().filter(|line| line.contains("aborted")).collect();
        for line in said.lines().take(6) {
            eprintln!("  {line}");
        }
        let text = std::fs::read_to_string(format!("{}.{pid}", self.log.display())).expect("pgbench's log");
        let done = text.lines().filter_map(|line| {
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            Some((fields.get(4)? * 1_000_000 + fields.get(5)?, *fields.get(2)?))
        });
        (done.collect(), sent_away.len())
    }
}

async fn one(herd: &Herd, protocol: &str, clients: usize, row: &mut Row) {
    let old = herd.await_whole(HEAL_S).await;
    let to = herd.others(old)[0];
    let dir = tempfile::tempdir().expect("a directory for logs");
    let nodes = herd.nodes.len();
    let loads: Vec<Load> = (0..nodes)
        .map(|node| Load::start(herd, node, protocol, (clients + node) / nodes, dir.path()))
        .collect();
    tokio::time::sleep(CALM).await;
    let moved = moved(herd).await;
    let body = format!(
        r#"{{"leader": "{}", "candidate": "{}"}}"#,
        herd.nodes[old].name, herd.nodes[to].name
    );
    let (ordered, begun) = (wall_ms() * 1_000, boot_ns());
    let answer = herd.nodes[old].order("POST", "/switchover", &body).await;
    row.orders_s.push(seconds(boot_ns() - begun));
    assert_eq!(answer.0, 200, "{answer:?}");
    let mut all = Vec::new();
    let mut sent_away = 0;
    for load in loads {
        let (done, errors) = load.done().await;
        all.extend(done);
        sent_away += errors;
    }
    row.errors.push(sent_away);
    row.moved.push(self::moved(herd).await.saturating_sub(moved));
    all.sort_unstable();
    let longest =
        |done: &mut dyn Iterator<Item = &(u64, u64)>| done.map(|(_, took)| *took).max().unwrap_or(0);
    let since = |at: &u64| all.partition_point(|(done, _)| done < at);
    let (warm, split) = (since(&(ordered - WARM_US)), since(&ordered));
    row.before_s.push(micros(longest(&mut all[warm..split].iter())));
    row.longest_s.push(micros(longest(&mut all[split..].iter())));
    let pause = all[split.saturating_sub(1)..]
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0);
    row.pauses_s
        .push(micros(pause.max().expect("transactions after the switchover")));
}

/// Sessions that all proxies have taken along so far.
async fn moved(herd: &Herd) -> usize {
    let mut sum = 0;
    for node in &herd.nodes {
        let (_, text) = node.get("/metrics").await.expect("metrics");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("matriarch_proxy_moved_total"));
        sum += lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
            .sum::<usize>();
    }
    sum
}

fn micros(us: u64) -> f64 {
    seconds(us * 1_000)
}
