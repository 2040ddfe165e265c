//! Trials of one fault on one herd that heals between them.

use super::seconds;
use matriarch::clock::boot_ns;
use matriarch_chaos::{Herd, Options, Pinned, Writer, oracle, writer};
use std::time::Duration;

/// Rows that flow before a fault.
const ROWS_BEFORE: usize = 200;
/// How long writes must flow again before a trial counts as healed.
const CALM: Duration = Duration::from_secs(1);
/// A herd that does not heal within this time ends the measurement.
const HEAL_S: u64 = 60;

/// What is done to the primary.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// SIGKILL to the postmaster.
    Postmaster,
    /// SIGKILL to every process of the node.
    Node,
    /// SIGSTOP to the daemon.
    DaemonStopped,
}

impl Fault {
    pub(crate) const ALL: [Self; 3] = [Self::Postmaster, Self::Node, Self::DaemonStopped];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postmaster => "postmaster killed",
            Self::Node => "node killed (daemon, guard, PostgreSQL)",
            Self::DaemonStopped => "daemon stopped (SIGSTOP)",
        }
    }

    /// A dead postmaster may be started again in place.
    fn moves_primary(self) -> bool {
        !matches!(self, Self::Postmaster)
    }

    fn inject(self, herd: &mut Herd, node: usize) {
        match self {
            Self::Postmaster => herd.nodes[node].kill_postmaster(),
            Self::Node => herd.nodes[node].kill_whole(),
            Self::DaemonStopped => herd.nodes[node].freeze_daemon(),
        }
    }

    fn mend(self, herd: &mut Herd, node: usize) {
        match self {
            Self::Postmaster => {}
            Self::Node => herd.nodes[node].start(),
            Self::DaemonStopped => herd.nodes[node].thaw_daemon(),
        }
    }
}

/// What the trials of one fault measured.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    pub(crate) gaps_s: Vec<f64>,
    pub(crate) lost: Vec<usize>,
    pub(crate) overlaps: usize,
    /// From the daemon's restart (postmaster killed: from the first row afterwards) until the node streams again.
    pub(crate) returns_s: Vec<f64>,
}

/// Runs the trials, one line of progress each on stderr.
pub(crate) async fn measure(fault: Fault, mode: &str, ttl: f64, trials: usize) -> Row {
    let synchronous_mode = match mode {
        "on" => Some("on"),
        "quorum" => Some("quorum"),
        _ => None,
    };
    let mut herd = Herd::grown(
        3,
        Options {
            ttl,
            synchronous_mode,
            ..Options::default()
        },
    )
    .await;
    writer::prepare(&herd).await;
    let mut row = Row {
        fault,
        gaps_s: Vec::new(),
        lost: Vec::new(),
        overlaps: 0,
        returns_s: Vec::new(),
    };
    for trial in 1..=trials {
        one(&mut herd, fault, &mut row).await;
        eprintln!(
            "{} {trial}/{trials}: gap {:.3} s, lost {}, streams again after {:.2} s",
            fault.name(),
            row.gaps_s.last().unwrap(),
            row.lost.last().unwrap(),
            row.returns_s.last().unwrap()
        );
    }
    row
}

async fn one(herd: &mut Herd, fault: Fault, row: &mut Row) {
    let (old, _) = herd.await_leader_elsewhere(HEAL_S).await;
    let primary = &herd.nodes[old];
    primary
        .sql("TRUNCATE judge")
        .await
        .expect("the rows of the last trial are removed");
    for replica in herd.others(old) {
        herd.await_streaming(replica, HEAL_S).await;
    }
    let client = Writer::start(herd);
    let pinned = Pinned::start_all(herd);
    client.await_flow(herd, ROWS_BEFORE, HEAL_S).await;
    let since = boot_ns();
    fault.inject(herd, old);
    if fault.moves_primary() {
        // A stopped daemon's PostgreSQL writes on until its guard ends it; the trial is about what follows.
        herd.await_primary(HEAL_S, |node| node != old).await;
    }
    client.await_flow(herd, 1, HEAL_S).await;
    tokio::time::sleep(CALM).await;
    client.await_flow(herd, 1, HEAL_S).await;
    let mended = boot_ns();
    fault.mend(herd, old);
    let new = herd.await_primary(HEAL_S, |_| true).await;
    if new != old {
        herd.await_streaming(old, HEAL_S).await;
    }
    row.returns_s.push(seconds(boot_ns() - mended));
    let mut writes = client.stop().await;
    row.gaps_s.push(oracle::gap_s(&writes, since));
    writes.append(&mut Pinned::stop_all(pinned).await);
    let verdict = oracle::judge(herd, new, &writes).await;
    assert!(
        verdict.repeated.is_empty() && verdict.holes.is_empty(),
        "unsound: {verdict:?}"
    );
    row.lost.push(verdict.lost.len());
    row.overlaps += verdict.overlaps.len();
}
