//! A model of Raft as a register: terms, elections and commits that need a majority which can hear one another.
//!
//! Each promise of Raft that the product leans on is one check here: an election needs voters who have not moved to a
//! later term and whose logs are not ahead; a commit and a confirmation need voters that have not moved to a later term.

use matriarch::cluster::{Command, Vote};

/// Followers wait at least this long for their leader.
pub const ELECTION_MIN_MS: u64 = 200;
/// A leader that has heard no majority for this long does not lead.
pub const STALE_MS: u64 = 400;

/// One voter.
#[derive(Clone, Debug, Default)]
pub struct Voter {
    /// The latest term it knows.
    pub term: u64,
    /// When it last heard a leader.
    pub heard_at: u64,
    /// How long it waits this time.
    pub patience: u64,
    /// The term it leads, with its own first entry applied.
    pub leads: Option<u64>,
    /// When a majority last answered it.
    pub answered_at: u64,
    /// Entries in its log.
    pub entries: usize,
    /// Entries it has applied.
    pub applied: usize,
}

/// One committed entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The reign that wrote it.
    pub vote: Vote,
    /// What it says.
    pub command: Command,
}

/// The group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The voters.
    pub voters: Vec<Voter>,
    /// What is committed.
    pub log: Vec<Entry>,
}

impl Group {
    fn majority(&self, heard: &[usize]) -> bool {
        2 * heard.len() > self.voters.len()
    }

    /// Of the voters that `node` and which hear each other, those that would follow it in its term.
    fn followers(&self, node: usize, term: u64, hears: &impl Fn(usize, usize) -> bool) -> Vec<usize> {
        (0..self.voters.len())
            .filter(|other| *other == node || hears(node, *other) && hears(*other, node))
            .filter(|other| self.voters[*other].term <= term)
            .collect()
    }

    /// The reign of a node that leads, as far as it knows.
    pub fn lead(&self, node: usize, now: u64) -> Option<Vote> {
        let voter = &self.voters[node];
        let fresh = now.saturating_sub(voter.answered_at) < STALE_MS;
        voter.leads.filter(|_| fresh).map(|term| Vote {
            term,
            node: node as u64 + 1,
        })
    }

    /// A majority confirms at this moment that no later term has begun.
    pub fn confirm(&self, node: usize, hears: &impl Fn(usize, usize) -> bool) -> bool {
        let voter = &self.voters[node];
        voter.leads == Some(voter.term) && self.majority(&self.followers(node, voter.term, hears))
    }

    /// Heartbeats of a leader, or the patience of a follower.
    pub fn tick(&mut self, node: usize, now: u64, patience: u64, hears: &impl Fn(usize, usize) -> bool) {
        let term = self.voters[node].term;
        if self.voters[node].leads == Some(term) {
            let followers = self.followers(node, term, hears);
            if !self.majority(&followers) {
                return;
            }
            self.voters[node].answered_at = now;
            for follower in followers {
                let voter = &mut self.voters[follower];
                voter.term = term;
                voter.heard_at = now;
                if follower != node {
                    voter.leads = None;
                }
                voter.entries = self.log.len();
            }
            return;
        }
        self.voters[node].leads = None;
        if now.saturating_sub(self.voters[node].heard_at) > self.voters[node].patience {
            self.voters[node].patience = patience;
            self.stand(node, now, hears);
        }
    }

    /// The leader asks a follower to stand at once.
    pub fn hand_over(&mut self, from: usize, to: usize, now: u64, hears: &impl Fn(usize, usize) -> bool) {
        if hears(from, to) && hears(to, from) && self.confirm(from, hears) {
            for voter in &mut self.voters {
                voter.heard_at = 0;
            }
            self.stand(to, now, hears);
        }
    }

    /// Pre-vote and vote in one: voters that hear a leader refuse.
    fn stand(&mut self, node: usize, now: u64, hears: &impl Fn(usize, usize) -> bool) {
        let entries = self.voters[node].entries;
        let willing: Vec<usize> = (0..self.voters.len())
            .filter(|other| *other == node || hears(node, *other) && hears(*other, node))
            .filter(|other| self.voters[*other].entries <= entries)
            .filter(|other| {
                *other == node || now.saturating_sub(self.voters[*other].heard_at) >= ELECTION_MIN_MS
            })
            .collect();
        if !self.majority(&willing) {
            return;
        }
        let term = 1 + willing
            .iter()
            .map(|voter| self.voters[*voter].term)
            .max()
            .unwrap_or(0);
        for voter in willing {
            let voter = &mut self.voters[voter];
            voter.term = term;
            voter.leads = None;
            voter.heard_at = now;
        }
        let winner = &mut self.voters[node];
        winner.leads = Some(term);
        winner.answered_at = now;
    }

    /// Commits what a leader proposes, if a majority still follows it.
    pub fn propose(&mut self, node: usize, command: Command, hears: &impl Fn(usize, usize) -> bool) -> bool {
        if !self.confirm(node, hears) {
            return false;
        }
        let term = self.voters[node].term;
        let vote = Vote {
            term,
            node: node as u64 + 1,
        };
        self.log.push(Entry { vote, command });
        for follower in self.followers(node, term, hears) {
            self.voters[follower].entries = self.log.len();
            self.voters[follower].term = term;
        }
        true
    }
}
