//! How often the node loop passes although nothing was heard.
//!
//! A pass at every tick notices in time what only time brings: a lease that runs out, a silent primary, a guard that stands
//! still. While none of these can come before the tick after the next, every other tick is enough, the one with which
//! PostgreSQL is asked how it is.

use super::agent::{Agent, TICK};
use super::lookout::LATE_MS;
use crate::cluster::Moment;
use crate::decide::lease;
use std::time::Duration;

const TICK_MS: u64 = TICK.as_millis() as u64;

/// What could need a pass at the next tick.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    /// PostgreSQL runs and answers, and nothing is begun, awaited or to be tried again.
    settled: bool,
    /// PostgreSQL is asked this often.
    interval_ms: u64,
    /// A primary here has to stop in this time, unless it is granted another lease.
    stops_in_ms: Option<u64>,
    /// The guard of a primary was last seen to pass so long ago.
    guard_ms: Option<u64>,
    /// The primary elsewhere was last heard of so long ago, where that is watched.
    primary_ms: Option<u64>,
}

impl Due {
    fn tick(&self) -> Duration {
        let rests = self.settled
            && self.interval_ms.is_multiple_of(2 * TICK_MS)
            && self.stops_in_ms.is_none_or(|ms| ms > 4 * TICK_MS)
            && self.guard_ms.is_none_or(|ms| ms <= 2 * TICK_MS)
            && self.primary_ms.is_none_or(|ms| ms + TICK_MS < LATE_MS);
        match rests {
            true => 2 * TICK,
            false => TICK,
        }
    }
}

impl Agent {
    /// Until the next tick, as of this pass.
    pub(super) fn tick(&self, now: Moment) -> Duration {
        let interval_ms = self.parts.settings.borrow().report_interval_ms;
        let answers = self.probed.postmaster.is_some()
            && self.probed.failing_since.is_none()
            && now.since(self.probed.asked_at) <= interval_ms + TICK_MS;
        let busy = self.job.is_some()
            || self.proof.is_some()
            || self.farewell.is_some()
            || self.leaving
            || self.finishing
            || self.bypass.is_some()
            || self.poked_at.is_some()
            || self.adrift_since.is_some()
            || self.ending_since.is_some()
            || self.unconfirmed_since.is_some()
            || self.retry_at.values().any(|at| *at > now);
        let (_, until) = self.parts.tenancy.lease();
        let primary = self.running.is_some();
        let due = Due {
            settled: answers && !busy,
            interval_ms,
            stops_in_ms: primary.then(|| lease::stop_at(until).since(now)),
            guard_ms: primary.then(|| now.since(self.beat.1)),
            primary_ms: self.lookout.age_ms(),
        };
        due.tick()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_tick_is_enough_while_nothing_can_be_due_before() {
        let standby = Due {
            settled: true,
            interval_ms: 200,
            primary_ms: Some(150),
            ..Due::default()
        };
        let primary = Due {
            settled: true,
            interval_ms: 200,
            stops_in_ms: Some(1_300),
            guard_ms: Some(0),
            primary_ms: None,
        };
        let cases = [
            ("a standby", standby, 200),
            (
                "at work",
                Due {
                    settled: false,
                    ..standby
                },
                100,
            ),
            (
                "asked at no multiple of it",
                Due {
                    interval_ms: 500,
                    ..standby
                },
                100,
            ),
            (
                "asked often",
                Due {
                    interval_ms: 100,
                    ..standby
                },
                100,
            ),
            (
                "its primary may be late at the next one",
                Due {
                    primary_ms: Some(200),
                    ..standby
                },
                100,
            ),
            (
                "nobody watches a primary",
                Due {
                    primary_ms: None,
                    ..standby
                },
                200,
            ),
            ("a primary", primary, 200),
            (
                "its lease ends soon",
                Due {
                    stops_in_ms: Some(400),
                    ..primary
                },
                100,
            ),
            (
                "its guard is late",
                Due {
                    guard_ms: Some(300),
                    ..primary
                },
                100,
            ),
        ];
        for (what, due, expected) in cases {
            assert_eq!(due.tick(), Duration::from_millis(expected), "{what}");
        }
    }
}
