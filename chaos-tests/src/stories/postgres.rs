//! One PostgreSQL as far as a promise depends on it: its log on disk, its process, who streams, who waits.

use super::random::Dice;
use matriarch::cluster::{Epoch, Fork, Lsn, Timeline, WalEnd};
use std::collections::{BTreeMap, BTreeSet};

/// Where every log begins.
const FIRST: u64 = 0x500_0000;

/// One record of the log; its id is unique in the world, so two logs are compared by what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: u64,
    pub timeline: u32,
    pub end: u64,
    /// The epoch it was written in.
    pub epoch: Epoch,
}

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proc {
    /// Nothing of it lives.
    Down,
    /// The postmaster is gone; backends may be left.
    Ending,
    /// It starts or recovers.
    Starting,
    /// A standby.
    Standby,
    /// It accepts writes.
    Primary,
}

/// `synchronous_standby_names` as the server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    #[default]
    Empty,
    Any(u32, BTreeSet<String>),
}

impl Names {
    /// Reads what `decide::sync::names` wrote.
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Empty;
        }
        let quoted = text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        let head = text.split(['(', '"']).next().unwrap_or_default();
        let count = head.trim().trim_start_matches("ANY").trim().parse().unwrap_or(1);
        Self::Any(count, quoted)
    }

    pub fn nobody() -> Self {
        Self::Any(1, BTreeSet::new())
    }
}

/// A commit that waits for standbys.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// How long the log must be there.
    pub upto: usize,
    pub id: u64,
    pub epoch: Epoch,
    pub client: Option<(usize, u64)>,
}

/// The server and its data directory.
#[derive(Clone, Debug)]
pub struct Pg {
    pub present: bool,
    pub log: Vec<Record>,
    /// How many records are safe from a power cut.
    pub flushed: usize,
    /// Bytes of the next record that arrived already.
    pub torn: u64,
    pub replayed: usize,
    pub histories: BTreeMap<u32, (u32, u64)>,
    pub proc: Proc,
    /// Which postmaster; new with every start.
    pub pm: u64,
    pub epoch: Option<Epoch>,
    /// `primary_conninfo`: whom it streams from, and whether under its plain name.
    pub upstream: Option<(usize, bool)>,
    /// What `primary_conninfo` was before a promise emptied it.
    pub before_promise: Option<(usize, bool)>,
    pub receiver: Option<u64>,
    pub received_since_start: bool,
    pub names: Names,
    pub waits: Vec<Wait>,
    /// It was asked to stop cleanly, and takes no more writes.
    pub stopping: Option<u64>,
    /// What was there when it last became primary: everybody sees that.
    pub base: usize,
}

impl Pg {
    pub fn new() -> Self {
        let record = Record {
            id: 0,
            timeline: 1,
            end: FIRST,
            epoch: Epoch(1),
        };
        Self {
            present: true,
            log: vec![record],
            flushed: 1,
            torn: 0,
            replayed: 1,
            histories: BTreeMap::new(),
            proc: Proc::Down,
            pm: 0,
            epoch: None,
            upstream: None,
            before_promise: None,
            receiver: None,
            received_since_start: false,
            names: Names::Empty,
            waits: Vec::new(),
            stopping: None,
            base: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.proc, Proc::Starting | Proc::Standby | Proc::Primary)
    }

    pub fn timeline(&self) -> Timeline {
        Timeline(self.log.last().map_or(1, |record| record.timeline))
    }

    /// End of the last whole record on disk.
    pub fn end(&self) -> WalEnd {
        WalEnd {
            timeline: self.timeline(),
            lsn: self.lsn(self.log.len()),
        }
    }

    pub fn lsn(&self, records: usize) -> Lsn {
        Lsn(records.checked_sub(1).map_or(0, |last| self.log[last].end))
    }

    pub fn fork(&self, timeline: Timeline) -> Option<Fork> {
        let (parent, switch) = self.histories.get(&timeline.0)?;
        Some(Fork {
            timeline,
            parent: Timeline(*parent),
            switch: Lsn(*switch),
        })
    }

    /// Writes a record; it is not safe before it was flushed.
    pub fn write(&mut self, id: u64, timeline: u32, bytes: u64, epoch: Epoch) -> usize {
        let end = self.lsn(self.log.len()).0 + bytes;
        self.log.push(Record {
            id,
            timeline,
            end,
            epoch,
        });
        self.log.len()
    }

    /// The processes are gone. What was not flushed may be lost, or all of it after a power cut.
    pub fn crash(&mut self, power: bool, dice: &mut Dice) {
        let kept = if power {
            self.flushed
        } else {
            self.flushed + dice.below(self.log.len() - self.flushed + 1)
        };
        self.log.truncate(kept);
        self.flushed = self.log.len();
        self.torn = 0;
        self.replayed = self.replayed.min(self.log.len());
        self.waits.clear();
        self.receiver = None;
    }

    /// Where the timeline `of` was left in this server's own history; its own end if it is the present one.
    fn left_at(&self, of: u32) -> Option<u64> {
        let mut current = self.timeline().0;
        if current == of {
            return Some(self.lsn(self.flushed).0);
        }
        while let Some((parent, switch)) = self.histories.get(&current) {
            if *parent == of {
                return Some(*switch);
            }
            current = *parent;
        }
        None
    }

    /// The newest timeline it knows of, which it makes for (`recovery_target_timeline = latest`).
    pub fn target(&self) -> u32 {
        let known = self
            .histories
            .last_key_value()
            .map_or(1, |(timeline, _)| *timeline);
        known.max(self.timeline().0)
    }

    /// Whether PostgreSQL would let a log that ends there stream: it compares numbers only.
    pub fn lets_stream(&self, end: WalEnd) -> bool {
        self.left_at(end.timeline.0).is_some_and(|left| end.lsn.0 <= left)
    }

    /// Where pg_rewind sees the two logs part: by their histories' numbers only.
    pub fn rewind_point(&self, target: &Self) -> Option<u64> {
        if self.timeline() == target.timeline() {
            return None;
        }
        let mut current = target.timeline().0;
        let mut end = target.end().lsn.0;
        loop {
            if let Some(left) = self.left_at(current) {
                return Some(left.min(end));
            }
            let (parent, switch) = target.histories.get(&current)?;
            (current, end) = (*parent, *switch);
        }
    }
}
