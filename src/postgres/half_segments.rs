//! Segments of a new timeline that hold less than its parent had: why a standby may not be promoted, or started, as it
//! is.
//!
//! A standby that follows its primary onto a new timeline asks for it from the start of the segment in which it forked
//! off. Until it has received that segment again up to the fork, it has two files for it: the parent's, which it has
//! replayed, and the new one, which begins with the same bytes and is zero behind them. When the primary is lost in
//! that moment, PostgreSQL takes the new one: a promotion ends with `PANIC: invalid magic number 0000 in log segment`,
//! and so does every start after it. (`XLogFileReadAnyTLI` in xlogrecovery.c tries the newest timeline first.)
//!
//! Such a file holds nothing: every byte of it is zero or its parent's. That is what is checked, byte by byte, before
//! it is removed, and it is removed only while nobody writes it.

use super::wal_end::{segment_name, segment_of};
use super::{Postgres, PostgresError, files};
use crate::cluster::{Lsn, Timeline};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// No record is shorter than its header of 24 bytes, so the last bytes before a fork are not all zero.
const LAST: u64 = 32;
/// Read at once.
const PIECE: usize = 1 << 18;

impl Postgres {
    /// The segments that hold less than their parents', and nothing else; blocking. While a receiver runs, it may be
    /// filling one of them.
    pub fn half_segments(&self) -> Result<Vec<PathBuf>, PostgresError> {
        let names = files::names(&self.wal_dir())?.unwrap_or_default();
        let mut histories = BTreeMap::new();
        let mut half = Vec::new();
        for name in &names {
            let path = self.wal_dir().join(name);
            // Its length tells the size of all; a file that is gone by now is none.
            let size = path.metadata().map_or(0, |meta| meta.len());
            let Some((timeline, start)) = segment_of(name, size).filter(|_| size.is_power_of_two()) else {
                continue;
            };
            let ancestors: &Vec<_> = histories
                .entry(timeline)
                .or_insert_with(|| self.ancestors(timeline));
            if let Some((parent, fork)) = self.parent_of(&names, &half, ancestors, start, size)
                && is_half(&path, &parent, fork).unwrap_or_else(|why| passed_over(&path, &why))
            {
                half.push(path);
            }
        }
        Ok(half)
    }

    /// Removes them; only while nobody receives.
    pub fn remove_half_segments(&self) -> Result<(), PostgresError> {
        let half = self.half_segments()?;
        for path in &half {
            tracing::warn!(
                "{} holds less than the timeline before it, and nothing else: removed",
                path.display()
            );
            files::remove_file(path)?;
        }
        if half.is_empty() {
            return Ok(());
        }
        files::sync_dir(&self.wal_dir())
    }

    /// The file of the nearest ancestor for a segment in which a timeline was forked off, and how much of it, in bytes,
    /// both have in common.
    fn parent_of(
        &self,
        names: &[String],
        half: &[PathBuf],
        ancestors: &[(Timeline, Lsn)],
        start: u64,
        size: u64,
    ) -> Option<(PathBuf, u64)> {
        let mut common = u64::MAX;
        for (ancestor, switch) in ancestors.iter().rev() {
            let inside = switch.0.checked_sub(start).filter(|inside| *inside > 0)?;
            common = common.min(inside);
            if common >= size {
                return None;
            }
            let name = segment_name(*ancestor, start, size);
            let path = self.wal_dir().join(&name);
            if names.contains(&name) && !half.contains(&path) {
                return Some((path, common));
            }
        }
        None
    }
}

/// What cannot be compared is left alone, and keeps nobody from a promotion or a start: a running server renames and
/// removes old segments at any time, and an end of another kind has PostgreSQL's own words.
fn passed_over(path: &Path, why: &io::Error) -> bool {
    tracing::debug!("{}: {why}", path.display());
    false
}

/// Whether `child` begins as `parent`, is zero from somewhere before the fork to its end, and `parent` is not.
fn is_half(child: &Path, parent: &Path, fork: u64) -> io::Result<bool> {
    let (mut child, mut parent) = (File::open(child)?, File::open(parent)?);
    let mut last = vec![0; usize::try_from(LAST.min(fork)).map_err(io::Error::other)?];
    child.seek(SeekFrom::Start(fork.saturating_sub(LAST)))?;
    child.read_exact(&mut last)?;
    if last.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    child.rewind()?;
    let (mut at, mut differs) = (0, false);
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let length = child.read(&mut ours)?;
        let (Some(ours), Some(theirs)) = (ours.get(..length), theirs.get_mut(..length)) else {
            return Ok(false);
        };
        if ours.is_empty() {
            return Ok(differs);
        }
        parent.read_exact(theirs)?;
        for (ours, theirs) in ours.iter().zip(theirs) {
            // From the first difference on, and behind the fork, there must be nothing.
            differs = differs || ours != theirs && at < fork;
            if *ours != 0 && (differs || at >= fork) {
                return Ok(false);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORK: usize = 600_000;

    fn segment(filled: &[(std::ops::Range<usize>, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        for (range, byte) in filled {
            bytes[range.clone()].fill(*byte);
        }
        bytes
    }

    #[test]
    fn only_a_file_that_holds_nothing_of_its_own_is_half() {
        let dir = tempfile::tempdir().unwrap();
        let parent = segment(&[(0..FORK + 40_000, 7)]);
        for (what, child, expected) in [
            ("begun", segment(&[(0..262_144, 7)]), true),
            ("empty", segment(&[]), true),
            ("whole up to the fork", segment(&[(0..FORK, 7)]), false),
            (
                "whole and longer",
                segment(&[(0..FORK, 7), (FORK..700_000, 9)]),
                false,
            ),
            ("other bytes", segment(&[(0..1_000, 7), (1_000..2_000, 8)]), false),
            (
                "something behind a hole",
                segment(&[(0..1_000, 7), (500_000..500_001, 7)]),
                false,
            ),
            (
                "something behind the fork",
                segment(&[(0..1_000, 7), (FORK..FORK + 1, 9)]),
                false,
            ),
        ] {
            let paths = ["child", "parent"].map(|name| dir.path().join(name));
            std::fs::write(&paths[0], child).unwrap();
            std::fs::write(&paths[1], &parent).unwrap();
            assert_eq!(
                is_half(&paths[0], &paths[1], FORK as u64).unwrap(),
                expected,
                "{what}"
            );
        }
        let paths = ["child", "parent"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], segment(&[(0..1_000, 7)])).unwrap();
        std::fs::write(&paths[1], segment(&[(0..1_000, 7)])).unwrap();
        assert!(
            !is_half(&paths[0], &paths[1], FORK as u64).unwrap(),
            "the parent has no more"
        );
        let gone = dir.path().join("gone");
        let error = is_half(&paths[0], &gone, FORK as u64).unwrap_err();
        assert!(!passed_over(&gone, &error), "what cannot be compared stays");
    }
}
