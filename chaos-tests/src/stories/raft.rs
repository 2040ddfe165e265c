//! Raft as far as the judgement depends on it: terms, pre-votes, votes, a replicated log, ReadIndex rounds, hand-over.

use super::random::Dice;
use matriarch::cluster::Command;
use std::rc::Rc;

/// Between two heartbeats, microseconds.
const HEARTBEAT: u64 = 50_000;
const ELECTION_MIN: u64 = 200_000;
const ELECTION_MAX: u64 = 400_000;
/// A leader that no majority answered for this long does not count as leading.
const FRESH: u64 = ELECTION_MAX;
/// So many entries travel in one message.
const BATCH: usize = 32;

/// One entry of the log; without a command it is a leader's first.
#[derive(Clone, Debug)]
pub struct Entry {
    pub term: u64,
    pub node: usize,
    pub command: Option<Rc<Command>>,
}

/// What travels between the members.
#[derive(Clone, Debug)]
pub enum Word {
    Ask {
        pre: bool,
        forced: bool,
        term: u64,
        last: (u64, usize),
    },
    Say {
        pre: bool,
        term: u64,
        granted: bool,
    },
    Append {
        term: u64,
        before: (u64, usize),
        entries: Vec<Entry>,
        commit: usize,
        round: u64,
        sent: u64,
    },
    Appended {
        term: u64,
        /// How much of the log is the same, or what to send from.
        level: Result<usize, usize>,
        round: u64,
        sent: u64,
    },
    TimeoutNow {
        term: u64,
    },
}

#[derive(Clone, Debug)]
struct Lead {
    next: Vec<usize>,
    level: Vec<usize>,
    round: u64,
    acked: Vec<u64>,
    fresh: Vec<u64>,
    first: usize,
    beat_at: u64,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate {
        pre: bool,
        forced: bool,
        votes: Vec<bool>,
    },
    Leader(Lead),
}

/// One voter.
#[derive(Clone, Debug)]
pub struct Raft {
    me: usize,
    voters: usize,
    pub term: u64,
    voted: Option<usize>,
    pub log: Vec<Entry>,
    pub commit: usize,
    /// How much of the log the state machine has seen.
    pub applied: usize,
    role: Role,
    pub leader: Option<usize>,
    /// When a leader was last heard.
    pub heard: u64,
    deadline: u64,
}

type Out = Vec<(usize, Word)>;

impl Raft {
    pub fn new(me: usize, voters: usize) -> Self {
        Self {
            me,
            voters,
            term: 0,
            voted: None,
            log: Vec::new(),
            commit: 0,
            applied: 0,
            role: Role::Follower,
            leader: None,
            heard: 0,
            deadline: 0,
        }
    }

    /// What is on disk stays: term, vote, log, and the state that was built of it.
    pub fn reboot(&mut self, now: u64, dice: &mut Dice) {
        self.role = Role::Follower;
        self.leader = None;
        self.heard = 0;
        self.commit = self.applied;
        self.deadline = now + dice.between(ELECTION_MIN, ELECTION_MAX);
    }

