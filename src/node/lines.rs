//! Writes Patroni's log sentences where what they say has become true.

use super::agent::Agent;
use crate::cluster::{MemberName, State};
use crate::decide::duty::Duty;
use crate::decide::lines::{Calm, calm, not_me};

/// What was said last.
#[derive(Default)]
pub struct Lines {
    holder: Option<MemberName>,
    calm: String,
}

impl Agent {
    /// Says what is new.
    pub(super) fn say(&mut self, state: &State) {
        if self.parts.hands.is_none() {
            return;
        }
        if let Some((holder, _)) = state.primacy.held()
            && self.lines.holder.as_ref() != Some(holder)
            && let Some(before) = self.lines.holder.replace(holder.clone())
        {
            let word = self.parts.word.borrow();
            let reports = word.digest.iter().map(|seen| &seen.report);
            let settings = self.parts.settings.borrow();
            for line in not_me(&self.me, &before, state, &settings, reports) {
                tracing::info!("{line}");
            }
        }
        let Some(now) = self.is_calm(state) else { return };
        let line = calm(&self.me, now, state.pause.is_on());
        if line != self.lines.calm {
            tracing::info!("{line}");
            self.lines.calm = line;
        }
    }

    fn is_calm<'a>(&'a self, state: &'a State) -> Option<Calm<'a>> {
        if self.job.is_some() || self.leaving {
            return None;
        }
        let streams = || {
            self.probed
                .probe
                .as_ref()
                .is_some_and(|probe| probe.is_streaming())
        };
        match (&self.duty, state.primacy.held()) {
            (Duty::Serve(epoch), _) if self.risen == Some(*epoch) => Some(Calm::Leads),
            (Duty::Follow(leader), _) if streams() => Some(Calm::Follows(leader)),
            (Duty::Rest(_), Some((holder, _))) if state.system_id.is_none() && *holder != self.me => {
                Some(Calm::Awaits)
            }
            _ => None,
        }
    }
}
