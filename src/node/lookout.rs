//! Whether a primary whose daemon is silent still serves: its PostgreSQL's port is knocked at, from where its standbys are.
//!
//! A daemon that is restarted is silent for a moment while PostgreSQL serves on under its guard; fencing it would cost
//! every session for nothing. A machine that is dead or cut off does not answer. An answer says nothing about safety:
//! it only lets the leader wait for the lease instead (`decide/fence.rs`).

use crate::clock;
use crate::cluster::{Endpoint, Moment};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A report that is older than this is late: one interval and a half of the default.
pub(super) const LATE_MS: u64 = 300;
/// A knock that takes longer counts as unanswered.
const PATIENCE: Duration = Duration::from_millis(150);
/// How long an answer holds.
const HOLDS_MS: u64 = 400;

/// The knocks and their newest answer.
pub struct Lookout {
    answer: watch::Sender<Option<(Endpoint, bool, Moment)>>,
    knock: Option<AbortHandle>,
    /// How old the primary's newest report was when it was looked at last.
    age_ms: Option<u64>,
    /// When the leader asked for news last.
    worried_at: Option<Moment>,
}

impl Lookout {
    /// Nobody has been asked yet.
    pub fn new() -> Self {
        Self {
            answer: watch::channel(None).0,
            knock: None,
            age_ms: None,
            worried_at: None,
        }
    }

    /// The leader asks for news.
    pub fn worry(&mut self, now: Moment) {
        self.worried_at = Some(now);
    }

    /// Whether the leader has asked for news as lately as an answer holds.
    pub fn is_worried(&self, now: Moment) -> bool {
        self.worried_at.is_some_and(|at| now.since(at) < HOLDS_MS)
    }

    /// There is nobody to look at.
    pub fn rest(&mut self) {
        self.age_ms = None;
    }

    /// How old the primary's newest report was when it was looked at last; `None` where nobody looks.
    pub fn age_ms(&self) -> Option<u64> {
        self.age_ms
    }

    /// Wakes whoever waits for an answer.
    pub fn watch(&self) -> watch::Receiver<Option<(Endpoint, bool, Moment)>> {
        self.answer.subscribe()
    }

    /// Knocks if the primary's newest report is this old, and says what is known.
    pub fn look(&mut self, primary: &Endpoint, age_ms: u64, now: Moment) -> Option<bool> {
        self.age_ms = Some(age_ms);
        if age_ms < LATE_MS {
            return None;
        }
        let known = self.answer.borrow().clone();
        let known = known.filter(|(of, _, at)| of == primary && now.since(*at) < HOLDS_MS);
        let busy = self.knock.as_ref().is_some_and(|knock| !knock.is_finished());
        if !busy
            && known
                .as_ref()
                .is_none_or(|(_, _, at)| now.since(*at) > HOLDS_MS / 2)
        {
            let (to, answer) = (primary.clone(), self.answer.clone());
            let task = tokio::spawn(async move {
                let address = to.to_string();
                let knock = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
                let answered = matches!(knock, Ok(Ok(_)));
                answer.send_replace(Some((to, answered, clock::now())));
            });
            self.knock = Some(task.abort_handle());
        }
        known.map(|(_, answered, _)| answered)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if let Some(knock) = &self.knock {
            knock.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_asks_for_news_worries_for_as_long_as_an_answer_holds() {
        let mut lookout = Lookout::new();
        assert!(!lookout.is_worried(Moment(1_000)));
        lookout.worry(Moment(1_000));
        assert!(lookout.is_worried(Moment(1_000 + HOLDS_MS - 1)));
        assert!(!lookout.is_worried(Moment(1_000 + HOLDS_MS)));
    }
}
