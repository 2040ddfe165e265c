//! The oracle: what the clients were told, held against what is there in the end.
//!
//! In a synchronous mode an acknowledged write exists exactly once afterwards, whatever happened. In async mode a change
//! of primary may cost the newest ones: they are counted, their span in the WAL is bounded, and each timeline is judged
//! as a world of its own. Two things are excused, counted and shown, never hidden: what a node acknowledges in the moment
//! in which it wakes from a freeze that stopped daemon and guard alike (without a watchdog nothing can prevent that in
//! async mode), and reads that a deposed primary answered before its lease was over.

use crate::chaos::arena::seconds;
use crate::chaos::fault::{Fault, Hurt};
use crate::chaos::history::{Call, Fate, History, ListTxn, RegisterOp, Step};
use crate::chaos::load_bank::MONEY;
use crate::chaos::serial::{self, Orders};
use crate::chaos::truth::Truth;
use crate::chaos::{losses, registers};
use crate::writer::Outcome;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// An acknowledgement that was on its way when its server died may reach a busy client this late.
const LATE_NS: u64 = 250_000_000;
/// What a node that wakes up may still say before its guard sees the clock.
const WAKING_NS: u64 = 1_000_000_000;
/// A client without a majority is refused at the latest so long after the ttl: it sent its write after that.
const SLACK_NS: u64 = 300_000_000;

/// How commits are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the primary alone.
    Async,
    /// `synchronous_mode: on`.
    On,
    /// `synchronous_mode: quorum`.
    Quorum,
}

impl Mode {
    /// As the node file and the command line write it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "async" | "off" => Some(Self::Async),
            "on" => Some(Self::On),
            "quorum" => Some(Self::Quorum),
            _ => None,
        }
    }

    /// `synchronous_mode`, where it must be set.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Async => None,
            Self::On => Some("on"),
            Self::Quorum => Some("quorum"),
        }
    }
}

/// A fault that happened, with the moment in which it was undone.
#[derive(Clone, Debug)]
pub struct Healed {
    /// The fault.
    pub hurt: Hurt,
    /// When undoing began.
    pub until: u64,
    /// When it was undone.
    pub over: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Broken promises.
    pub violations: Vec<String>,
    /// Known limits that were seen.
    pub excused: Vec<String>,
    /// Numbers for people.
    pub counts: Vec<(String, String)>,
}

impl Verdict {
    pub(crate) fn blame(&mut self, promise: &str, found: &[String]) {
        if let Some(first) = found.first() {
            let more = if found.len() > 1 {
                format!(" (and {} more)", found.len() - 1)
            } else {
                String::new()
            };
            self.violations.push(format!("{promise}: {first}{more}"));
        }
    }

    pub(crate) fn count(&mut self, what: &str, value: impl ToString) {
        self.counts.push((what.into(), value.to_string()));
    }

    /// After the last fault everybody is back within so many seconds, and writes flow.
    pub fn health(&mut self, took_s: Option<f64>, flows: bool, within_s: u64) {
        match took_s {
            Some(took) => self.count("healthy after the last fault, s", format!("{took:.1}")),
            None => self
                .violations
                .push(format!("not healthy {within_s} s after the last fault")),
        }
        if !flows {
            self.violations.push("no writes flow after the last fault".into());
        }
    }

    /// A daemon ends by itself only where a fault took its disk, its store or its membership. `over` is when the last one was undone.
    pub fn gave_up(&mut self, ends: &[(u64, usize, String)], faults: &[Healed], over: u64) {
        for (at, node, why) in ends {
            let is_excused = faults.iter().any(|healed| {
                let takes_disk = matches!(
                    healed.hurt.fault,
                    Fault::DiskFull
                        | Fault::DiskDead
                        | Fault::PowerOne
                        | Fault::PowerTwo
                        | Fault::PowerAll
                        | Fault::RaftTruncated
                        | Fault::RaftFlipped
                        | Fault::SyncDaemon
                );
                let is_out = healed.hurt.fault == Fault::KillInMembership
                    && why.contains("was taken out of the cluster");
                is_out && healed.hurt.nodes.contains(node)
                    || takes_disk
                        && healed.hurt.nodes.contains(node)
                        && *at + 1_000_000_000 >= healed.hurt.since
                        && *at <= healed.over.min(over) + 5_000_000_000
            });
            let text = format!("the daemon of node{} ended by itself: {why}", node + 1);
            if is_excused {
                self.excused.push(text);
            } else {
                self.violations.push(text);
            }
        }
    }
}

