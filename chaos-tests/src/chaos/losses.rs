//! Losses: acknowledged writes that are gone, writes that are there twice or should not be, readings that vanished.

use crate::chaos::history::{Call, Fate, History, Step};
use crate::chaos::truth::Truth;
use crate::chaos::verdict::{Mode, Verdict, fates_of_rows};
use std::collections::{BTreeMap, HashMap, HashSet};

/// `maximum_lag_on_failover` where nobody set it.
const MAXIMUM_LAG: i64 = 1 << 20;

/// Judges them.
pub fn judge(history: &History, truth: &Truth, mode: Mode, ttl_ms: u64, verdict: &mut Verdict) {
    let known: HashSet<i64> = truth.lists.values().flatten().copied().collect();
    let lost = lost_calls(history, truth, &known);
    let rows_lost = rows(history, truth, mode, verdict);
    let acknowledged_lost = lost.len() + rows_lost;
    verdict.count("acknowledged writes lost", acknowledged_lost);
    if mode == Mode::Async {
        bound(history, &lost, &known, ttl_ms, verdict);
    } else {
        let found: Vec<String> = lost.iter().map(|call| format!("{call:?}")).collect();
        verdict.blame("an acknowledged write is lost", &found);
    }
    let wrong: Vec<String> = truth
        .ledger
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(id, count)| format!("transfer {id} is there {count} times"))
        .collect();
    verdict.blame("a write was repeated", &wrong);
    let failed: Vec<String> = history
        .transfers
        .iter()
        .filter(|transfer| transfer.call.fate == Fate::Failed && truth.ledger.contains_key(&transfer.id))
        .map(|transfer| format!("{transfer:?}"))
        .collect();
    verdict.blame("a write that failed is there", &failed);
    vanished(history, truth, &known, mode, verdict);
}

/// Acknowledged transactions whose effect is gone.
fn lost_calls(history: &History, truth: &Truth, known: &HashSet<i64>) -> Vec<Call> {
    let lists = history.lists.iter().filter(|txn| {
        let is_gone = |step: &Step| matches!(step, Step::Append(_, value) if !known.contains(value));
        txn.call.fate == Fate::Ok && txn.steps.iter().any(is_gone)
    });
    let transfers = history
        .transfers
        .iter()
        .filter(|transfer| transfer.call.fate == Fate::Ok && !truth.ledger.contains_key(&transfer.id));
    let newest = |key: i64| truth.registers.get(&key).map_or(0, |(_, version)| *version);
    let registers = history.registers.iter().filter(|op| {
        let version = op.saw.map_or(0, |(_, version)| version);
        op.call.fate == Fate::Ok && op.wrote.is_some() && version > newest(op.key)
    });
    lists
        .map(|txn| &txn.call)
        .chain(transfers.map(|transfer| &transfer.call))
        .chain(registers.map(|op| &op.call))
        .cloned()
        .collect()
}

/// Numbered rows; returns how many acknowledged ones are gone.
fn rows(history: &History, truth: &Truth, mode: Mode, verdict: &mut Verdict) -> usize {
    let fates = fates_of_rows(history);
    let found: Vec<String> = truth
        .rows
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(row, count)| format!("row {row:?} is there {count} times"))
        .collect();
    verdict.blame("a write was repeated", &found);
    let found: Vec<String> = truth
        .rows
        .keys()
        .filter(|row| fates.get(row) == Some(&Fate::Failed))
        .map(|row| format!("row {row:?}"))
        .collect();
    verdict.blame("a write that failed is there", &found);
    let weighed = crate::oracle::weigh(&truth.rows, &history.rows);
    let found: Vec<String> = weighed.holes.iter().map(|row| format!("{row:?}")).collect();
    verdict.blame("an acknowledged row is missing in the middle", &found);
    if mode != Mode::Async {
        let found: Vec<String> = weighed.lost.iter().map(|row| format!("{row:?}")).collect();
        verdict.blame("an acknowledged row is lost", &found);
    }
    weighed.lost.len()
}

