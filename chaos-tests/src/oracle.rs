//! What must be true of the rows afterwards, whatever happened meanwhile.

use crate::herd::Herd;
use crate::writer::{Outcome, Write};
use std::collections::{BTreeMap, HashMap};

/// An acknowledgement that was on its way when its server died may reach a busy client this late.
const LATE_NS: u64 = 250_000_000;

/// The oracle's findings.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Acknowledged rows.
    pub acked: usize,
    /// Acknowledged rows that no longer exist. In async mode a crash may cost the newest ones.
    pub lost: Vec<Write>,
    /// Rows that exist more than once.
    pub repeated: Vec<(i32, i64)>,
    /// Lost rows although a row sent after their acknowledgement, on the same timeline, exists. Never allowed.
    pub holes: Vec<Write>,
    /// Two servers accepted writes at once: the row of the older timeline, the first row of the younger. Never allowed.
    pub overlaps: Vec<(Write, Write)>,
}

impl Verdict {
    /// Fails when something is wrong that no mode allows.
    pub fn demand_sound(&self) {
        assert!(
            self.acked > 0,
            "no row was acknowledged: the test has shown nothing"
        );
        assert!(
            self.repeated.is_empty(),
            "rows exist more than once: {:?}",
            head(&self.repeated)
        );
        assert!(
            self.holes.is_empty(),
            "acknowledged rows are missing in the middle: {:?}",
            head(&self.holes)
        );
        assert!(
            self.overlaps.is_empty(),
            "two nodes accepted writes at once: {:?}",
            head(&self.overlaps)
        );
    }

    /// Fails also when an acknowledged row is gone.
    pub fn demand_nothing_lost(&self) {
        self.demand_sound();
        assert!(
            self.lost.is_empty(),
            "{} acknowledged rows lost: {:?}",
            self.lost.len(),
            head(&self.lost)
        );
    }
}

fn head<T: Clone>(all: &[T]) -> Vec<T> {
    all.iter().take(3).cloned().collect()
}

/// Reads the rows on a node and judges what the clients were told.
pub async fn judge(herd: &Herd, node: usize, writes: &[Write]) -> Verdict {
    let text = herd.nodes[node]
        .sql(
            "SELECT coalesce(string_agg(writer || ':' || seq || ':' || n, ' '), '') FROM \
              (SELECT writer, seq, count(*) AS n FROM judge GROUP BY 1, 2) AS rows",
        )
        .await
        .unwrap_or_else(|error| panic!("the rows cannot be read on {}: {error}", herd.nodes[node].name));
    let found: HashMap<(i32, i64), u32> = text
        .split_whitespace()
        .map(|row| {
            let mut parts = row.split(':');
            let mut next = || parts.next().expect("three parts");
            (
                (next().parse().unwrap(), next().parse().unwrap()),
                next().parse().unwrap(),
            )
        })
        .collect();
    weigh(&found, writes)
}

/// Judges the rows that were found against what the clients were told.
pub fn weigh(found: &HashMap<(i32, i64), u32>, writes: &[Write]) -> Verdict {
    let acked: Vec<&Write> = writes.iter().filter(|write| write.is_acked()).collect();
    let exists = |write: &Write| found.contains_key(&(write.writer, write.seq));
    let lost: Vec<Write> = acked
        .iter()
        .filter(|write| !exists(write))
        .map(|write| (*write).clone())
        .collect();
    let mut newest_kept: BTreeMap<i32, u64> = BTreeMap::new();
    for write in acked.iter().filter(|write| exists(write)) {
        let newest = newest_kept.entry(timeline(write)).or_default();
        *newest = write.sent.max(*newest);
    }
    let is_hole = |write: &&Write| {
        newest_kept
            .get(&timeline(write))
            .is_some_and(|newest| *newest > write.ended)
    };
    Verdict {
        acked: acked.len(),
        holes: lost.iter().filter(is_hole).cloned().collect(),
        lost,
        repeated: found
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(row, _)| *row)
            .collect(),
        overlaps: overlaps(&acked),
    }
}

fn timeline(write: &Write) -> i32 {
    match write.outcome {
        Outcome::Acked { timeline } => timeline,
        Outcome::Refused | Outcome::Unknown => 0,
    }
}

