//! What an operator asks of this node alone: a bounded way into the node loop, and the answer back.

use super::agent::Agent;
use crate::cluster::{Done, Settings};
use crate::config::{self, Config, NewParameters};
use crate::postgres::Refused;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// More orders than this at one time are somebody's mistake.
const WAITING: usize = 16;
/// Everything but a restart, which may have to replay a long log and has a deadline of its own.
const ANSWERED: Duration = Duration::from_secs(600);

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeOrder {
    /// Say whether this node could work with a change of the dynamic configuration.
    Vet {
        /// JSON text of an object.
        config: String,
        /// It replaces the configuration.
        whole: bool,
    },
    /// Read the node file again.
    Reload,
    /// Restart PostgreSQL, at once or at a time, if what the request asks for holds.
    Restart(Map<String, Value>),
    /// Forget the scheduled restart.
    CancelRestart,
    /// Replace the data by a new copy.
    Reinitialize {
        /// Drop what is under way first.
        force: bool,
        /// Copy from the primary, not from a replica.
        from_leader: bool,
    },
}

/// An order with the way back.
pub struct Asked {
    /// What is asked.
    pub order: NodeOrder,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Done>,
}

/// The doors' end; clones are the same end.
#[derive(Clone)]
pub struct NodeOrders(mpsc::Sender<Asked>);

/// Both ends.
pub fn channel() -> (NodeOrders, mpsc::Receiver<Asked>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (NodeOrders(sender), receiver)
}

impl NodeOrders {
    /// Asks the node loop and waits for its answer.
    pub async fn ask(&self, order: NodeOrder) -> Done {
        let (answer, mut answered) = oneshot::channel();
        let restarts = matches!(order, NodeOrder::Restart(_));
        if self.0.try_send(Asked { order, answer }).is_err() {
            return Done::text(503, "this node is busy or stopping, try again");
        }
        let said = match restarts {
            true => (&mut answered).await.ok(),
            false => tokio::time::timeout(ANSWERED, &mut answered)
                .await
                .ok()
                .and_then(Result::ok),
        };
        let silent = "this node did not answer, it is unknown whether anything was done";
        said.unwrap_or_else(|| Done::text(503, silent))
    }
}

impl Agent {
    /// Begins what is asked, or answers at once why not.
    pub(super) fn obey(&mut self, asked: Asked) {
        let done = match asked.order {
            NodeOrder::Vet { config, whole } => return self.vet(&config, whole, asked.answer),
            NodeOrder::Reload => {
                self.parts.renewal.renew();
                Done::text(202, "reload scheduled")
            }
            NodeOrder::Restart(body) => return self.ask_restart(&body, asked.answer),
            NodeOrder::CancelRestart => self.cancel_restart(),
            NodeOrder::Reinitialize { force, from_leader } => self.reinitialize(force, from_leader),
        };
        // Whoever asked may have gone.
        let _ = asked.answer.send(done);
    }

    /// This node's timings and its PostgreSQL have a say in what is configured; a change that nobody could use is
    /// refused before it is agreed.
    fn vet(&self, change: &str, whole: bool, answer: oneshot::Sender<Done>) {
        let state = self.parts.state.borrow().clone();
        let old = self.parts.settings.borrow().clone();
        let found = match suitable(&self.parts.config, &state.config, &old, change, whole) {
            Ok(found) => found,
            Err(why) => {
                // Whoever asked may have gone.
                let _ = answer.send(Done::text(422, why));
                return;
            }
        };
        for line in &found.idle {
            tracing::warn!("{line}");
        }
        let postgres = self.parts.hands.as_ref().map(|hands| hands.postgres.clone());
        tokio::spawn(async move {
            let refused = match postgres {
                Some(postgres) if !found.fresh.is_empty() => postgres.vet(&found.fresh).await,
                _ => Ok(Vec::new()),
            };
            let done = match refused {
                Ok(refused) if refused.is_empty() => Done::text(200, ""),
                Ok(refused) => {
                    let sentence = |one: &Refused| format!("postgresql.parameters.{}: {}", one.name, one.why);
                    Done::text(422, refused.iter().map(sentence).collect::<Vec<_>>().join("; "))
                }
                Err(why) => {
                    // Every node leaves out what its PostgreSQL refuses, so nothing breaks.
                    tracing::warn!("the parameters could not be checked: {why}");
                    Done::text(200, "")
                }
            };
            let _ = answer.send(done);
        });
    }
}

/// The parameters that are new, or what is wrong as far as this node can tell without it. What the
/// leader says anyway is left to it.
fn suitable(
    config: &Config,
    current: &str,
    old: &Settings,
    change: &str,
    whole: bool,
) -> Result<NewParameters, String> {
    let text = match config::amended(current, change, whole) {
        Ok(Some(text)) => text,
        _ => return Ok(NewParameters::default()),
    };
    let Ok(new) = config::settings(&text) else {
        return Ok(NewParameters::default());
    };
    config::check_ttl(&config.raft, &new).map_err(|why| format!("dynamic configuration: ttl: {why}"))?;
    config::new_parameters(old, &new).map_err(|wrong| wrong.join("; "))
}
