//! What this node makes of the primary as it was heard of last: where it is, how far it has come, whether it serves.

use super::agent::Agent;
use super::lookout::LATE_MS;
use super::reporter::Word;
use crate::clock;
use crate::cluster::{Endpoint, Moment, State};

/// What was heard of a primary longer ago says nothing of it.
const STALE_MS: u64 = 3_000;
/// A primary that was last heard of longer ago is not copied from, and does not show that a standby's stream fails.
const THERE_MS: u64 = 1_000;

impl Agent {
    /// Only where a silent primary would be fenced before its lease is over.
    pub(super) fn look_out(&mut self, state: &State, word: &Word, now: Moment) -> Option<bool> {
        self.lookout.rest();
        let (holder, _) = state
            .primacy
            .held()
            .filter(|(holder, _)| state.sync.is_on() && **holder != self.me)?;
        let endpoint = state.member(holder)?.info.postgres.clone()?;
        let seen = word.digest.iter().find(|seen| seen.report.member() == holder);
        let worried = self.lookout.is_worried(now);
        // Its reports come here too, unless this member has no port or the way between the two is cut. A leader that asks
        // for news has perhaps not heard of it: then nothing counts but what the leader knows.
        let told_ms = match seen {
            Some(seen) => seen.age_ms + now.since(word.at),
            None if worried => LATE_MS,
            None => return None,
        };
        let heard_ms = self.parts.desk.silence_ms(holder, now).filter(|_| !worried);
        let age_ms = heard_ms.map_or(told_ms, |heard_ms| heard_ms.min(told_ms));
        self.lookout.look(&endpoint, age_ms, now)
    }

    /// A serving primary that does not answer SQL for `primary_hang_timeout`.
    pub(super) fn hung_since(&self, now: Moment) -> Option<Moment> {
        let limit = self.parts.settings.borrow().primary_hang_timeout_ms;
        let since = self.probed.failing_since?;
        (limit > 0 && self.risen.is_some() && now.since(since) > limit).then_some(since)
    }

    /// Where the serving primary's log ended when last heard of, and whether that was after the own end was read.
    pub(super) fn primary_position(&self, state: &State) -> Option<(crate::cluster::Lsn, bool)> {
        let (holder, epoch) = state.primacy.held()?;
        let word = self.parts.word.borrow();
        let seen = word.digest.iter().find(|seen| seen.report.member() == holder)?;
        if !crate::decide::view::serves(&seen.report, epoch) {
            return None;
        }
        let position = seen.report.postgres.as_ref()?.location?;
        if seen.age_ms + clock::now().since(word.at) > STALE_MS {
            return None;
        }
        // The report itself may be as old as one probe more.
        let age_ms = seen.age_ms + 2 * self.parts.settings.borrow().report_interval_ms;
        Some((
            position,
            word.at.0.saturating_sub(age_ms) > self.holdings.end_at.0,
        ))
    }

    /// The primary's address, if its newest report is new enough and shows that it serves; `checkpointed` asks for more.
    /// Under a primary that is gone nobody's log is doubted and nobody's data makes room for a copy.
    pub(super) fn primary_endpoint(&self, state: &State, checkpointed: bool) -> Option<Endpoint> {
        let (holder, epoch) = state.primacy.held()?;
        let word = self.parts.word.borrow();
        let seen = word.digest.iter().find(|seen| seen.report.member() == holder)?;
        let serves = crate::decide::view::serves(&seen.report, epoch);
        let ready = !checkpointed || seen.report.postgres.as_ref().is_some_and(|p| p.checkpointed);
        let there_ms = (5 * self.parts.settings.borrow().report_interval_ms).max(THERE_MS);
        if !(serves && ready && seen.age_ms + clock::now().since(word.at) < there_ms) {
            return None;
        }
        state.member(holder)?.info.postgres.clone()
    }

    /// A standby that is preferred as a source of copies (`clonefrom`), if one streams from the serving primary.
    pub(super) fn preferred_source(&self, state: &State) -> Option<Endpoint> {
        let (_, epoch) = state.primacy.held()?;
        let word = self.parts.word.borrow();
        let age_ms = clock::now().since(word.at);
        word.digest.iter().find_map(|seen| {
            let name = seen.report.member();
            let member = state.member(name)?;
            let there = seen.age_ms + age_ms < STALE_MS && *name != self.me;
            let streams = crate::decide::view::streams(&seen.report, epoch);
            (member.info.tags.clonefrom && there && streams).then(|| member.info.postgres.clone())?
        })
    }
}
