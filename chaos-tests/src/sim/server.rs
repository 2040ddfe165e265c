//! A model of PostgreSQL as far as promises depend on it: logs, timelines, streams, and who lets a commit return.
//!
//! A log is a list of records; a position is eight bytes a record. A stream begins where the *numbers* of timelines and
//! positions agree, as PostgreSQL's does, so that a diverged log can be followed silently: the judge looks at the
//! records themselves. A walsender may go by the synchronous names that it read last, not by those in force.

use matriarch::cluster::{Epoch, Fork, Lsn, Timeline, WalEnd};
use std::collections::BTreeSet;

/// One record; no two ever have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub id: u64,
    /// The timeline it was written on.
    pub timeline: u32,
}

/// A position behind so many records.
pub fn lsn(records: usize) -> Lsn {
    Lsn(0x100_0000 + 8 * records as u64)
}

/// How many records lie before a position.
pub fn records(lsn: Lsn) -> usize {
    usize::try_from(lsn.0.saturating_sub(0x100_0000) / 8).unwrap_or(0)
}

/// A data directory.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Whole records on disk.
    pub log: Vec<Record>,
    /// Half a record behind them.
    pub torn: bool,
    /// The newest timeline in it.
    pub timeline: u32,
    /// Where timelines began: number, parent, records before the fork.
    pub forks: Vec<(u32, u32, usize)>,
    /// How much is replayed; a start begins far back.
    pub replayed: usize,
}

impl Copy {
    /// Where its log ends.
    pub fn end(&self) -> WalEnd {
        WalEnd {
            timeline: Timeline(self.reached()),
            lsn: lsn(self.log.len()),
        }
    }

    /// The timeline that the end of its log lies on: one that begins beyond it is only known of.
    pub fn reached(&self) -> u32 {
        let mut timeline = self.timeline;
        while let Some((_, parent, _)) = self
            .forks
            .iter()
            .find(|(of, _, at)| *of == timeline && *at > self.log.len())
        {
            timeline = *parent;
        }
        timeline
    }

    /// How its timeline began.
    pub fn fork(&self) -> Option<Fork> {
        let (timeline, parent, at) = self.forks.iter().find(|(of, ..)| *of == self.reached())?;
        Some(Fork {
            timeline: Timeline(*timeline),
            parent: Timeline(*parent),
            switch: lsn(*at),
        })
    }

    /// Whether PostgreSQL would let `other` stream from here: by numbers alone.
    pub fn admits(&self, other: &Self) -> bool {
        let mut timeline = self.timeline;
        let mut bound = self.log.len();
        while timeline != other.reached() {
            let Some((_, parent, at)) = self.forks.iter().find(|(of, ..)| *of == timeline) else {
                return false;
            };
            (timeline, bound) = (*parent, *at);
        }
        other.log.len() <= bound
    }

    /// Whether the other log is a beginning of this one.
    pub fn contains(&self, other: &[Record]) -> bool {
        self.log.starts_with(other)
    }
}

/// Who lets a commit return; `None` is nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Whose streams count, under their plain names.
    pub members: BTreeSet<usize>,
    /// How many of them.
    pub count: usize,
}

/// A stream as the primary sees it.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The standby.
    pub to: usize,
    /// Which connection.
    pub connection: u64,
    /// It goes by its plain name.
    pub plain: bool,
    /// Records it has flushed.
    pub flushed: usize,
    /// The names that this walsender has read.
    pub names: Option<Names>,
    /// When it reads those in force.
    pub reads_at: u64,
}

/// What lives of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Nothing.
    Down,
    /// A busy backend that outlives its postmaster until then.
    Orphans(u64),
    /// The server.
    Up,
}

/// The server of one node.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its data directory.
    pub copy: Option<Copy>,
    /// What lives of it.
    pub life: Life,
    /// It is a primary, started or promoted in this epoch.
    pub primary: Option<Epoch>,
    /// Counts starts.
    pub run: i32,
    /// Whom it streams from, and under which name.
    pub upstream: Option<(usize, bool)>,
    /// The walreceiver's connection and whom it is to.
    pub receiver: Option<(u64, usize)>,
    /// `synchronous_standby_names`.
    pub names: Option<Names>,
    /// Who streams from it.
    pub senders: Vec<Sender>,
    /// Commits that wait: records before and with it, its number.
    pub waiting: Vec<(usize, u64)>,
}

impl Server {
    /// Nothing there yet.
    pub fn empty() -> Self {
        Self {
            copy: None,
            life: Life::Down,
            primary: None,
            run: 0,
            upstream: None,
            receiver: None,
            names: None,
            senders: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether it runs as a primary.
    pub fn is_writable(&self) -> bool {
        self.life == Life::Up && self.primary.is_some()
    }

    /// Starts it, as a primary of `epoch` or as a standby.
    pub fn start(&mut self, epoch: Option<Epoch>) {
        self.life = Life::Up;
        self.primary = epoch;
        self.run += 1;
        self.receiver = None;
        self.senders.clear();
        self.waiting.clear();
        if let Some(copy) = &mut self.copy {
            copy.torn = false;
            copy.replayed = if epoch.is_some() {
                copy.log.len()
            } else {
                copy.log.len() / 2
            };
        }
    }

    /// Its postmaster ends; what waited is in doubt, a busy backend may live on for a moment.
    pub fn end(&mut self, orphans_until: Option<u64>) {
        self.life = orphans_until.map_or(Life::Down, Life::Orphans);
        self.receiver = None;
        self.senders.clear();
        self.waiting.clear();
        if orphans_until.is_none() {
            self.primary = None;
        }
    }

    /// Writes a record; says whether its client is told at once.
    pub fn write(&mut self, id: u64) -> bool {
        let Some(copy) = &mut self.copy else { return false };
        copy.log.push(Record {
            id,
            timeline: copy.timeline,
        });
        copy.replayed = copy.log.len();
        match &self.names {
            Some(names) if names.count > 0 => {
                // An orphan's wait ends with its postmaster, unanswered.
                if self.life == Life::Up {
                    self.waiting.push((copy.log.len(), id));
                }
                false
            }
            _ => true,
        }
    }

    /// A standby says what it has flushed; returns the commits whose clients are told now.
    pub fn flushed(&mut self, connection: u64, records: usize) -> Vec<u64> {
        let Some(sender) = self
            .senders
            .iter_mut()
            .find(|sender| sender.connection == connection)
        else {
            return Vec::new();
        };
        sender.flushed = sender.flushed.max(records);
        let names = sender.names.clone();
        let Some(names) = names.filter(|names| names.count > 0) else {
            return Vec::new();
        };
        let have = |before: usize| {
            let counted = self
                .senders
                .iter()
                .filter(|s| s.plain && names.members.contains(&s.to));
            counted.filter(|s| s.flushed >= before).count() >= names.count
        };
        let told = self
            .waiting
            .iter()
            .take_while(|(before, _)| have(*before))
            .count();
        self.waiting.drain(..told).map(|(_, id)| id).collect()
    }

    /// Other names are read: by new backends at once, by walsenders a little later. Without names nobody waits.
    pub fn rename(&mut self, names: Option<Names>, walsenders_at: u64) -> Vec<u64> {
        if self.names == names {
            return Vec::new();
        }
        self.names = names;
        for sender in &mut self.senders {
            sender.reads_at = walsenders_at;
        }
        let waits = self.names.as_ref().is_some_and(|names| names.count > 0);
        if waits {
            return Vec::new();
        }
        self.waiting.drain(..).map(|(_, id)| id).collect()
    }
}
