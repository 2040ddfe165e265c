//! This node's permission to carry the proxies' address: a lease, held only while its own proxy lives.

use crate::cluster::{Bearing, Moment};
use crate::vip::Hold;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An answer to a report comes within half of this or not at all, so that one to a report of before a failure is not taken
/// for one of after it.
const CALM_MS: u64 = 1_000;

/// Shared by the node loop, which says what is wanted, and the reporter, which hears what is granted.
#[derive(Debug, Default)]
pub struct Bearer {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Until when it may carry the address, on this machine's boot-time clock.
    until: Moment,
    /// When its proxy was last seen not to live.
    failed_at: Option<Moment>,
    wants: bool,
}

impl Bearer {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in whether the proxy lives and how it stands with the address here; what is to be reported.
    pub fn look(&self, lives: bool, hold: Hold, now: Moment) -> Bearing {
        let mut inner = self.lock();
        if !lives || hold == Hold::Trouble {
            inner.failed_at = Some(now);
        }
        inner.wants = inner.failed_at.is_none_or(|at| now.since(at) >= CALM_MS);
        if !inner.wants {
            inner.until = Moment(0);
        }
        match (now < inner.until, hold) {
            (true, _) | (_, Hold::Here) => Bearing::Bears,
            // Neither a claim nor a release: what the last daemon left is not known yet.
            (false, Hold::Unknown) => Bearing::Able,
            (false, _) if inner.wants => Bearing::Able,
            (false, _) => Bearing::No,
        }
    }

    /// The leader grants so many milliseconds from when the report that it answers was sent.
    pub fn accept(&self, ttl_ms: u64, sent_at: Moment) {
        let mut inner = self.lock();
        if inner.wants {
            inner.until = inner.until.max(sent_at.plus(ttl_ms));
        }
    }

    /// Until when this node may carry the address.
    pub fn until(&self) -> Moment {
        self.lock().until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_with_the_proxy_and_said_so_when_the_address_has_gone() {
        let bearer = Bearer::default();
        let look = |lives, hold, now| bearer.look(lives, hold, Moment(now));
        assert_eq!(look(true, Hold::Unknown, 5), Bearing::Able);
        assert_eq!(look(true, Hold::Elsewhere, 10), Bearing::Able);
        bearer.accept(2_000, Moment(10));
        assert_eq!(
            (look(true, Hold::Elsewhere, 20), bearer.until()),
            (Bearing::Bears, Moment(2_010))
        );
        assert_eq!(
            (look(false, Hold::Here, 30), bearer.until()),
            (Bearing::Bears, Moment(0))
        );
        assert_eq!(look(false, Hold::Elsewhere, 40), Bearing::No);
        bearer.accept(2_000, Moment(20));
        assert_eq!(
            look(true, Hold::Elsewhere, 50),
            Bearing::No,
            "it may be gone again soon"
        );
        bearer.accept(2_000, Moment(45));
        assert_eq!(
            (look(true, Hold::Elsewhere, 1_040), bearer.until()),
            (Bearing::Able, Moment(0))
        );
        assert_eq!(look(true, Hold::Trouble, 1_050), Bearing::No);
    }

    #[test]
    fn it_ends_by_itself() {
        let bearer = Bearer::default();
        bearer.look(true, Hold::Elsewhere, Moment(0));
        bearer.accept(2_000, Moment(5));
        assert_eq!(bearer.look(true, Hold::Elsewhere, Moment(2_005)), Bearing::Able);
    }
}
