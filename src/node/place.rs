//! Whether this node may take part at all: not under another's name, and not with another cluster's data.

use super::agent::Agent;
use super::reporter::Word;
use crate::cluster::State;

impl Agent {
    /// Its name is somebody else's; the sentence says whose.
    pub(super) fn is_another(&self, state: &State, word: &Word) -> Option<String> {
        if let Some(other) = &word.duplicate_of
            && self.running.is_none()
        {
            return Some(format!(
                "Can't start; there is already a node named '{}' running at {other}; give this one another name",
                self.me
            ));
        }
        let other = state
            .namesake(&self.me)
            .filter(|_| state.member(&self.me).is_none())?;
        Some(format!(
            "Can't start; there is a member named '{other}', and PostgreSQL does not tell '{}' from it; give this one \
             another name",
            self.me
        ))
    }

    /// Its data is another cluster's; the sentence says which, and what would be right.
    pub(super) fn holds_another(&self, state: &State) -> Option<String> {
        if let (Some(found), Some(agreed)) = (self.holdings.system_id(), state.system_id)
            && found != agreed
        {
            let section = self.parts.config.postgresql.as_ref();
            let dir = section
                .map(|section| section.data_dir.display().to_string())
                .unwrap_or_default();
            return Some(format!(
                "postgresql.data_dir: {dir} holds database cluster {found}, this cluster's is {agreed}; move the \
                 directory away or correct the setting"
            ));
        }
        self.holdings.foreign.clone()
    }
}
