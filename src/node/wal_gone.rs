//! A standby that needs log which its primary has removed waits for ever: it is noticed here, and copied again.
//!
//! ```text
//!   primary: looks every 5 s where its oldest segment begins ----> report
//!   standby: no stream, no restore_command, replay stands still, and the segment it asks for is older ----> clone
//! ```
//!
//! A segment that was removed never comes back, so an old word of the primary's only errs on the side of waiting.

use super::agent::Agent;
use crate::clock;
use crate::cluster::{Lsn, Moment, State};
use crate::postgres::Probe;
use tokio::sync::watch;

/// How often the primary looks.
const LOOK_MS: u64 = 5_000;
/// How long a standby's replay must have stood still, without its stream, before it is said to wait for lost log.
const STILL_MS: u64 = 5_000;

/// How far back the own log reaches, and since when replay stands still.
pub struct WalGone {
    oldest: watch::Sender<Option<Lsn>>,
    next: Moment,
    still: Option<(Lsn, Moment)>,
}

impl Default for WalGone {
    fn default() -> Self {
        Self {
            oldest: watch::channel(None).0,
            next: Moment(0),
            still: None,
        }
    }
}

impl WalGone {
    /// Since when replay has stood at this place.
    fn still_since(&mut self, replayed: Lsn, now: Moment) -> Moment {
        match self.still {
            Some((at, since)) if at == replayed => since,
            _ => {
                self.still = Some((replayed, now));
                now
            }
        }
    }
}

/// Whether a standby that has everything up to `has` asks for a segment before the oldest one. It asks for the whole
/// segment in which it continues, and `oldest` is where one begins.
fn is_gone(has: Lsn, oldest: Lsn) -> bool {
    has < oldest
}

impl Agent {
    /// Where the oldest log of this primary begins, as it was last seen.
    pub(super) fn oldest_wal(&mut self, now: Moment) -> Option<Lsn> {
        if now >= self.wal_gone.next
            && let Some(hands) = self.hands()
        {
            self.wal_gone.next = now.plus(LOOK_MS);
            let oldest = self.wal_gone.oldest.clone();
            tokio::task::spawn_blocking(move || oldest.send_replace(hands.postgres.oldest_wal()));
        }
        *self.wal_gone.oldest.borrow()
    }

    /// Why this running standby, without its stream beside a primary that is well, can never have it again.
    pub(super) fn log_is_gone(&mut self, state: &State, probe: &Probe, now: Moment) -> Option<String> {
        let replayed = probe.replayed?;
        let still_ms = now.since(self.wal_gone.still_since(replayed, now));
        // What delays replay would make a standby look as if it needed what it has.
        if probe.restores || probe.replay_paused || probe.wal_receiver.is_some() || still_ms < STILL_MS {
            return None;
        }
        let settings = self.parts.settings.borrow().clone();
        let delays = |name: &String| name == "recovery_min_apply_delay";
        if self.hands()?.effective(&settings).recovery.keys().any(delays) {
            return None;
        }
        let (holder, _) = state.primacy.held()?;
        let word = self.parts.word.borrow();
        let seen = word.digest.iter().find(|seen| seen.report.member() == holder)?;
        let oldest = seen.report.postgres.as_ref()?.oldest?;
        let has = probe.received.unwrap_or_default().max(replayed);
        is_gone(has, oldest)
            .then(|| format!("it needs the log from {has} on, and the log of {holder} begins at {oldest}"))
    }

    /// The report's part: only a primary's log is asked for.
    pub(super) fn wal_kept(&mut self) -> Option<Lsn> {
        let serving = self.risen.is_some() && self.risen == self.running;
        if serving {
            self.oldest_wal(clock::now())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_segment_is_gone() {
        let lsn = |text: &str| text.parse::<Lsn>().unwrap();
        assert!(is_gone(lsn("0/2FFFFFF"), lsn("0/3000000")));
        assert!(!is_gone(lsn("0/3000000"), lsn("0/3000000")));
        assert!(!is_gone(lsn("0/9000000"), lsn("0/3000000")));
    }

    #[test]
    fn standing_still_counts_from_the_last_move() {
        let mut gone = WalGone::default();
        assert_eq!(gone.still_since(Lsn(1), Moment(10)), Moment(10));
        assert_eq!(gone.still_since(Lsn(1), Moment(20)), Moment(10));
        assert_eq!(gone.still_since(Lsn(2), Moment(30)), Moment(30));
    }
}
