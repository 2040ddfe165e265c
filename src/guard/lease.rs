//! What the guard knows of the lease: one deadline, and a fence that is never undone.

use crate::cluster::{Epoch, Moment};

/// How long before the deadline everything gets SIGQUIT.
pub(super) const QUIT_BEFORE_MS: u64 = 300;
/// How long before the deadline everything gets SIGKILL.
pub(super) const KILL_BEFORE_MS: u64 = 150;

const EPOCH_BITS: u32 = 24;
const EPOCH_MASK: u64 = (1 << EPOCH_BITS) - 1;

/// Deadline (40 bits of milliseconds, 34 years of uptime) and the low bits of its epoch in one atomic word.
///
/// The full epoch stands in a second word that is written first. Whatever moment the writer dies or is
/// stopped at, the deadline is never read without the epoch it was given for. A zero deadline is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The word of a deadline; `None` when it has no room for it.
    pub(super) fn new(epoch: Epoch, deadline: Moment) -> Option<Self> {
        let fits = deadline.0 > 0 && deadline.0 < 1 << (64 - EPOCH_BITS);
        fits.then_some(Self(deadline.0 << EPOCH_BITS | epoch.0 & EPOCH_MASK))
    }

    /// The word that takes the deadline of an epoch away.
    pub(super) fn none(epoch: Epoch) -> Self {
        Self(epoch.0 & EPOCH_MASK)
    }

    /// The deadline, if it is one of this epoch.
    pub(super) fn of(self, epoch: Epoch) -> Written {
        match (self.0 & EPOCH_MASK == epoch.0 & EPOCH_MASK, self.0 >> EPOCH_BITS) {
            (false, _) => Written::Torn,
            (true, 0) => Written::Nothing,
            (true, ms) => Written::Deadline(Moment(ms)),
        }
    }
}

/// What a word says about an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The writer is between its two stores: what was accepted before stays.
    Torn,
    /// No deadline.
    Nothing,
    /// This deadline.
    Deadline(Moment),
}

/// What is to be done to the processes of the data directory now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Peace,
    /// The fence has begun. SIGQUIT until this moment, SIGKILL from then on.
    Fence {
        /// When SIGKILL begins.
        kill_from: Moment,
    },
}

/// The accepted deadline and the fence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    /// The deadline that is enforced.
    pub(super) armed: Option<(Epoch, Moment)>,
    /// The epoch whose fence is being carried out.
    pub(super) fencing: Option<Epoch>,
    /// The newest epoch whose fence was carried out.
    pub(super) fenced: Option<Epoch>,
}

impl Lease {
    /// Takes notice of what the daemon has written.
    ///
    /// Nothing counts while a fence is carried out, and never again for an epoch that was fenced. Within an
    /// epoch a deadline only grows; an epoch older than the accepted one is an old mind and changes nothing.
    pub(super) fn observe(&mut self, epoch: Epoch, word: Word) {
        let over = self.fenced.is_some_and(|fenced| epoch <= fenced);
        let stale = self.armed.is_some_and(|(armed, _)| epoch < armed);
        if self.fencing.is_some() || over || stale {
            return;
        }
        match word.of(epoch) {
            Written::Torn => {}
            Written::Nothing => self.armed = None,
            Written::Deadline(new) => {
                let old = self
                    .armed
                    .filter(|(armed, _)| *armed == epoch)
                    .map(|(_, deadline)| deadline);
                self.armed = Some((epoch, old.map_or(new, |old| old.max(new))));
            }
        }
    }

    /// What is owed now; begins the fence when its time has come.
    pub(super) fn phase(&mut self, now: Moment) -> Phase {
        let Some((epoch, deadline)) = self.armed else {
            return Phase::Peace;
        };
        if self.fencing.is_none() && now.plus(QUIT_BEFORE_MS) < deadline {
            return Phase::Peace;
        }
        self.fencing = Some(epoch);
        Phase::Fence {
            kill_from: Moment(deadline.0.saturating_sub(KILL_BEFORE_MS)),
        }
    }

