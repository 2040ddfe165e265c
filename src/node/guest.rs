//! A PostgreSQL that ran here before this node belonged to a cluster: kept as it is until something is asked of it.

use super::agent::{Agent, AgentError};
use crate::cluster::{Role, State, WalEnd};
use crate::decide::duty::Process;

impl Agent {
    /// The PostgreSQL that runs was there before us, and nothing of this cluster's has been asked of it yet.
    pub(super) fn hosts_guest(&self) -> bool {
        self.parts.ledger.facts().guest && matches!(self.process(), Process::Up(_))
    }

    /// Nothing is decided about a primary of somebody else's: if this cluster has another one, a person has to look.
    pub(super) fn look_after_guest(&mut self, state: &State) -> Result<(), AgentError> {
        if !self.parts.ledger.facts().guest {
            return Ok(());
        }
        if self.process() == Process::Down && self.job.is_none() {
            return self.becomes_ours();
        }
        let primary = state.primacy.last().map(|(holder, _)| holder);
        if self.process() == Process::Up(Some(Role::Primary))
            && state.system_id.is_some()
            && let Some(primary) = primary.filter(|holder| **holder != self.me)
        {
            let section = self.parts.config.postgresql.as_ref();
            let dir = section.map(|section| section.data_dir.display().to_string());
            return Err(AgentError::Misplaced(format!(
                "postgresql.data_dir: a primary runs in {}, but the primary of this cluster is {primary}; stop the one \
                 that is not wanted, and move its directory away",
                dir.unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// From here on PostgreSQL is what this cluster makes of it.
    pub(super) fn becomes_ours(&mut self) -> Result<(), AgentError> {
        if self.parts.ledger.facts().guest {
            self.parts.ledger.change(|facts| facts.guest = false)?;
        }
        Ok(())
    }

    /// Where the log of what was there before ends: read from disk, or as the running server says.
    pub(super) fn end_brought(&self) -> Option<WalEnd> {
        let probe = self
            .probed
            .probe
            .as_ref()
            .filter(|_| self.probed.postmaster == self.guard.postmaster && self.hosts_guest());
        let live = probe.and_then(|probe| {
            Some(WalEnd {
                timeline: probe.timeline?,
                lsn: probe.location.or(probe.replayed)?,
            })
        });
        live.or(self.holdings.end)
    }

    /// Whether it follows somebody: such data founds no cluster.
    pub(super) fn brings_standby(&self) -> bool {
        match self.process() {
            Process::Up(Some(role)) => role != Role::Primary,
            _ => self.holdings.standby,
        }
    }
}
