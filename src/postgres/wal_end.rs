//! Where the log of a stopped server ends: the end of its last whole record, read with pg_waldump.
//!
//! The convention is that of `pg_current_wal_flush_lsn`: an end at a page boundary lies before the next page's header,
//! so that a standby which received everything compares as not less.

use super::control::Control;
use super::run::Program;
use super::{DataDir, Postgres, PostgresError, files};
use crate::cluster::{Lsn, Timeline, WalEnd};
use std::collections::BTreeSet;
use std::time::Duration;

/// Reading all of the log since the last checkpoint may take a while.
const DEADLINE: Duration = Duration::from_secs(120);
/// Reading begins this much before the hint: a record may be large, and the hint may be inside one.
const BEFORE_HINT: u64 = 256 * 1024;
/// Header of the first page of a segment, and of every other page.
const HEADERS: (u64, u64) = (40, 24);

/// A record as pg_waldump shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    at: Lsn,
    length: u64,
    switches: bool,
}

impl Record {
    /// Reads `rmgr: XLOG  len (rec/tot): 114/ 114, tx: 0, lsn: 0/02000060, prev 0/02000028, desc: ...`.
    fn parse(line: &str) -> Option<Self> {
        let (head, description) = line.split_once(", desc: ")?;
        let length = head
            .split_once("len (rec/tot):")?
            .1
            .split_once('/')?
            .1
            .split_once(',')?
            .0
            .trim()
            .parse()
            .ok()?;
        let at = head.split_once(", lsn: ")?.1.split_once(',')?.0.parse().ok()?;
        let switches = head.starts_with("rmgr: XLOG ") && description.starts_with("SWITCH");
        Some(Self { at, length, switches })
    }

    /// Where it ends: page headers inside are no part of its length, and a switch fills its segment.
    fn end(self, control: &Control) -> Lsn {
        let (page, segment) = (control.page.max(1), control.segment.max(1));
        let mut end = self.at.0;
        let mut left = self.length;
        loop {
            let room = page - end % page;
            if left <= room {
                end += left;
                break;
            }
            left -= room;
            end += room;
            end += if end.is_multiple_of(segment) {
                HEADERS.0
            } else {
                HEADERS.1
            };
        }
        end = end.next_multiple_of(8);
        Lsn(if self.switches {
            end.next_multiple_of(segment)
        } else {
            end
        })
    }
}

impl Postgres {
    /// End of the last whole record; `hint` is a position known to be near it. `None` when there is nothing to read.
    pub async fn wal_end(&self, hint: Option<Lsn>) -> Result<Option<WalEnd>, PostgresError> {
        let postgres = self.clone();
        let looked = tokio::task::spawn_blocking(move || postgres.inspect()).await;
        let control = match looked {
            Ok(Ok(DataDir::Present(control))) => control,
            Ok(Ok(_)) | Err(_) => return Ok(None),
            Ok(Err(why)) => return Err(why),
        };
        let segments = self.segments(control.segment)?;
        let known: BTreeSet<Timeline> = segments.iter().map(|(timeline, _)| *timeline).collect();
        for timeline in known.into_iter().rev() {
            let ancestors = self.ancestors(timeline);
            let continues = timeline == control.timeline
                || ancestors.iter().any(|(parent, _)| *parent == control.timeline);
            if !continues {
                continue;
            }
            let own: BTreeSet<u64> = segments
                .iter()
                .filter(|(of, _)| *of == timeline)
                .map(|(_, at)| *at)
                .collect();
            let Some(end) = self.end_on(timeline, &own, &control, hint).await? else {
                continue;
            };
            // A standby that has just begun to receive a new timeline from the start of its first segment may have
            // less of it than of its parent.
            if ancestors.last().is_none_or(|(_, switch)| end >= *switch) || timeline == control.timeline {
                return Ok(Some(WalEnd { timeline, lsn: end }));
            }
        }
        Ok(None)
    }

    /// End of the last whole record on one timeline: from near the hint, else from the checkpoint.
    async fn end_on(
        &self,
        timeline: Timeline,
        own: &BTreeSet<u64>,
        control: &Control,
        hint: Option<Lsn>,
    ) -> Result<Option<Lsn>, PostgresError> {
        let near = hint
            .map(|hint| hint.0.saturating_sub(BEFORE_HINT))
            .filter(|near| *near > control.redo.0);
        for from in near.into_iter().chain([control.redo.0]) {
            let Some((start, stop)) = run_of(own, from, control.segment) else {
                continue;
            };
            let last = stop.saturating_sub(1);
            let files = [start, last].map(|at| segment_name(timeline, at, control.segment));
            if let Some(record) = self.last_record(timeline, start, stop, files).await? {
                return Ok(Some(record.end(control)));
            }
        }
        Ok(None)
    }

