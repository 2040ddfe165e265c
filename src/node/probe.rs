//! Asks the local PostgreSQL how it is, at every interval and when poked, without ever holding up the node loop.

use crate::clock;
use crate::cluster::{Moment, Settings};
use crate::postgres::{Probe, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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
}

/// Probes whatever postmaster `postmaster` names, until its sender is gone.
pub async fn run(
    session: Session,
    mut postmaster: watch::Receiver<Option<i32>>,
    mut poke: watch::Receiver<u64>,
    settings: watch::Receiver<Arc<Settings>>,
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
        let next = match session.probe().await {
            Ok(probe) => {
                let probe = Some(Arc::new(probe));
                Probed {
                    postmaster: pid,
                    probe,
                    failing_since: None,
                    at: clock::now(),
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
                }
            }
        };
        let answered = next.failing_since.is_none();
        publish.send_replace(next);
        // A server that is starting is asked often: its first answer is what clients wait for.
        let interval = if answered {
            settings.borrow().report_interval_ms
        } else {
            20
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(interval)) => {}
            changed = postmaster.changed() => if changed.is_err() { return },
            changed = poke.changed() => if changed.is_err() { return },
        }
    }
}