/// Rows acknowledged on an older timeline after the first acknowledgement on a younger one, and timelines with two
/// writers. A row sent before that acknowledgement may be answered a little later without having been committed later.
fn overlaps(acked: &[&Write]) -> Vec<(Write, Write)> {
    let mut firsts: BTreeMap<i32, &Write> = BTreeMap::new();
    for write in acked {
        let first = firsts.entry(timeline(write)).or_insert(write);
        if write.ended < first.ended {
            *first = write;
        }
    }
    let mut found = Vec::new();
    for write in acked {
        let younger = firsts.range(timeline(write) + 1..).map(|(_, first)| *first);
        let superseded = younger.min_by_key(|first| first.ended);
        if let Some(first) = superseded
            && (write.sent > first.ended || write.ended > first.ended + LATE_NS)
        {
            found.push(((*write).clone(), first.clone()));
        }
        if let Some(first) = firsts.get(&timeline(write))
            && first.node != write.node
        {
            found.push(((*write).clone(), (*first).clone()));
        }
    }
    found
}

/// Longest interval between two acknowledgements of one client, from the last one before `since` on, in seconds.
pub fn gap_s(writes: &[Write], since: u64) -> f64 {
    let mut ends: Vec<u64> = writes
        .iter()
        .filter(|write| write.is_acked())
        .map(|write| write.ended)
        .collect();
    ends.sort_unstable();
    let before = ends.iter().rposition(|end| *end <= since).unwrap_or(0);
    let longest = ends[before..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0);
    #[allow(
        clippy::cast_precision_loss,
        reason = "a gap of months would lose a nanosecond"
    )]
    let seconds = longest as f64 / 1e9;
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(node: usize, timeline: i32, seq: i64, sent_ms: u64, ended_ms: u64) -> Write {
        let outcome = Outcome::Acked { timeline };
        Write {
            writer: 1,
            seq,
            node,
            sent: sent_ms * 1_000_000,
            ended: ended_ms * 1_000_000,
            outcome,
        }
    }

    fn rows(all: &[(i64, u32)]) -> HashMap<(i32, i64), u32> {
        all.iter().map(|(seq, count)| ((1, *seq), *count)).collect()
    }

    #[test]
    fn a_clean_failover_is_sound() {
        let writes = [ack(0, 1, 1, 0, 2), ack(0, 1, 2, 3, 5), ack(1, 3, 3, 500, 502)];
        let verdict = weigh(&rows(&[(1, 1), (2, 1), (3, 1)]), &writes);
        verdict.demand_nothing_lost();
        assert_eq!(verdict.acked, 3);
        assert!((gap_s(&writes, 4_000_000) - 0.497).abs() < 1e-9);
    }

    #[test]
    fn the_old_primary_acknowledging_after_the_new_one_is_an_overlap() {
        let writes = [ack(0, 1, 1, 0, 2), ack(1, 3, 2, 100, 102), ack(0, 1, 3, 103, 104)];
        let verdict = weigh(&rows(&[(1, 1), (2, 1), (3, 1)]), &writes);
        assert_eq!(verdict.overlaps.len(), 1);
        assert_eq!(verdict.overlaps[0].0.seq, 3);
    }

    #[test]
    fn a_commit_that_hung_over_the_change_is_an_overlap_unless_it_is_only_a_little_late() {
        let writes = |ended| [ack(0, 1, 1, 90, ended), ack(1, 3, 2, 100, 102)];
        assert!(weigh(&rows(&[(1, 1), (2, 1)]), &writes(110)).overlaps.is_empty());
        assert_eq!(weigh(&rows(&[(1, 1), (2, 1)]), &writes(900)).overlaps.len(), 1);
    }

    #[test]
    fn two_writers_on_one_timeline_are_an_overlap() {
        let writes = [ack(0, 2, 1, 0, 2), ack(1, 2, 2, 3, 5)];
        assert_eq!(weigh(&rows(&[(1, 1), (2, 1)]), &writes).overlaps.len(), 1);
    }

    #[test]
    fn primacy_that_goes_and_returns_is_no_overlap() {
        let writes = [ack(0, 1, 1, 0, 2), ack(1, 2, 2, 10, 12), ack(0, 3, 3, 20, 22)];
        assert!(
            weigh(&rows(&[(1, 1), (2, 1), (3, 1)]), &writes)
                .overlaps
                .is_empty()
        );
    }

    #[test]
    fn the_newest_rows_may_be_lost_but_never_one_in_the_middle() {
        let writes = [ack(0, 1, 1, 0, 2), ack(0, 1, 2, 3, 5), ack(0, 1, 3, 6, 8)];
        let tail = weigh(&rows(&[(1, 1), (2, 1)]), &writes);
        assert_eq!((tail.lost.len(), tail.holes.len()), (1, 0));
        let middle = weigh(&rows(&[(1, 1), (3, 1)]), &writes);
        assert_eq!((middle.lost.len(), middle.holes.len()), (1, 1));
    }

    #[test]
    fn a_row_that_exists_twice_is_found() {
        let verdict = weigh(&rows(&[(1, 2)]), &[ack(0, 1, 1, 0, 2)]);
        assert_eq!(verdict.repeated, vec![(1, 1)]);
    }
}