    pub fn majority(&self) -> usize {
        self.voters / 2 + 1
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.voters).filter(move |peer| *peer != me)
    }

    pub fn believes_to_lead(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The term it leads, with its own first entry applied; `fresh` asks for a majority that answered lately.
    pub fn lead(&self, now: u64, fresh: bool) -> Option<u64> {
        let Role::Leader(lead) = &self.role else {
            return None;
        };
        let mut heard: Vec<u64> = self.others().map(|peer| lead.fresh[peer]).collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        let quorum_at = heard
            .get(self.majority().saturating_sub(2))
            .copied()
            .unwrap_or(now);
        (self.applied > lead.first && (!fresh || quorum_at + FRESH > now)).then_some(self.term)
    }

    /// Begins a round that proves the leadership; answers its number and what must be applied then.
    pub fn confirm(&mut self, now: u64) -> Option<(u64, usize, Out)> {
        let Role::Leader(lead) = &mut self.role else {
            return None;
        };
        lead.round += 1;
        let round = lead.round;
        Some((round, self.commit, self.broadcast(now)))
    }

    pub fn confirmed(&self, round: u64) -> bool {
        let Role::Leader(lead) = &self.role else {
            return false;
        };
        let acked = self.others().filter(|peer| lead.acked[*peer] >= round).count();
        acked + 1 >= self.majority()
    }

    /// Appends a command; answers its place and term.
    pub fn propose(&mut self, command: Rc<Command>, now: u64) -> Option<(usize, u64, Out)> {
        matches!(self.role, Role::Leader(_)).then_some(())?;
        let entry = Entry {
            term: self.term,
            node: self.me,
            command: Some(command),
        };
        self.log.push(entry);
        self.advance();
        let out = self.broadcast(now);
        Some((self.log.len(), self.term, out))
    }

    /// The peers that hold the whole log.
    pub fn level_peers(&self) -> Vec<usize> {
        let Role::Leader(lead) = &self.role else {
            return Vec::new();
        };
        self.others()
            .filter(|peer| lead.level[*peer] == self.log.len())
            .collect()
    }

    pub fn hand_over(&self, to: usize) -> Out {
        vec![(to, Word::TimeoutNow { term: self.term })]
    }

    pub fn tick(&mut self, now: u64, dice: &mut Dice) -> Out {
        if let Role::Leader(lead) = &mut self.role {
            if now < lead.beat_at {
                return Out::new();
            }
            lead.beat_at = now + HEARTBEAT;
            return self.broadcast(now);
        }
        if now < self.deadline {
            return Out::new();
        }
        self.stand(true, false, now, dice)
    }

    fn stand(&mut self, pre: bool, forced: bool, now: u64, dice: &mut Dice) -> Out {
        self.deadline = now + dice.between(ELECTION_MIN, ELECTION_MAX);
        let mut votes = vec![false; self.voters];
        votes[self.me] = true;
        if !pre {
            self.term += 1;
            self.voted = Some(self.me);
            self.leader = None;
        }
        self.role = Role::Candidate { pre, forced, votes };
        let term = if pre { self.term + 1 } else { self.term };
        let last = self.last();
        self.others()
            .map(|peer| {
                (
                    peer,
                    Word::Ask {
                        pre,
                        forced,
                        term,
                        last,
                    },
                )
            })
            .collect()
    }

    fn broadcast(&mut self, now: u64) -> Out {
        let Role::Leader(lead) = &self.role else {
            return Out::new();
        };
        self.others()
            .map(|peer| {
                let next = lead.next[peer];
                let before = (if next == 0 { 0 } else { self.log[next - 1].term }, next);
                let until = self.log.len().min(next + BATCH);
                let word = Word::Append {
                    term: self.term,
                    before,
                    entries: self.log[next..until].to_vec(),
                    commit: self.commit,
                    round: lead.round,
                    sent: now,
                };
                (peer, word)
            })
            .collect()
    }

    fn follow(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.voted = None;
            self.leader = None;
        }
        self.role = Role::Follower;
    }

    fn advance(&mut self) {
        let Role::Leader(lead) = &mut self.role else {
            return;
        };
        let mut levels = lead.level.clone();
        levels[self.me] = self.log.len();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        let agreed = levels[self.voters / 2];
        if agreed > self.commit && self.log[agreed - 1].term == self.term {
            self.commit = agreed;
        }
    }

    pub fn hear(&mut self, from: usize, word: Word, now: u64, dice: &mut Dice) -> Out {
        match word {
            Word::Ask {
                pre,
                forced,
                term,
                last,
            } => self.asked(from, (pre, forced), term, last, now, dice),
            Word::Say { pre, term, granted } => self.said(from, pre, term, granted, now, dice),
            Word::Append {
                term,
                before,
                entries,
                commit,
                round,
                sent,
            } => {
                let level = self.append(from, term, before, entries, commit, now, dice);
                level.map_or_else(Out::new, |level| {
                    let term = self.term;
                    vec![(
                        from,
                        Word::Appended {
                            term,
                            level,
                            round,
                            sent,
                        },
                    )]
                })
            }
            Word::Appended {
                term,
                level,
                round,
                sent,
            } => {
                self.appended(from, term, level, round, sent);
                Out::new()
            }
            Word::TimeoutNow { term } if term == self.term && !self.believes_to_lead() => {
                self.stand(false, true, now, dice)
            }
            Word::TimeoutNow { .. } => Out::new(),
        }
    }

    fn asked(
        &mut self,
        from: usize,
        (pre, forced): (bool, bool),
        term: u64,
        last: (u64, usize),
        now: u64,
        dice: &mut Dice,
    ) -> Out {
        let sticks = !forced
            && (self.believes_to_lead() && self.lead(now, true).is_some()
                || self.leader.is_some() && now < self.heard + ELECTION_MIN);
        let mut granted = !sticks && term >= self.term && last >= self.last();
        if !pre && !sticks {
            if term > self.term {
                self.follow(term);
            }
            granted = granted && term == self.term && self.voted.is_none_or(|voted| voted == from);
            if granted {
                self.voted = Some(from);
                self.deadline = now + dice.between(ELECTION_MIN, ELECTION_MAX);
            }
        }
        let term = if pre && granted { term } else { self.term };
        vec![(from, Word::Say { pre, term, granted })]
    }

    fn said(&mut self, from: usize, pre: bool, term: u64, granted: bool, now: u64, dice: &mut Dice) -> Out {
        if !granted && term > self.term {
            self.follow(term);
            return Out::new();
        }
        let right_term = term == self.term + u64::from(pre);
        let Role::Candidate {
            pre: stands_pre,
            votes,
            forced,
        } = &mut self.role
        else {
            return Out::new();
        };
        if *stands_pre != pre || !granted || !right_term {
            return Out::new();
        }
        votes[from] = true;
        if votes.iter().filter(|vote| **vote).count() <= self.voters / 2 {
            return Out::new();
        }
        if pre {
            let forced = *forced;
            return self.stand(false, forced, now, dice);
        }
        let entry = Entry {
            term: self.term,
            node: self.me,
            command: None,
        };
        let first = self.log.len();
        self.role = Role::Leader(Lead {
            next: vec![first; self.voters],
            level: vec![0; self.voters],
            round: 0,
            acked: vec![0; self.voters],
            fresh: vec![0; self.voters],
            first,
            beat_at: now + HEARTBEAT,
        });
        self.leader = Some(self.me);
        self.log.push(entry);
        self.advance();
        self.broadcast(now)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    fn append(
        &mut self,
        from: usize,
        term: u64,
        before: (u64, usize),
        entries: Vec<Entry>,
        commit: usize,
        now: u64,
        dice: &mut Dice,
    ) -> Option<Result<usize, usize>> {
        if term < self.term {
            return Some(Err(self.log.len()));
        }
        self.follow(term);
        self.leader = Some(from);
        self.heard = now;
        self.deadline = now + dice.between(ELECTION_MIN, ELECTION_MAX);
        let (before_term, at) = before;
        if at > self.log.len() || at > 0 && self.log[at - 1].term != before_term {
            return Some(Err(self.commit.min(at)));
        }
        let level = at + entries.len();
        for (offset, entry) in entries.into_iter().enumerate() {
            let place = at + offset;
            if place < self.log.len() && self.log[place].term != entry.term {
                assert!(place >= self.commit, "a committed entry is overwritten");
                self.log.truncate(place);
            }
            if place == self.log.len() {
                self.log.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(level));
        Some(Ok(level))
    }

    fn appended(&mut self, from: usize, term: u64, level: Result<usize, usize>, round: u64, sent: u64) {
        if term > self.term {
            self.follow(term);
            return;
        }
        let mine = term == self.term;
        let Role::Leader(lead) = &mut self.role else {
            return;
        };
        if !mine {
            return;
        }
        lead.acked[from] = lead.acked[from].max(round);
        lead.fresh[from] = lead.fresh[from].max(sent);
        match level {
            Ok(level) => {
                lead.level[from] = lead.level[from].max(level);
                lead.next[from] = lead.level[from];
            }
            Err(from_here) => lead.next[from] = from_here.min(lead.next[from]),
        }
        self.advance();
    }
}
