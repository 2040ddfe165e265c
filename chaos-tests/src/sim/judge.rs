//! What must hold after every event, judged from the true state of the world and not from what anybody reports.

use super::server::Record;
use matriarch::cluster::Epoch;
use std::collections::{BTreeMap, BTreeSet};

/// A commit that a client was told of.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The record.
    pub id: u64,
    /// Where.
    pub node: usize,
    /// In which epoch.
    pub epoch: Epoch,
    /// When.
    pub at: u64,
}

/// What was promised and is broken.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Everything that was acknowledged.
    pub told: Vec<Told>,
    writers: BTreeMap<u32, usize>,
    postmasters: BTreeMap<Epoch, usize>,
    newest: Epoch,
    /// The first broken promise.
    pub broken: Option<String>,
}

impl Judge {
    /// Notes a broken promise; the first one counts.
    pub fn accuse(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    /// P1: acknowledgements of an older epoch end before those of a newer one begin. Where commits wait for standbys one
    /// may still be on its way to its client then, if the newer primary has it: `inherited`.
    pub fn told(&mut self, told: Told, inherited: impl FnOnce() -> bool) {
        let newest = self.newest;
        if told.epoch < newest && !inherited() {
            self.accuse(|| {
                format!(
                    "P1: n{} acknowledged in epoch {} at {} ms after somebody had in epoch {newest}",
                    told.node, told.epoch, told.at
                )
            });
        }
        self.newest = newest.max(told.epoch);
        self.told.push(told);
    }

    /// One epoch, one postmaster.
    pub fn begins(&mut self, epoch: Epoch, node: usize) {
        let starts = self.postmasters.entry(epoch).or_insert(0);
        *starts += 1;
        if *starts > 1 {
            self.accuse(|| format!("epoch {epoch} has a second postmaster, at n{node}"));
        }
    }

    /// One timeline, one writer.
    pub fn writes(&mut self, timeline: u32, node: usize) {
        let first = *self.writers.entry(timeline).or_insert(node);
        if first != node {
            self.accuse(|| format!("timeline {timeline} is written by n{first} and n{node}"));
        }
    }

    /// P2: whoever opens its gate has everything that was acknowledged.
    pub fn opens(&mut self, node: usize, log: &[Record]) {
        let has: BTreeSet<u64> = log.iter().map(|record| record.id).collect();
        let lost: Vec<Told> = self
            .told
            .iter()
            .filter(|told| !has.contains(&told.id))
            .copied()
            .collect();
        if let Some(first) = lost.first() {
            let count = lost.len();
            self.accuse(|| {
                format!("P2: n{node} opens its gate without {count} acknowledged commits, such as {first:?}")
            });
        }
    }
}