/// In async mode what is lost spans at most the permitted lag and what one ttl can write.
fn bound(history: &History, lost: &[Call], known: &HashSet<i64>, ttl_ms: u64, verdict: &mut Verdict) {
    let mut by_timeline: BTreeMap<i32, Vec<&Call>> = BTreeMap::new();
    for call in lost.iter().filter(|call| call.lsn > 0) {
        by_timeline.entry(call.timeline).or_default().push(call);
    }
    let mut found = Vec::new();
    let mut longest = 0;
    for (timeline, calls) in by_timeline {
        let all = || {
            history
                .lists
                .iter()
                .filter(move |txn| txn.call.timeline == timeline)
        };
        let low = calls.iter().map(|call| call.lsn).min().unwrap_or(0);
        let high = calls.iter().map(|call| call.lsn).max().unwrap_or(0);
        let last = all().map(|txn| txn.call.end).max().unwrap_or(0);
        let recent = last.saturating_sub((ttl_ms + 1_500) * 1_000_000);
        let written = all()
            .filter(|txn| txn.call.end >= recent && txn.call.lsn > 0)
            .map(|txn| txn.call.lsn);
        let in_a_ttl = written.clone().max().unwrap_or(0) - written.min().unwrap_or(0);
        let newest_kept = all()
            .filter(|txn| {
                let is_there = |step: &Step| matches!(step, Step::Append(_, value) if known.contains(value));
                txn.call.fate == Fate::Ok && txn.steps.iter().any(is_there)
            })
            .max_by_key(|txn| txn.call.begin);
        if let Some(kept) = newest_kept
            && let Some(gone) = calls.iter().find(|call| call.end < kept.call.begin)
        {
            found.push(format!(
                "timeline {timeline}: {gone:?} is lost, the later {kept:?} is not"
            ));
        }
        longest = longest.max(high - low);
        if high - low > MAXIMUM_LAG + in_a_ttl {
            found.push(format!(
                "timeline {timeline}: {} bytes, {in_a_ttl} were written in the last ttl",
                high - low
            ));
        }
    }
    verdict.count("longest lost span of WAL, bytes", longest);
    verdict.blame("more was lost than the lag limit allows", &found);
}

/// What was read is there in the end, at the same place of the same list. Without synchronous replication it may be lost
/// with its write; with it, what a standby showed before it was acknowledged may be: PostgreSQL sends the log to every
/// standby before the chosen ones have answered, and a standby shows what it has replayed.
fn vanished(history: &History, truth: &Truth, known: &HashSet<i64>, mode: Mode, verdict: &mut Verdict) {
    let empty = Vec::new();
    let fates: HashMap<i64, Fate> = history
        .lists
        .iter()
        .flat_map(|txn| {
            txn.steps.iter().filter_map(|step| match step {
                Step::Append(_, value) => Some((*value, txn.call.fate)),
                Step::Read(..) => None,
            })
        })
        .collect();
    let on_primary = history
        .lists
        .iter()
        .filter(|txn| txn.call.fate == Fate::Ok)
        .flat_map(|txn| {
            txn.steps.iter().filter_map(move |step| match step {
                Step::Read(key, seen) => Some((&txn.call, *key, seen)),
                Step::Append(..) => None,
            })
        });
    let on_standbys = history
        .standby_reads
        .iter()
        .flat_map(|read| read.lists.iter().map(move |(key, seen)| (&read.call, *key, seen)));
    let (mut wrong, mut gone) = (Vec::new(), HashSet::new());
    for (call, key, seen) in on_primary.chain(on_standbys) {
        let last = truth.lists.get(&key).unwrap_or(&empty);
        let same = seen.iter().zip(last).take_while(|(a, b)| a == b).count();
        for value in &seen[same..] {
            match fates.get(value) {
                Some(Fate::Failed) => wrong.push(format!("{value} of a failed transaction, by {call:?}")),
                None => wrong.push(format!("{value}, which nobody wrote, by {call:?}")),
                _ if known.contains(value) => {
                    wrong.push(format!("{value} elsewhere in list {key}, by {call:?}"));
                }
                Some(fate) if mode != Mode::Async && (*fate == Fate::Ok || call.timeline != 0) => {
                    wrong.push(format!("{value} of list {key}, which is gone, by {call:?}"));
                }
                _ => {
                    gone.insert(*value);
                }
            }
        }
    }
    verdict.count("values read and lost later", gone.len());
    verdict.blame("what was read is gone or was never there", &wrong);
}
