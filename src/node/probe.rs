//! Asks the local PostgreSQL how it is, at every interval and when poked, without ever holding up the node loop.
//!
//! The interval ends with a tick of the node loop: a timer of its own would wake a node at rest once more.

use super::agent::TICK;
use crate::clock;
use crate::cluster::{Moment, Settings};
use crate::postgres::{Probe, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// A server that is starting is asked often: its first answer is what clients wait for.
const STARTING: Duration = Duration::from_millis(20);

/// What the last probe of a postmaster said.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// The postmaster that was probed; an answer of an earlier one says nothing of a later one.
    pub postmaster: Option<i32>,
    /// Its last answer.
    pub probe: Option<Arc<Probe>>,
    /// Since when it has not answered, if the last attempt failed.
    pub failing_since: Option<Moment>,
    /// When `probe` was obtained.
    pub at: Moment,
    /// When the last answer was asked for, had or not.
    pub asked_at: Moment,
}

impl Probed {
    /// Whether a server that answers is to be asked again with this tick; half a tick early is on time.
    pub fn is_due(&self, now: Moment, interval_ms: u64) -> bool {
        let half_a_tick = TICK.as_millis() as u64 / 2;
        self.postmaster.is_some()
            && self.failing_since.is_none()
            && now.since(self.asked_at) + half_a_tick >= interval_ms
    }
}

/// Which ticks of the node loop need no pass of their own: what is asked with a tick is answered in a moment, and that is one.
#[derive(Debug, Default)]
pub struct Spares {
    /// The question before the one that a tick was spared for.
    after: Option<Moment>,
}

impl Spares {
    /// Whether this tick's pass is left to the answer that is asked for with it: once, should there be none.
    pub fn spares(&mut self, probed: &Probed, now: Moment, interval_ms: u64) -> bool {
        let spares = probed.is_due(now, interval_ms) && self.after != Some(probed.asked_at);
        if spares {
            self.after = Some(probed.asked_at);
        }
        spares
    }
}

/// Probes whatever postmaster `postmaster` names, until its sender is gone.
pub async fn run(
    session: Session,
    mut postmaster: watch::Receiver<Option<i32>>,
    mut poke: watch::Receiver<u64>,
    settings: watch::Receiver<Arc<Settings>>,
    tick: Arc<Notify>,
    publish: watch::Sender<Probed>,
) {
    loop {
        let pid = *postmaster.borrow_and_update();
        let before = publish.borrow().clone();
        let same = before.postmaster == pid;
        if pid.is_none() {
            if !same {
                publish.send_replace(Probed::default());
            }
            if postmaster.changed().await.is_err() {
                return;
            }
            continue;
        }
        let asked_at = clock::now();
        let next = match session.probe().await {
            Ok(probe) => {
                let probe = Some(Arc::new(probe));
                Probed {
                    postmaster: pid,
                    probe,
                    failing_since: None,
                    at: clock::now(),
                    asked_at,
                }
            }
            Err(why) => {
                tracing::debug!("probe: {why}");
                let since = before.failing_since.filter(|_| same).unwrap_or_else(clock::now);
                let probe = before.probe.filter(|_| same);
                Probed {
                    postmaster: pid,
                    probe,
                    failing_since: Some(since),
                    at: before.at,
                    asked_at,
                }
            }
        };
        let answered = next.failing_since.is_none();
        publish.send_replace(next);
        let pause = async {
            if !answered {
                return tokio::time::sleep(STARTING).await;
            }
            loop {
                tick.notified().await;
                let interval_ms = settings.borrow().report_interval_ms;
                if publish.borrow().is_due(clock::now(), interval_ms) {
                    return;
                }
            }
        };
        tokio::select! {
            () = pause => {}
            changed = postmaster.changed() => if changed.is_err() { return },
            changed = poke.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_left_to_the_answer_it_brings_and_the_next_one_is_not() {
        let mut probed = Probed {
            postmaster: Some(7),
            asked_at: Moment(1_000),
            ..Probed::default()
        };
        let mut spares = Spares::default();
        let mut ticks = |probed: &Probed, at: &[u64]| -> Vec<bool> {
            let ticks = at.iter();
            ticks.map(|at| spares.spares(probed, Moment(*at), 200)).collect()
        };
        // Asked with the second, and not answered yet.
        assert_eq!(ticks(&probed, &[1_100, 1_199]), [false, true]);
        assert_eq!(ticks(&probed, &[1_299, 1_400]), [false, false]);
        probed.asked_at = Moment(1_199);
        assert_eq!(ticks(&probed, &[1_299, 1_400, 1_500]), [false, true, false]);
        probed.asked_at = Moment(1_400);
        probed.failing_since = Some(Moment(1_400));
        // Asked at its own pace; then there is nobody to ask.
        assert_eq!(ticks(&probed, &[1_600, 1_700]), [false, false]);
        probed = Probed::default();
        assert_eq!(ticks(&probed, &[1_800]), [false]);
    }
}
