//! Which of Patroni's words fit the local PostgreSQL: its state and its role.

use super::agent::Agent;
use super::job::Purpose;
use crate::cluster::{PostgresState, Role};
use crate::decide::duty::Process;

/// How the last postmaster ended, as far as this run of the daemon has seen one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// None was seen.
    #[default]
    Unseen,
    /// This node stopped it.
    Asked,
    /// It ended by itself, or by somebody else's hand.
    Unasked,
}

impl Ending {
    /// What its end will have been, should it end while this is being done.
    fn under(job: Option<&Purpose>) -> Self {
        match job {
            Some(Purpose::Fence | Purpose::Stop | Purpose::Again | Purpose::Raise) => Self::Asked,
            _ => Self::Unasked,
        }
    }

    fn word(self, paused: bool) -> PostgresState {
        match self {
            // In a pause people stop servers by hand.
            Self::Unasked if !paused => PostgresState::Crashed,
            _ => PostgresState::Stopped,
        }
    }
}

impl Agent {
    /// Remembers, while a postmaster runs, whether its end would be of our making.
    pub(super) fn note_ending(&mut self) {
        if self.guard.postmaster.is_some() {
            self.ending = Ending::under(self.job.as_ref().map(|job| &job.purpose));
        }
    }

    pub(super) fn postgres_state(&self) -> PostgresState {
        match self.job.as_ref().map(|job| &job.purpose) {
            Some(Purpose::Bootstrap(_)) if self.guard.postmaster.is_none() => return PostgresState::Initdb,
            // It counts as running only once its roles are there: nobody could follow it before.
            Some(Purpose::Bootstrap(_)) => return PostgresState::Starting,
            Some(Purpose::Clone) => return PostgresState::CreatingReplica,
            Some(Purpose::Again) => return PostgresState::Restarting,
            Some(Purpose::Stop) if self.restarts_after().is_some() => return PostgresState::Restarting,
            Some(Purpose::Fence | Purpose::Stop) if self.guard.postmaster.is_some() => {
                return PostgresState::Stopping;
            }
            _ => {}
        }
        match self.process() {
            // It serves somebody, but not this cluster: that begins with a lease.
            Process::Up(Some(Role::Primary)) if self.hosts_guest() => PostgresState::Starting,
            Process::Up(Some(_)) if self.probed.failing_since.is_none() => PostgresState::Running,
            Process::Up(Some(_)) => PostgresState::Unknown,
            Process::Up(None) => PostgresState::Starting,
            Process::Ending => PostgresState::Stopping,
            Process::Down if self.restarts_after().is_some() => PostgresState::Restarting,
            Process::Down => self.ending.word(self.parts.state.borrow().pause.is_on()),
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.process() {
            Process::Up(Some(role)) => role,
            _ if self.ended.is_some() => Role::Demoted,
            _ if self.holdings.system_id().is_none() => Role::Uninitialized,
            _ => Role::Replica,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;

    #[test]
    fn only_an_end_that_nobody_asked_for_is_a_crash() {
        for (job, paused, word) in [
            (None, false, PostgresState::Crashed),
            (None, true, PostgresState::Stopped),
            (Some(Purpose::Chores), false, PostgresState::Crashed),
            (Some(Purpose::Restart(Epoch(2))), false, PostgresState::Crashed),
            (Some(Purpose::Stop), false, PostgresState::Stopped),
            (Some(Purpose::Fence), false, PostgresState::Stopped),
        ] {
            assert_eq!(Ending::under(job.as_ref()).word(paused), word, "{job:?}");
        }
        assert_eq!(Ending::default().word(false), PostgresState::Stopped);
    }
}
