//! What a running standby shows of itself: its stream, the timelines it has seen, and whether its log is doubted.

use super::agent::{Agent, AgentError};
use crate::cluster::{Moment, State, Timeline};
use crate::decide::duty::Data;

/// How long a standby may be without its stream, although the primary is well, before its log is doubted.
const DOUBT_MS: u64 = 3_000;

impl Agent {
    /// Remembers, across restarts, the newest timeline that this copy reached with everybody's agreement.
    pub(super) fn note_reached(&mut self, state: &State) -> Result<(), AgentError> {
        let pid = self.guard.postmaster;
        let followed = self
            .streamed_in
            .is_some_and(|(of, epoch)| Some(of) == pid && epoch == state.epoch);
        let led = self.risen.is_some_and(|epoch| epoch == state.epoch);
        let reached = state
            .timeline()
            .filter(|_| state.is_confirmed() && (followed || led));
        if reached.is_some() && self.parts.ledger.facts().reached != reached {
            self.parts.ledger.change(|facts| facts.reached = reached)?;
        }
        Ok(())
    }

    /// A standby's stream, the timelines it has seen, and whether its log has to be doubted.
    pub(super) fn note_standby(&mut self, state: &State, now: Moment) {
        let (Some(pid), Some(probe)) = (self.probed.postmaster, self.probed.probe.clone()) else {
            self.adrift_since = None;
            return;
        };
        let seen = self
            .timeline_seen
            .filter(|(of, _)| *of == pid)
            .map(|(_, timeline)| timeline);
        if let Some(timeline) = probe.timeline.max(seen) {
            self.timeline_seen = Some((pid, timeline));
            let read = self.holdings.fork.is_some_and(|fork| fork.timeline == timeline);
            if !read && (seen != Some(timeline) || probe.in_recovery) && timeline > Timeline(1) {
                // How it began proves a promotion even if the promoted node can no longer say so.
                self.holdings.fork = self.hands().and_then(|hands| hands.postgres.fork_of(timeline));
            }
        }
        if !probe.in_recovery {
            self.last_location = probe.location.or(self.last_location);
            return;
        }
        let streaming = probe.is_streaming();
        let well = self.primary_endpoint(state, false).is_some();
        if streaming && well && state.is_confirmed() && probe.timeline == state.timeline() {
            self.streamed_in = Some((pid, state.epoch));
        }
        if streaming || !well {
            self.adrift_since = None;
            if let Data::Present { end, .. } = &mut self.holdings.data {
                *end = None;
            }
            return;
        }
        let since = *self.adrift_since.get_or_insert(now);
        if matches!(self.holdings.data, Data::Present { .. })
            && let Some(why) = self.log_is_gone(state, &probe, now)
        {
            tracing::warn!("this standby cannot go on: {why}");
            self.holdings.data = Data::Broken(why);
            return;
        }
        if now.since(since) > DOUBT_MS
            && let (Some((_, timeline)), Some(lsn)) = (self.timeline_seen, probe.replayed)
        {
            self.holdings
                .set_end(Some(crate::cluster::WalEnd { timeline, lsn }));
        }
    }
}
