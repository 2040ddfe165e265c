//! What must be true after every event, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::status::Lead;
use crate::wire::stored::{EntryBytes, LogIdBytes, PayloadBytes, VoteBytes};

type Reign = (u64, u64);
type Place = (u64, u64, u64);

fn place(id: &LogIdBytes) -> Place {
    (id.term, id.node, id.index)
}

/// Sees everything; says nothing until something is broken.
pub(crate) struct Judge {
    begun: Instant,
    /// Everything that happened, one line each.
    pub(crate) trace: Vec<String>,
    /// The first promise that was broken.
    pub(crate) broken: Option<String>,
    /// What stands at a place of the log, and what before it: the same on every node.
    known: BTreeMap<Place, (Option<Place>, PayloadBytes)>,
    /// Commands in the order in which they were applied, and the reign of each entry.
    pub(crate) agreed: Vec<(Lead, u64)>,
    applied: BTreeSet<u64>,
    /// What each leader held when it began.
    pub(crate) held: BTreeMap<Reign, BTreeSet<u64>>,
    /// By site: to whom it promised itself last.
    votes: BTreeMap<usize, Reign>,
    pub(crate) acknowledged: BTreeMap<u64, usize>,
    refused: BTreeSet<u64>,
    /// Longest way back to normal after the last fault.
    pub(crate) healed_in: Option<Duration>,
}

impl Judge {
    pub(crate) fn new() -> Judge {
        Judge {
            begun: Instant::now(),
            trace: Vec::new(),
            broken: None,
            known: BTreeMap::new(),
            agreed: Vec::new(),
            applied: BTreeSet::new(),
            held: BTreeMap::new(),
            votes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            refused: BTreeSet::new(),
            healed_in: None,
        }
    }

    pub(crate) fn note(&mut self, what: &str) {
        let at = self.begun.elapsed().as_millis();
        self.trace.push(format!("{at:>6} {what}"));
    }

    pub(crate) fn blame(&mut self, why: String) {
        self.note(&format!("BROKEN: {why}"));
        self.broken.get_or_insert(why);
    }

    /// Log matching: one place, one entry, one predecessor.
    pub(crate) fn appended(&mut self, site: usize, entry: EntryBytes, previous: Option<LogIdBytes>) {
        let at = place(&entry.id);
        self.note(&format!("node{site} appends {at:?}"));
        let previous = previous.as_ref().map(place);
        let new = (previous, entry.payload);
        let known = self.known.entry(at).or_insert_with(|| new.clone());
        let same_before = previous.is_none() || known.0.is_none() || known.0 == previous;
        if known.1 != new.1 || !same_before {
            let why = format!("log matching: at {at:?} node{site} has {new:?}, another node {known:?}");
            return self.blame(why);
        }
        known.0 = known.0.or(previous);
    }

    /// Election safety and leader completeness, at the moment a leader begins.
    pub(crate) fn reigns(&mut self, id: &LogIdBytes, held: Vec<u64>) {
        let reign = (id.term, id.node);
        self.note(&format!("{reign:?} begins to lead"));
        let held: BTreeSet<u64> = held.into_iter().collect();
        let earlier = self
            .agreed
            .iter()
            .filter(|(lead, _)| (lead.term, lead.node) < reign);
        let missing = earlier
            .filter(|(_, command)| !held.contains(command))
            .map(|(_, c)| *c)
            .next();
        if let Some(command) = missing {
            self.blame(format!(
                "leader completeness: {reign:?} leads without command {command}, which was applied"
            ));
        }
        if self.held.insert(reign, held).is_some() {
            self.blame(format!("election safety: {reign:?} began to lead twice"));
        }
    }

    /// What was promised to a candidate stays promised.
    pub(crate) fn voted(&mut self, site: usize, vote: &VoteBytes) {
        let new = (vote.term, vote.node);
        self.note(&format!("node{site} votes for {new:?}"));
        let before = self.votes.insert(site, new);
        if let Some(before) = before.filter(|before| *before > new) {
            self.blame(format!("node{site} votes for {new:?} after {before:?}"));
        }
    }

    pub(crate) fn starts(&mut self, site: usize, vote: Option<Reign>) {
        self.note(&format!("node{site} starts"));
        if let Some(given) = self.votes.get(&site).filter(|given| vote < Some(**given)) {
            self.blame(format!(
                "node{site} starts with vote {vote:?} and had given {given:?}"
            ));
        }
    }

    /// Its disk is gone; it comes back as somebody else.
    pub(crate) fn forgets(&mut self, site: usize) {
        self.note(&format!("node{site} loses its disk"));
        self.votes.remove(&site);
    }

    /// State machine safety: everybody applies the same; and completeness seen from the other end.
    pub(crate) fn applied(&mut self, site: usize, position: usize, lead: Lead, command: u64) {
        self.note(&format!("node{site} applies {command} as number {position}"));
        let reign = (lead.term, lead.node);
        match self.agreed.get(position) {
            Some(agreed) if *agreed == (lead, command) => {}
            Some(agreed) => {
                let why =
                    format!("node{site} applies {command} as number {position}, another node {agreed:?}");
                self.blame(why);
            }
            None => {
                if !self.applied.insert(command) {
                    self.blame(format!("command {command} is applied twice"));
                }
                let later = self.held.range((reign.0, reign.1 + 1)..);
                let lacking: Vec<Reign> = later
                    .filter(|(_, held)| !held.contains(&command))
                    .map(|(r, _)| *r)
                    .collect();
                if let Some(later) = lacking.first() {
                    self.blame(format!(
                        "leader completeness: {later:?} led without {command} of {reign:?}"
                    ));
                }
                self.agreed.push((lead, command));
            }
        }
    }

    /// A snapshot is what had been applied.
    pub(crate) fn restored(&mut self, site: usize, state: &[u64]) {
        self.note(&format!("node{site} restores {} commands", state.len()));
        let agreed = self.agreed.iter().map(|(_, command)| command);
        if state.len() > self.agreed.len() || !state.iter().eq(agreed.take(state.len())) {
            self.blame(format!("node{site} restores a state that nobody had"));
        }
    }

    pub(crate) fn acknowledges(&mut self, command: u64, position: usize) {
        self.note(&format!("{command} is acknowledged as number {position}"));
        self.acknowledged.insert(command, position);
        if self.agreed.get(position).map(|(_, c)| *c) != Some(command) {
            self.blame(format!(
                "{command} was acknowledged as number {position} and is not there"
            ));
        }
    }

    /// "Certainly not committed."
    pub(crate) fn refuses(&mut self, command: u64) {
        self.note(&format!("{command} is refused"));
        self.refused.insert(command);
    }

    /// A leader that confirmed itself knows everything that had been applied anywhere when it was asked.
    pub(crate) fn confirmed(&mut self, site: usize, when_asked: usize, applied: usize) {
        self.note(&format!("node{site} is confirmed with {applied} commands"));
        if applied < when_asked {
            self.blame(format!(
                "node{site} was confirmed as leader with {applied} commands; {when_asked} had been applied before it was asked"
            ));
        }
    }

    /// After the last fault, when everybody should have everything.
    pub(crate) fn at_the_end(&mut self) {
        if let Some(command) = self.refused.intersection(&self.applied).next() {
            let why = format!("{command} was refused as certainly not committed, and was applied");
            self.blame(why);
        }
    }
}