/// Judges a run. `ttl_ms` is the length of a lease.
pub fn judge(history: &History, truth: &Truth, faults: &[Healed], mode: Mode, ttl_ms: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let acknowledged = history.acknowledged();
    verdict.count("acknowledged commits", acknowledged.len());
    verdict.count("transactions on lists", history.lists.len());
    verdict.count("operations on registers", history.registers.len());
    verdict.count("transfers", history.transfers.len());
    verdict.count("sums read", history.totals.len());
    verdict.count("lists read on standbys", history.standby_reads.len());
    verdict.count("numbered rows sent", history.rows.len());
    verdict.count("commits acknowledged with a warning", history.unwaited);
    if acknowledged.is_empty() {
        verdict
            .violations
            .push("nothing was acknowledged: nothing was shown".into());
    }
    one_writer(&acknowledged, faults, mode, &mut verdict);
    silent(&acknowledged, faults, ttl_ms, &mut verdict);
    losses::judge(history, truth, mode, ttl_ms, &mut verdict);
    money(history, truth, &mut verdict);
    lists(history, truth, &acknowledged, mode, ttl_ms, &mut verdict);
    verdict
}

/// Never two nodes that acknowledge at once, never two on one timeline.
fn one_writer(acknowledged: &[Call], faults: &[Healed], mode: Mode, verdict: &mut Verdict) {
    let wakings: Vec<(usize, u64, u64)> = faults
        .iter()
        .filter(|healed| matches!(healed.hurt.fault, Fault::FreezeNode | Fault::FreezePrimary))
        .flat_map(|healed| {
            let span = (healed.until, healed.over + WAKING_NS);
            healed.hurt.nodes.iter().map(move |node| (*node, span.0, span.1))
        })
        .collect();
    let was_waking = |call: &Call| {
        mode == Mode::Async
            && wakings
                .iter()
                .any(|(node, since, until)| *node == call.node && call.end >= *since && call.end <= *until)
    };
    let (excused, guilty): (Vec<_>, Vec<_>) = overlaps(acknowledged)
        .into_iter()
        .partition(|(call, _)| was_waking(call));
    if !excused.is_empty() {
        verdict.excused.push(format!(
            "{} commits were acknowledged by a node in the moment in which it woke from a freeze (no watchdog here)",
            excused.len()
        ));
    }
    let guilty: Vec<String> = guilty
        .iter()
        .map(|(call, other)| format!("{call:?} beside {other:?}"))
        .collect();
    verdict.blame("two nodes acknowledged at once", &guilty);
    let timelines: BTreeSet<i32> = acknowledged.iter().map(|call| call.timeline).collect();
    verdict.count("timelines that took writes", timelines.len());
}

/// Acknowledged on an older timeline after the first acknowledgement on a younger one, or on another's timeline.
pub fn overlaps(acknowledged: &[Call]) -> Vec<(Call, Call)> {
    let mut firsts: BTreeMap<i32, &Call> = BTreeMap::new();
    for call in acknowledged {
        let first = firsts.entry(call.timeline).or_insert(call);
        if call.end < first.end {
            *first = call;
        }
    }
    let mut found = Vec::new();
    for call in acknowledged {
        let younger = firsts.range(call.timeline + 1..).map(|(_, first)| *first);
        if let Some(first) = younger.min_by_key(|first| first.end)
            && (call.begin > first.end || call.end > first.end + LATE_NS)
        {
            found.push((call.clone(), first.clone()));
        }
        if let Some(first) = firsts.get(&call.timeline)
            && first.node != call.node
        {
            found.push((call.clone(), (*first).clone()));
        }
    }
    found
}

/// Nobody without a majority accepts a write that was sent a ttl after the majority was lost.
fn silent(acknowledged: &[Call], faults: &[Healed], ttl_ms: u64, verdict: &mut Verdict) {
    let mut found = Vec::new();
    for healed in faults {
        let deadline = healed.hurt.since + ttl_ms * 1_000_000 + SLACK_NS;
        for call in acknowledged {
            if healed.hurt.silent.contains(&call.node) && call.begin > deadline && call.end < healed.until {
                let late = seconds(call.begin - healed.hurt.since);
                found.push(format!(
                    "{} since {late:.1} s: {call:?}",
                    healed.hurt.fault.name()
                ));
            }
        }
    }
    verdict.blame("acknowledged without a majority", &found);
}

fn money(history: &History, truth: &Truth, verdict: &mut Verdict) {
    let wrong: Vec<String> = history
        .totals
        .iter()
        .filter(|total| total.sum != MONEY)
        .map(|total| format!("{total:?}"))
        .collect();
    verdict.blame("money was made or lost", &wrong);
    if truth.money != MONEY || truth.crooked != 0 {
        verdict.violations.push(format!(
            "money was made or lost: {} in the end, {} accounts differ from the ledger",
            truth.money, truth.crooked
        ));
    }
}

