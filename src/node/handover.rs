//! The primary's part in a handover: a checkpoint while it serves, then a clean stop, so that the gap is short.
//!
//! ```text
//!  Duty::Yield -> CHECKPOINT beside serving -> gate shut, [drain] fast stop -> end of the log read -> Tenure::Ended
//! ```
//!
//! Where there are proxies, they keep new transactions back from the moment the gate is shut, and those under way get a moment
//! to end.
//!
//! A clean stop sends every connected standby the record of the shutdown checkpoint before PostgreSQL ends, so the
//! candidate has it before it is promoted, and this copy ends exactly where the next timeline begins: it follows
//! without a rewind. Nothing here is owed any more the moment the duty says so, until the stop has begun: that one
//! always ends the epoch.

use super::agent::Agent;
use super::hands::Hands;
use super::job::{Job, Purpose};
use super::jobs;
use crate::cluster::{Epoch, Moment, State};
use crate::decide::duty::Duty;
use std::time::Duration;

/// How long a fast stop may take before it becomes an immediate one: clients are waiting.
const STOP: Duration = Duration::from_secs(10);

impl Agent {
    /// Clients may be here: the duty is to serve, also while another primary is prepared for.
    pub(super) fn is_serving(&self) -> bool {
        match self.duty {
            Duty::Serve(epoch) => self.restarts_after() != Some(epoch),
            Duty::Yield(_) => !matches!(self.job.as_ref().map(|job| &job.purpose), Some(Purpose::Stop)),
            _ => false,
        }
    }

    /// Serves until the checkpoint is written, then stops.
    pub(super) fn hand_over(&mut self, hands: Hands, epoch: Epoch, state: &State, now: Moment) {
        let asked = state.handover.as_ref();
        let Some((asked, begun)) = asked.and_then(|asked| Some((asked, asked.of(epoch)?))) else {
            return;
        };
        // A primary that has not got there has nothing to write.
        if self.prepared != Some(epoch) && self.risen == Some(epoch) {
            if self.farewell.is_none() && self.may_try("checkpoint", now) {
                tracing::info!("a {} to {} begins: writing a checkpoint", asked.word(), begun.to);
                let (hands, to) = (hands.clone(), begun.to.clone());
                self.farewell = Some(Job::spawn(Purpose::Prepare(epoch), |_| {
                    jobs::prepare(hands, Some(to))
                }));
            }
            self.serve(hands, epoch, state, now);
            return;
        }
        tracing::info!("stopping PostgreSQL for the {} to {}", asked.word(), begun.to);
        self.trouble = Some(format!("was stopped for the {} to {}", asked.word(), begun.to));
        self.proof = None;
        self.finish_in_pause();
        self.callbacks_expect_stop(false);
        let drains = self.parts.config.proxy.is_some();
        self.job = Some(Job::spawn(Purpose::Stop, |_| jobs::yield_up(hands, drains, STOP)));
    }
}