    async fn last_record(
        &self,
        timeline: Timeline,
        start: u64,
        stop: u64,
        files: [String; 2],
    ) -> Result<Option<Record>, PostgresError> {
        let program = Program::new("pg_waldump", DEADLINE)
            .arg("-p")
            .arg(self.wal_dir())
            .args([
                format!("-t{}", timeline.0),
                format!("-s{}", Lsn(start)),
                format!("-e{}", Lsn(stop)),
            ])
            // Without names of files it takes the size of a segment from any that it finds, and gives up if that one
            // was made in advance and is empty yet.
            .args(files);
        let mut last = None;
        // It always ends with an error, or with the end of the last file: what was read before counts.
        self.watch_program(program, |line| last = Record::parse(line).or(last), |_| ())
            .await?;
        Ok(last)
    }

    /// Timeline and start of every segment file; some of them only wait to be used again.
    fn segments(&self, segment: u64) -> Result<Vec<(Timeline, u64)>, PostgresError> {
        let names = files::names(&self.wal_dir())?.unwrap_or_default();
        Ok(names
            .iter()
            .filter_map(|name| segment_of(name, segment))
            .collect())
    }
}

/// The file in which a position lies.
pub(super) fn segment_name(timeline: Timeline, at: u64, segment: u64) -> String {
    let (high, low) = (at >> 32, (at & 0xffff_ffff) / segment.max(1));
    format!("{:08X}{high:08X}{low:08X}", timeline.0)
}

/// The timeline and the start of a segment file, if this is the name of one.
pub(super) fn segment_of(name: &str, segment: u64) -> Option<(Timeline, u64)> {
    if name.len() != 24 {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u32::from_str_radix(name.get(range)?, 16).ok();
    let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
    Some((
        Timeline(timeline),
        (u64::from(high) << 32) + u64::from(low) * segment,
    ))
}

/// From where, and to the end of which file, segments without a gap can be read: beginning at `from`, or where the
/// timeline's first file after it begins.
fn run_of(own: &BTreeSet<u64>, from: u64, segment: u64) -> Option<(u64, u64)> {
    let first = from - from % segment.max(1);
    let (start, mut next) = if own.contains(&first) {
        (from, first)
    } else {
        own.range(first..).next().map(|at| (*at, *at))?
    };
    while own.contains(&next) {
        next += segment;
    }
    Some((start, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_lies_in_a_file_of_that_name() {
        let (timeline, at) = (Timeline(19), 0x12_0300_0028);
        let name = segment_name(timeline, at, 16 << 20);
        assert_eq!(name, "000000130000001200000003");
        assert_eq!(segment_of(&name, 16 << 20), Some((timeline, 0x12_0300_0000)));
    }

    fn control() -> Control {
        Control {
            standby: false,
            system_id: 1,
            timeline: Timeline(1),
            state: String::new(),
            checkpoint: Lsn(0),
            redo: Lsn(0),
            segment: 16 << 20,
            page: 8192,
            wal_log_hints: true,
            at_least: Default::default(),
            checksums: true,
        }
    }

    #[test]
    fn records() {
        let line = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/02000060, prev 0/02000028, \
                    desc: CHECKPOINT_ONLINE redo 0/2000028";
        let record = Record::parse(line).unwrap();
        assert_eq!(
            record,
            Record {
                at: Lsn(0x0200_0060),
                length: 114,
                switches: false
            }
        );
        assert_eq!(record.end(&control()).to_string(), "0/20000D8");
        let over = Record {
            at: Lsn(0x0200_1FF0),
            length: 32,
            switches: false,
        };
        assert_eq!(over.end(&control()), Lsn(0x0200_2000 + 24 + 16));
        let exact = Record {
            at: Lsn(0x0200_1FE0),
            length: 32,
            switches: false,
        };
        assert_eq!(exact.end(&control()), Lsn(0x0200_2000));
        let switch = Record {
            at: Lsn(0x0200_1000),
            length: 24,
            switches: true,
        };
        assert_eq!(switch.end(&control()), Lsn(0x0300_0000));
    }

    #[test]
    fn runs_of_segments() {
        let own = BTreeSet::from([16, 32, 48, 80]);
        assert_eq!(run_of(&own, 20, 16), Some((20, 64)));
        assert_eq!(run_of(&own, 5, 16), Some((16, 64)));
        assert_eq!(run_of(&own, 96, 16), None);
        assert_eq!(
            segment_of("000000030000000100000002", 16 << 20),
            Some((Timeline(3), (1 << 32) + (2 << 24)))
        );
        assert_eq!(segment_of("00000003.history", 16 << 20), None);
    }
}