/// Lists and registers: strictly serializable, and what was read stays.
fn lists(
    history: &History,
    truth: &Truth,
    acknowledged: &[Call],
    mode: Mode,
    ttl_ms: u64,
    verdict: &mut Verdict,
) {
    let firsts = first_of_each_timeline(acknowledged);
    // A deposed primary may answer reads until its lease is over.
    let stale = |call: &Call| {
        let younger = firsts.range(call.timeline + 1..).map(|(_, end)| *end).min();
        call.timeline != 0
            && younger.is_some_and(|end| call.end > end && call.begin < end + ttl_ms * 1_000_000 + SLACK_NS)
    };
    let kept: Vec<&ListTxn> = history
        .lists
        .iter()
        .filter(|txn| txn.writes() || !stale(&txn.call))
        .collect();
    let registers: Vec<&RegisterOp> = history
        .registers
        .iter()
        .filter(|op| op.wrote.is_some() || !stale(&op.call))
        .collect();
    let excused = history.lists.len() - kept.len() + history.registers.len() - registers.len();
    if excused > 0 {
        verdict.excused.push(format!(
            "{excused} reads were answered by a deposed primary whose lease was not over"
        ));
    }
    let mut wrong = Vec::new();
    if mode == Mode::Async {
        for (timeline, orders) in worlds(history, truth) {
            let known: HashSet<i64> = orders.values().flatten().copied().collect();
            let world: Vec<&ListTxn> = history
                .lists
                .iter()
                .filter(|txn| {
                    let is_of_it = txn.call.timeline == timeline;
                    is_of_it || (txn.call.timeline < timeline && is_visible(txn, &known))
                })
                .collect();
            let found = serial::check(&world, &orders, false);
            wrong.extend(
                found
                    .into_iter()
                    .map(|what| format!("timeline {timeline}: {what}")),
            );
        }
    } else {
        wrong = serial::check(&kept, &truth.lists, true);
    }
    verdict.blame("not strictly serializable", &wrong);
    verdict.blame(
        "a register went back",
        &registers::check(&registers, mode == Mode::Async),
    );
}

fn first_of_each_timeline(acknowledged: &[Call]) -> BTreeMap<i32, u64> {
    let mut firsts = BTreeMap::new();
    for call in acknowledged {
        let first = firsts.entry(call.timeline).or_insert(call.end);
        *first = call.end.min(*first);
    }
    firsts
}

fn is_visible(txn: &ListTxn, known: &HashSet<i64>) -> bool {
    txn.steps
        .iter()
        .any(|step| matches!(step, Step::Append(_, value) if known.contains(value)))
}

/// The lists as each timeline knew them: the longest reading, and the end's where that goes on from it.
fn worlds(history: &History, truth: &Truth) -> BTreeMap<i32, Orders> {
    let mut worlds: BTreeMap<i32, Orders> = BTreeMap::new();
    for txn in history.lists.iter().filter(|txn| txn.call.fate == Fate::Ok) {
        let world = worlds.entry(txn.call.timeline).or_default();
        for step in &txn.steps {
            if let Step::Read(key, seen) = step {
                let longest = world.entry(*key).or_default();
                if seen.len() > longest.len() {
                    longest.clone_from(seen);
                }
            }
        }
    }
    let born: HashMap<i64, i32> = history
        .lists
        .iter()
        .flat_map(|txn| {
            txn.steps.iter().filter_map(|step| match step {
                Step::Append(_, value) => Some((*value, txn.call.timeline)),
                Step::Read(..) => None,
            })
        })
        .collect();
    for (timeline, world) in &mut worlds {
        for (key, order) in world {
            let last = truth.lists.get(key).map_or(&[][..], Vec::as_slice);
            // What a later timeline appended is of another world.
            let length = last
                .iter()
                .position(|value| born.get(value).is_none_or(|born| born > timeline))
                .unwrap_or(last.len());
            if last[..length].starts_with(order) {
                *order = last[..length].to_vec();
            }
        }
    }
    worlds
}

/// How often each numbered row was acknowledged, failed, or is unknown.
pub fn fates_of_rows(history: &History) -> HashMap<(i32, i64), Fate> {
    history
        .rows
        .iter()
        .map(|row| {
            let fate = match row.outcome {
                Outcome::Acked { .. } => Fate::Ok,
                Outcome::Refused => Fate::Failed,
                Outcome::Unknown => Fate::Unknown,
            };
            ((row.writer, row.seq), fate)
        })
        .collect()
}

#[cfg(test)]
#[path = "verdict_test.rs"]
mod tests;
