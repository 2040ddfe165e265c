//! One load: pgbench with its arguments, and what it and the processes say afterwards.

use super::ways::{DATABASE, Way};
use matriarch_chaos::{plain, processes};
use std::process::Command;

/// Statements of a load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SelectPrepared,
    Select,
    TpcB,
    Connect,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SelectPrepared => "select, prepared",
            Self::Select => "select, simple",
            Self::TpcB => "TPC-B",
            Self::Connect => "new connection per select",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::SelectPrepared => &["-S", "-M", "prepared"],
            Self::Select => &["-S"],
            Self::TpcB => &[],
            Self::Connect => &["-S", "-C"],
        }
    }
}

/// What pgbench does.
pub(super) struct Load {
    kind: Kind,
    pub(super) clients: usize,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) tps: f64,
    pub(super) cpu_ms_per_10k: f64,
    /// With one client only.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Load {
    /// The rows of the table.
    pub(super) fn all(quick: bool) -> Vec<Self> {
        let rows: &[(Kind, &[usize])] = if quick {
            &[
                (Kind::SelectPrepared, &[1, 16, 200]),
                (Kind::Select, &[16]),
                (Kind::TpcB, &[16]),
                (Kind::Connect, &[16]),
            ]
        } else {
            &[
                (Kind::SelectPrepared, &[1, 16, 50, 200]),
                (Kind::Select, &[1, 16, 50, 200]),
                (Kind::TpcB, &[1, 16, 200]),
                (Kind::Connect, &[1, 16, 50]),
            ]
        };
        let each = |(kind, counts): &(Kind, &'static [usize])| {
            let kind = *kind;
            counts.iter().map(move |clients| Self {
                kind,
                clients: *clients,
            })
        };
        rows.iter().flat_map(each).collect()
    }

    /// For the table.
    pub(super) fn name(&self) -> String {
        let plural = if self.clients == 1 { "" } else { "s" };
        format!("{}, {} client{plural}", self.kind.name(), self.clients)
    }

    /// Runs it through this way; `None` if the way cannot carry it.
    pub(super) fn run(&self, way: &Way, seconds: usize) -> Result<Option<Outcome>, String> {
        if way.forgets_statements && self.kind == Kind::SelectPrepared {
            return Ok(None);
        }
        // pgbench counts the time that its clients take to connect.
        let seconds = seconds + self.clients / 100;
        let cpu = || way.pid.map_or(0, |pid| processes::usage(pid).cpu_ns);
        let logs = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new(plain::bin_dir().join("pgbench"));
        command
            .args(["-n", "-U", "postgres"])
            .args(["-h", &way.at.to_string(), "-p", &way.port.to_string()])
            .args(["-T", &seconds.to_string(), "-c", &self.clients.to_string()])
            .args(["-j", &self.clients.min(2).to_string()])
            .args(self.kind.arguments())
            .current_dir(logs.path());
        if self.clients == 1 {
            command.arg("-l");
        }
        let before = cpu();
        let output = command
            .arg(DATABASE)
            .output()
            .map_err(|error| error.to_string())?;
        let used = cpu() - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let trouble = || {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("{}, {}: {said}{text}", way.name, self.name())
        };
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        if !output.status.success() {
            return Err(trouble());
        }
        let tps = value("tps = ").ok_or_else(trouble)?;
        let done = value("number of transactions actually processed: ").ok_or_else(trouble)?;
        let (p50_us, p99_us) = latencies(logs.path());
        Ok(Some(Outcome {
            tps,
            cpu_ms_per_10k: used as f64 / 1e6 / done * 10_000.0,
            p50_us,
            p99_us,
        }))
    }
}

/// Median and 99th percentile of what pgbench has logged here.
fn latencies(dir: &std::path::Path) -> (f64, f64) {
    let mut all: Vec<f64> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let latency = |line: &str| line.split(' ').nth(2)?.parse::<f64>().ok();
        all.extend(text.lines().filter_map(latency));
    }
    all.sort_by(f64::total_cmp);
    let at = |share: f64| {
        all.get((all.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    (at(0.5), at(0.99))
}
