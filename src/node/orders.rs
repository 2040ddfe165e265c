//! What an operator asks of this node alone: a bounded way into the node loop, and the answer back.

use super::agent::Agent;
use crate::cluster::Done;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// More orders than this at one time are somebody's mistake.
const WAITING: usize = 16;
/// A restart may have to replay a long log.
const ANSWERED: Duration = Duration::from_secs(600);

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeOrder {
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
        let (answer, answered) = oneshot::channel();
        if self.0.try_send(Asked { order, answer }).is_err() {
            return Done::text(503, "this node is busy or stopping, try again");
        }
        match tokio::time::timeout(ANSWERED, answered).await {
            Ok(Ok(done)) => done,
            _ => Done::text(
                503,
                "this node did not answer, it is unknown whether anything was done",
            ),
        }
    }
}

impl Agent {
    /// Begins what is asked, or answers at once why not.
    pub(super) fn obey(&mut self, asked: Asked) {
        let done = match asked.order {
            NodeOrder::Reload => {
                self.parts.renewal.renew();
                Done::text(202, "reload scheduled")
            }
            NodeOrder::Restart(_) | NodeOrder::CancelRestart | NodeOrder::Reinitialize { .. } => {
                Done::text(501, "Unsupported method")
            }
        };
        // Whoever asked may have gone.
        let _ = asked.answer.send(done);
    }
}