    /// Every process is gone: the fence, if there was one, is carried out.
    pub(super) fn all_gone(&mut self) {
        if let Some(epoch) = self.fencing.take() {
            self.fenced = Some(epoch);
            self.armed = None;
        }
    }

    /// When the fence begins unless the deadline moves.
    pub(super) fn fence_at(&self) -> Option<Moment> {
        self.armed
            .map(|(_, deadline)| Moment(deadline.0.saturating_sub(QUIT_BEFORE_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn armed(epoch: u64, deadline: u64) -> Lease {
        let mut lease = Lease::default();
        arm(&mut lease, epoch, deadline);
        lease
    }

    fn arm(lease: &mut Lease, epoch: u64, deadline: u64) {
        lease.observe(Epoch(epoch), Word::new(Epoch(epoch), Moment(deadline)).unwrap());
    }

    #[test]
    fn a_deadline_grows_and_never_shrinks() {
        let mut lease = armed(1, 2000);
        arm(&mut lease, 1, 2500);
        arm(&mut lease, 1, 2200);
        assert_eq!(lease.armed, Some((Epoch(1), Moment(2500))));
        assert_eq!(lease.phase(Moment(2199)), Phase::Peace);
        assert_eq!(
            lease.phase(Moment(2200)),
            Phase::Fence {
                kill_from: Moment(2350)
            }
        );
    }

    #[test]
    fn a_begun_fence_is_never_undone() {
        let mut lease = armed(1, 2000);
        lease.phase(Moment(1700));
        arm(&mut lease, 1, 9000);
        arm(&mut lease, 2, 9000);
        lease.observe(Epoch(1), Word::none(Epoch(1)));
        assert_eq!(
            lease.phase(Moment(1701)),
            Phase::Fence {
                kill_from: Moment(1850)
            }
        );
        lease.all_gone();
        assert_eq!(
            (lease.fenced, lease.armed, lease.fencing),
            (Some(Epoch(1)), None, None)
        );
        arm(&mut lease, 1, 9000);
        assert_eq!(lease.armed, None, "an epoch that was fenced is over");
        arm(&mut lease, 2, 9000);
        assert_eq!(lease.armed, Some((Epoch(2), Moment(9000))));
    }

    #[test]
    fn disarming_before_the_fence_ends_the_deadline() {
        let mut lease = armed(3, 2000);
        lease.observe(Epoch(3), Word::none(Epoch(3)));
        assert_eq!(lease.phase(Moment(5000)), Phase::Peace);
    }

    #[test]
    fn an_old_epoch_changes_nothing() {
        let mut lease = armed(3, 2000);
        arm(&mut lease, 2, 9000);
        lease.observe(Epoch(2), Word::none(Epoch(2)));
        assert_eq!(lease.armed, Some((Epoch(3), Moment(2000))));
    }

    proptest! {
        /// The writer may be stopped between its stores, before or after any of them: the guard never holds
        /// a deadline that was not written for just that epoch.
        #[test]
        fn a_torn_write_never_lends_a_deadline_to_another_epoch(
            arms in prop::collection::vec((1_u64..6, 1_u64..1 << 40), 1..20),
            looks in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut lease = Lease::default();
            let (mut epoch, mut word) = (Epoch(0), Word(0));
            let mut written = Vec::new();
            let mut looks = looks.into_iter();
            for (e, d) in arms {
                if e < epoch.0 { continue }
                epoch = Epoch(e);
                if looks.next() == Some(true) { lease.observe(epoch, word); }
                word = Word::new(epoch, Moment(d)).unwrap();
                written.push((epoch, Moment(d)));
                if looks.next() == Some(true) { lease.observe(epoch, word); }
                if let Some(held) = lease.armed { prop_assert!(written.contains(&held)); }
            }
        }
    }
}
