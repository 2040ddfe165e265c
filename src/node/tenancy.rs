//! The lease as its holder sees it: what was granted, and the guard's deadline that follows it.
//!
//! Answers arm the guard right where they arrive, so that a slow pass of the node loop does not cost the lease;
//! but a loop that has stood still is no longer spoken for: `may_report` goes false and renewal ends.

use crate::cluster::{Epoch, Grant, Lsn, Moment};
use crate::decide::lease;
use crate::guard::Guard;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A node loop that has not passed for this long counts as hung.
const HUNG_MS: u64 = 1_000;

/// How the lease ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bound {
    /// By a grant's deadline.
    #[default]
    Deadline,
    /// Not: the cluster is paused.
    Endless,
    /// The pause is over: the guard is to let the endless deadline go, then the next grant's stands.
    LettingGo,
}

/// The lease, shared by the node loop and the tasks that report.
pub struct Tenancy {
    guard: Option<Guard>,
    inner: Mutex<Inner>,
}

#[derive(Clone, Copy, Default)]
struct Inner {
    epoch: Epoch,
    until: Moment,
    /// How long the last grant was for.
    ttl_ms: u64,
    /// The epoch whose deadline the guard is given.
    armed: Option<Epoch>,
    loop_at: Moment,
    bound: Bound,
}

impl Tenancy {
    /// Begins without a lease. A witness has no guard.
    pub fn new(guard: Option<Guard>, now: Moment) -> Self {
        Self {
            guard,
            inner: Mutex::new(Inner {
                loop_at: now,
                ..Inner::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest lease: epoch and end.
    pub fn lease(&self) -> (Epoch, Moment) {
        let inner = self.lock();
        (inner.epoch, inner.until)
    }

    /// Whether more than half of it is left, as far as this run of the daemon knows, so that its renewal can wait for a
    /// heartbeat.
    pub fn lasts(&self, now: Moment) -> bool {
        let inner = self.lock();
        let half = inner.ttl_ms > 0 && inner.until.since(now) > inner.ttl_ms / 2;
        half || inner.bound == Bound::Endless
    }

    /// The node loop passed.
    pub fn passed(&self, now: Moment) {
        self.lock().loop_at = now;
    }

    /// Whether the node loop is alive enough to be spoken for.
    pub fn may_report(&self, now: Moment) -> bool {
        now.since(self.lock().loop_at) < HUNG_MS
    }

    /// Takes in a grant that answered the report sent at `sent_at`. Never shortens a lease.
    pub fn accept(&self, grant: Grant, sent_at: Moment) {
        let mut inner = self.lock();
        if grant.epoch < inner.epoch {
            return;
        }
        let until = lease::deadline(sent_at, grant.ttl_ms);
        if grant.epoch == inner.epoch && inner.bound == Bound::LettingGo {
            self.rebind(&mut inner, until);
            return;
        }
        if grant.epoch == inner.epoch && until <= inner.until {
            return;
        }
        // A lease that the guard does not enforce is none: its fence of that epoch has begun.
        if inner.armed == Some(grant.epoch) && !self.arm(grant.epoch, until) {
            return;
        }
        if grant.epoch != inner.epoch {
            inner.bound = Bound::Deadline;
        }
        inner.epoch = grant.epoch;
        inner.until = until;
        inner.ttl_ms = grant.ttl_ms;
    }

    /// The cluster is paused: a lease that runs has no end any more. One that is over stays so.
    pub fn loosen(&self, epoch: Epoch, now: Moment) {
        let mut inner = self.lock();
        let runs = inner.epoch == epoch && inner.armed == Some(epoch) && now < lease::stop_at(inner.until);
        if inner.bound == Bound::Endless || !runs {
            return;
        }
        let until = now.plus(lease::ENDLESS_MS);
        if self.arm(epoch, until) {
            tracing::info!("paused: the primary of epoch {epoch} has no deadline any more");
            (inner.until, inner.bound) = (until, Bound::Endless);
        }
    }

    /// The pause is over: the endless deadline is let go, for the next grant's.
    pub fn tighten(&self, epoch: Epoch, now: Moment) {
        let mut inner = self.lock();
        // Also one that a daemon before this one left behind.
        if inner.epoch != epoch || !lease::is_endless(inner.until, now) {
            return;
        }
        inner.bound = Bound::LettingGo;
        if let Some(guard) = &self.guard {
            guard.disarm();
        }
    }

    /// Whether the lease ends with a deadline.
    pub fn is_bound(&self) -> bool {
        self.lock().bound == Bound::Deadline
    }

    /// Within an epoch the guard's deadlines only grow, so it has to have seen that there is none.
    fn rebind(&self, inner: &mut Inner, until: Moment) {
        let let_go = self
            .guard
            .as_ref()
            .is_some_and(|guard| guard.watch().borrow().armed.is_none());
        if let_go && self.arm(inner.epoch, until) {
            tracing::info!("the primary of epoch {} has a deadline again", inner.epoch);
            (inner.until, inner.bound) = (until, Bound::Deadline);
        }
    }

    /// From now on every grant for `epoch` moves the guard's deadline; false when there is no lease to begin with.
    pub fn enforce(&self, epoch: Epoch) -> bool {
        let mut inner = self.lock();
        if inner.epoch != epoch || !self.arm(epoch, inner.until) {
            return false;
        }
        inner.armed = Some(epoch);
        true
    }

    /// A restarted daemon finds the deadline that its predecessor left with the guard.
    pub fn resume(&self, epoch: Epoch, until: Moment) {
        let mut inner = self.lock();
        inner.epoch = epoch;
        inner.until = until;
        inner.armed = Some(epoch);
        if lease::is_endless(until, inner.loop_at) {
            inner.bound = Bound::Endless;
        }
    }

    /// Nothing of a primary lives here any more.
    pub fn stand_down(&self) {
        let mut inner = self.lock();
        inner.armed = None;
        inner.bound = Bound::Deadline;
        if let Some(guard) = &self.guard {
            guard.disarm();
        }
    }

    /// The guard knows where to begin, should it have to read the end of the log without this daemon.
    pub fn note_position(&self, position: Option<Lsn>) {
        if let (Some(guard), Some(position)) = (&self.guard, position) {
            guard.note_position(position);
        }
    }

    fn arm(&self, epoch: Epoch, until: Moment) -> bool {
        match self.guard.as_ref().map(|guard| guard.arm(epoch, until)) {
            Some(Ok(())) => true,
            Some(Err(why)) => {
                tracing::warn!("the guard did not take the deadline of epoch {epoch}: {why}");
                false
            }
            None => false,
        }
    }
}
