//! Which proof of replication covers which doubt: one proof is under way at a time, and covers every doubt before it.
//!
//! A proof is a commit of the proxy's own on the same primary, waited for as every commit is. WAL is one sequence: a standby
//! that has the proof's record has everything that was committed before. A batch may only begin after the bytes that made
//! the doubt were received, which is what [`Proofs::want`] is called for.

/// A doubt's place in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A proof that is under way.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch(u64);

/// What is known about a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Pending,
    /// A standby has it.
    Proved,
    /// It will not be known: the primary is another one now.
    Failed,
}

/// The doubts and proofs of one primary in one epoch.
#[derive(Debug)]
pub struct Proofs {
    /// The next proof to begin.
    next: u64,
    /// Somebody waits for it.
    wanted: bool,
    under_way: bool,
    /// This proof and all before have succeeded.
    proved: u64,
    abandoned: bool,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            next: 1,
            wanted: false,
            under_way: false,
            proved: 0,
            abandoned: false,
        }
    }
}

impl Proofs {
    /// There is a doubt: bytes that a proof has to cover have been received.
    pub fn want(&mut self) -> Ticket {
        self.wanted = true;
        Ticket(self.next)
    }

    /// A proof that is to begin now, if one is wanted and none is under way.
    pub fn begin(&mut self) -> Option<Batch> {
        if !self.wanted || self.under_way || self.abandoned {
            return None;
        }
        let batch = Batch(self.next);
        self.next += 1;
        (self.wanted, self.under_way) = (false, true);
        Some(batch)
    }

    /// It has succeeded, and without a warning of its own.
    pub fn proved(&mut self, batch: Batch) {
        self.under_way = false;
        self.proved = self.proved.max(batch.0);
    }

    /// It has not; another one may cover the same doubts.
    pub fn failed(&mut self, _batch: Batch) {
        (self.under_way, self.wanted) = (false, true);
    }

    /// There is another primary, or another epoch: nothing more can be proved here.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// What is known about a doubt.
    pub fn state(&self, ticket: Ticket) -> Answer {
        if ticket.0 <= self.proved {
            Answer::Proved
        } else if self.abandoned {
            Answer::Failed
        } else {
            Answer::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_covers_what_was_wanted_before_it_began() {
        let mut proofs = Proofs::default();
        assert_eq!(proofs.begin(), None);
        let (a, b) = (proofs.want(), proofs.want());
        let first = proofs.begin().unwrap();
        let late = proofs.want();
        assert_eq!(proofs.begin(), None, "one at a time");
        proofs.proved(first);
        assert_eq!(
            [a, b, late].map(|t| proofs.state(t)),
            [Answer::Proved, Answer::Proved, Answer::Pending]
        );
        let second = proofs.begin().unwrap();
        proofs.failed(second);
        assert_eq!(proofs.state(late), Answer::Pending);
        let third = proofs.begin().unwrap();
        proofs.proved(third);
        assert_eq!(proofs.state(late), Answer::Proved);
        assert_eq!(proofs.begin(), None);
    }

    #[test]
    fn nothing_is_proved_once_there_is_another_primary() {
        let mut proofs = Proofs::default();
        let early = proofs.want();
        let batch = proofs.begin().unwrap();
        proofs.proved(batch);
        let late = proofs.want();
        proofs.abandon();
        assert_eq!(proofs.begin(), None);
        assert_eq!(
            [early, late].map(|t| proofs.state(t)),
            [Answer::Proved, Answer::Failed]
        );
    }
}
