//! The replicated state behind the log: applies commands, publishes each new state, makes and takes snapshots.

use crate::cluster::apply::apply;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{Command, Settings, State, Vote};
use matriarch_raft::{Halt, Lead, Machine};
use std::sync::Arc;
use tokio::sync::watch;

/// What the Raft group applies committed entries to.
pub struct Replica {
    state: State,
    publish: watch::Sender<Arc<State>>,
    settings: watch::Sender<Arc<Settings>>,
}

impl Replica {
    /// Begins empty; the log or a snapshot fills it.
    pub fn new(publish: watch::Sender<Arc<State>>, settings: watch::Sender<Arc<Settings>>) -> Self {
        Self {
            state: State::default(),
            publish,
            settings,
        }
    }

    fn publish(&self, config_changed: bool) {
        if config_changed && !self.state.config.is_empty() {
            // What was agreed was checked before it was proposed; a node that reads it differently keeps the old.
            match crate::config::settings(&self.state.config) {
                Ok(settings) => {
                    self.settings.send_replace(Arc::new(settings));
                }
                Err(problems) => {
                    for problem in problems {
                        tracing::error!("dynamic configuration: {problem}");
                    }
                }
            }
        }
        self.publish.send_replace(Arc::new(self.state.clone()));
    }
}

impl Machine for Replica {
    fn apply(&mut self, lead: Lead, bytes: &[u8]) -> Result<Vec<u8>, Halt> {
        let command: Command = envelope::open(Kind::Command, bytes).map_err(|why| Halt {
            why: format!("a log entry: {why}"),
        })?;
        let config = self.state.config.clone();
        let outcome = apply(
            &mut self.state,
            &command,
            Vote {
                term: lead.term,
                node: lead.node,
            },
        );
        self.publish(config != self.state.config);
        Ok(envelope::seal(Kind::Outcome, &outcome))
    }

    fn snapshot(&self) -> Vec<u8> {
        envelope::seal(Kind::State, &self.state)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.state = envelope::open(Kind::State, bytes).map_err(|why| Halt {
            why: format!("a snapshot: {why}"),
        })?;
        self.publish(true);
        Ok(())
    }
}
