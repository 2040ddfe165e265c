//! The dynamic configuration beside the data, where Patroni keeps it: whoever founds a cluster from this data again, with
//! either program, begins with what was in force.

use super::agent::Agent;
use crate::cluster::State;
use crate::decide::duty::Process;

impl Agent {
    /// Writes it down where it has changed. Nobody waits for it, and a copy or rewind of the data brings another's.
    pub(super) fn keep_configuration(&mut self, state: &State) {
        let (Some(hands), Some(pid)) = (self.hands(), self.guard.postmaster) else {
            return;
        };
        let known = |(of, kept): &(i32, String)| *of == pid && *kept == state.config;
        let ours = self.caught_up && !self.hosts_guest() && matches!(self.process(), Process::Up(Some(_)));
        if !ours || state.config.is_empty() || self.job.is_some() || self.kept.as_ref().is_some_and(known) {
            return;
        }
        self.kept = Some((pid, state.config.clone()));
        let text = state.config.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(why) = hands.postgres.keep_configuration(&text) {
                tracing::warn!("the dynamic configuration is not kept beside the data: {why}");
            }
        });
    }
}
