//! The moments at which this thread is awake anyway, and what waits for them.
//!
//! A node at rest costs what its wake-ups cost. Its heartbeats wake it, those it sends or those it hears; everything else
//! that is done regularly, and every answer that nobody is in a hurry for, waits for one of these *strikes*.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

/// A member's strikes.
pub(crate) struct Beats {
    heartbeat: Duration,
    /// A strike is late, and no longer waited for, this long after the one before.
    patience: Duration,
    /// From where whole multiples of a period are counted.
    born: Instant,
    strike: Notify,
    inner: Mutex<Inner>,
    hurried: AtomicU32,
}

#[derive(Default)]
struct Inner {
    struck: Option<Instant>,
    /// Who waits for the first strike from a moment on.
    waiting: Vec<(Instant, oneshot::Sender<()>)>,
}

impl Beats {
    /// For a member that hears of its leader, or is heard of, every `heartbeat`, and fears for it after `election_min`.
    pub(crate) fn new(heartbeat: Duration, election_min: Duration) -> Beats {
        Beats {
            heartbeat,
            // Not two heartbeats: tokio looks at a timer up to 64 ms before it is due, and one that is taken back before
            // that costs nothing.
            patience: (heartbeat * 3).min(election_min * 3 / 4),
            born: Instant::now(),
            strike: Notify::new(),
            inner: Mutex::default(),
            hurried: AtomicU32::new(0),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Between two strikes.
    pub(crate) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// How long after a strike the next one is late.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// A heartbeat went out or came in.
    pub(crate) fn strike(&self) {
        let now = Instant::now();
        self.inner().struck = Some(now);
        // First whoever reads what lies here: the others may judge by it.
        self.strike.notify_waiters();
        let mut inner = self.inner();
        // Whoever does not wait any more hears nothing of it.
        for (_, waiting) in inner.waiting.extract_if(.., |(from, _)| *from <= now) {
            let _ = waiting.send(());
        }
    }

    /// The next strike from now on, also before it is awaited; or that it is late.
    pub(crate) fn strikes(&self) -> Notified<'_> {
        self.strike.notified()
    }

    /// Whether the next strike can be counted on, and nobody is in a hurry.
    pub(crate) fn are_calm(&self) -> bool {
        self.hurried.load(Ordering::SeqCst) == 0 && self.late() > Instant::now()
    }

    /// Until when a strike may be waited for.
    fn late(&self) -> Instant {
        self.inner().struck.map_or(self.born, |at| at + self.patience)
    }

    /// Says when strikes stay away, and when this ends: without it nobody can wait for one.
    pub(crate) async fn keep(self: Arc<Self>) {
        let _kept = Kept(&self);
        loop {
            let strike = self.strikes();
            let late = self.late();
            if late <= Instant::now() {
                strike.await;
                continue;
            }
            tokio::select! {
                () = strike => {}
                () = sleep_until(late) => {
                    self.strike.notify_waiters();
                    self.inner().waiting.clear();
                }
            }
        }
    }

    /// While this lives, answers are taken in as they come.
    pub(crate) fn hurry(self: &Arc<Self>) -> Hurry {
        self.hurried.fetch_add(1, Ordering::SeqCst);
        self.strike.notify_waiters();
        Hurry(self.clone())
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
        let early = (self.heartbeat / 2).min(period / 4);
        let strike = match period >= self.heartbeat {
            true => self.first_from(due - early),
            false => None,
        };
        let struck = match strike {
            Some(strike) => strike.await.is_ok(),
            None => false,
        };
        if !struck {
            sleep_until(due).await;
        }
    }

    /// The first strike from a moment on; an error when strikes stay away. `None` when they already do.
    fn first_from(&self, from: Instant) -> Option<oneshot::Receiver<()>> {
        let mut inner = self.inner();
        let counted_on = inner.struck.is_some_and(|at| at + self.patience > Instant::now());
        counted_on.then(|| {
            let (strike, struck) = oneshot::channel();
            inner.waiting.push((from, strike));
            struck
        })
    }
}

/// Strikes cannot be counted on any more when this is dropped.
struct Kept<'a>(&'a Beats);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        *self.0.inner() = Inner::default();
        self.0.strike.notify_waiters();
    }
}

/// Somebody waits for what may lie there: see [`Group::hurry`](crate::Group::hurry).
pub struct Hurry(Arc<Beats>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurried.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(50);
    const ELECTION: Duration = Duration::from_millis(200);

    fn beats() -> Beats {
        Beats::new(BEAT, ELECTION)
    }

    /// When a wait for each period ends, with strikes at these moments: all in milliseconds of this member's life.
    async fn ends(period_ms: u64, strikes: &[u64]) -> u64 {
        let beats = Arc::new(beats());
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
            () = beats.clone().keep() => {}
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
            // The leader is gone: nobody waits for it longer than until that is known.
            (200, &[10, 60], 210),
            (200, &[10], 200),
            (200, &[], 200),
            (100, &[], 150),
        ] {
            assert_eq!(ends(period, strikes).await, expected, "{period} {strikes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_strikes_a_period_ends_when_it_is_due() {
        let beats = beats();
        assert!(!beats.are_calm());
        for due in [200, 400] {
            beats.next(Duration::from_millis(200)).await;
            assert_eq!(beats.born.elapsed().as_millis(), due);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_strike_that_nobody_misses_any_more() {
        let beats = Arc::new(beats());
        beats.strike();
        let kept = tokio::spawn(beats.clone().keep());
        let waits = tokio::spawn({
            let beats = beats.clone();
            async move { beats.next(Duration::from_millis(200)).await }
        });
        while beats.inner().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        kept.abort();
        let waited = tokio::time::timeout(Duration::from_secs(9), waits).await;
        waited.expect("the wait ends").unwrap();
        assert_eq!(beats.born.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_calm_while_somebody_hurries_or_strikes_stay_away() {
        let beats = Arc::new(beats());
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

    #[tokio::test(start_paused = true)]
    async fn a_strike_is_for_whoever_waits_for_it_and_not_for_whoever_waits_for_a_later_one() {
        let beats = beats();
        beats.strike();
        let at = |ms| beats.born + Duration::from_millis(ms);
        let mut soon = beats.first_from(at(40)).unwrap();
        let mut later = beats.first_from(at(90)).unwrap();
        drop(beats.first_from(at(40)));
        sleep_until(at(50)).await;
        beats.strike();
        assert!(soon.try_recv().is_ok() && later.try_recv().is_err());
        assert_eq!(beats.inner().waiting.len(), 1);
        sleep_until(at(100)).await;
        beats.strike();
        assert!(later.try_recv().is_ok());
        assert!(beats.inner().waiting.is_empty());
    }
}
