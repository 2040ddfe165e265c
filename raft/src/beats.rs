//! The moments at which this thread is awake anyway, and what waits for them.
//!
//! A node at rest costs what its wake-ups cost. Its heartbeats wake it, those it sends or those it hears; everything else
//! that is done regularly, and every answer that nobody is in a hurry for, waits for one of these *strikes*.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep_until};

/// A strike is late, and no longer waited for, after this many heartbeats. Not after two: tokio looks at a timer up to 64 ms
/// before it is due, and one that is taken back before that costs nothing.
const LATE: u32 = 3;

/// A member's strikes.
pub(crate) struct Beats {
    heartbeat: Duration,
    /// From where whole multiples of a period are counted.
    born: Instant,
    strike: Notify,
    struck: Mutex<Option<Instant>>,
    hurried: AtomicU32,
}

impl Beats {
    pub(crate) fn new(heartbeat: Duration) -> Beats {
        Beats {
            heartbeat,
            born: Instant::now(),
            strike: Notify::new(),
            struck: Mutex::default(),
            hurried: AtomicU32::new(0),
        }
    }

    /// Between two strikes.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// A heartbeat went out or came in.
    pub(crate) fn strike(&self) {
        *self.struck.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.strike.notify_waiters();
    }

    /// The next strike from now on, also before it is awaited.
    pub(crate) fn strikes(&self) -> Notified<'_> {
        self.strike.notified()
    }

    /// Whether the next strike can be counted on, and nobody is in a hurry.
    pub(crate) fn are_calm(&self) -> bool {
        self.hurried.load(Ordering::SeqCst) == 0 && self.late() > Instant::now()
    }

    /// Until when strikes may be waited for.
    pub(crate) fn late(&self) -> Instant {
        let struck = *self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        struck.map_or(self.born, |at| at + self.heartbeat * LATE)
    }

    /// While this lives, answers are taken in as they come.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.hurried.fetch_add(1, Ordering::SeqCst);
        self.strike.notify_waiters();
        Hurry(self)
    }

    /// The next whole multiple of this period, but for one that is (almost) now.
    fn due(&self, period: Duration) -> Instant {
        let now = Instant::now();
        let lived = now.saturating_duration_since(self.born).as_nanos();
        let ahead = lived.saturating_add(period.as_nanos() / 4);
        let over = ahead.checked_rem(period.as_nanos()).unwrap_or(0);
        let rest = period
            .as_nanos()
            .saturating_add(period.as_nanos() / 4)
            .saturating_sub(over);
        now + Duration::from_nanos(u64::try_from(rest).unwrap_or(0))
    }

    /// Waits until this period's next multiple is due, or rather for the strike next to it.
    pub(crate) async fn next(&self, period: Duration) {
        let due = self.due(period);
        // Set once: strikes that stop on the way make it late once.
        let late = match period >= self.heartbeat && self.late() > Instant::now() {
            true => due + self.heartbeat * LATE,
            false => due,
        };
        let mut late = pin!(sleep_until(late));
        let early = (self.heartbeat / 2).min(period / 4);
        loop {
            tokio::select! {
                biased;
                () = self.strikes() => if Instant::now() + early >= due {
                    return;
                },
                () = &mut late => return,
            }
        }
    }
}

/// Somebody waits for an answer.
pub(crate) struct Hurry<'a>(&'a Beats);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurried.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(50);

    /// When a wait for each period ends, with strikes at these moments: all in milliseconds of this member's life.
    async fn ends(period_ms: u64, strikes: &[u64]) -> u64 {
        let beats = Beats::new(BEAT);
        let born = beats.born;
        beats.strike();
        let striking = async {
            for at in strikes {
                sleep_until(born + Duration::from_millis(*at)).await;
                beats.strike();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = beats.next(Duration::from_millis(period_ms)) => {}
            () = striking => {}
        }
        born.elapsed().as_millis() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn a_period_ends_with_the_strike_next_to_its_end() {
        let steady: Vec<u64> = (0..8).map(|n| 10 + n * 50).collect();
        let early: Vec<u64> = (0..8).map(|n| 30 + n * 50).collect();
        for (period, strikes, expected) in [
            (200, &steady[..], 210),
            (200, &early[..], 180),
            (50, &steady[..], 60),
            (50, &early[..], 80),
            (100, &early[..], 80),
            // Shorter than what is between two strikes.
            (20, &steady[..], 20),
            // The leader is gone: late by three heartbeats, once.
            (200, &[10, 60], 350),
            (200, &[], 350),
        ] {
            assert_eq!(ends(period, strikes).await, expected, "{period} {strikes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_strikes_a_period_ends_when_it_is_due() {
        let beats = Beats::new(BEAT);
        assert!(!beats.are_calm());
        for due in [200, 400] {
            beats.next(Duration::from_millis(200)).await;
            assert_eq!(beats.born.elapsed().as_millis(), due);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_calm_while_somebody_hurries_or_strikes_stay_away() {
        let beats = Beats::new(BEAT);
        beats.strike();
        assert!(beats.are_calm());
        let hurries = (beats.hurry(), beats.hurry());
        assert!(!beats.are_calm());
        drop(hurries.0);
        assert!(!beats.are_calm());
        drop(hurries.1);
        assert!(beats.are_calm());
        sleep_until(beats.late()).await;
        assert!(!beats.are_calm());
    }
}
