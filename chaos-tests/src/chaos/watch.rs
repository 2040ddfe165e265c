//! What each node says of itself, looked at several times a second, for the report.

use crate::addresses::REST_PORT;
use crate::chaos::arena::NODES;
use crate::chaos::network;
use crate::rest;
use matriarch::clock::boot_ns;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often it is looked.
const PERIOD: Duration = Duration::from_millis(250);

/// What a node looks like from the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Writers are sent here.
    Serving,
    /// It calls itself primary and is not open.
    Closed,
    /// A standby that streams.
    Streaming,
    /// Something else runs.
    Other,
    /// No answer.
    Silent,
}

/// One look at one node.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: u64,
    /// Which node.
    pub node: usize,
    /// What was seen.
    pub look: Look,
}

/// The watch while it goes on.
pub struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Looks from now on.
    pub fn start() -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let tasks = (0..NODES).map(|node| {
            let samples = Arc::clone(&samples);
            tokio::spawn(async move {
                loop {
                    let at = boot_ns();
                    let look = look(node).await;
                    samples.lock().unwrap().push(Sample { at, node, look });
                    tokio::time::sleep(PERIOD).await;
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            samples,
        }
    }

    /// Ends it and hands over what was seen.
    pub fn stop(self) -> Vec<Sample> {
        self.tasks.iter().for_each(JoinHandle::abort);
        std::mem::take(&mut self.samples.lock().unwrap())
    }
}

async fn look(node: usize) -> Look {
    let Some((_, body)) = rest::get(network::ip(node), REST_PORT, "/patroni").await else {
        return Look::Silent;
    };
    let Ok(value) = serde_json::from_str::<Value>(&body) else {
        return Look::Other;
    };
    let says = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if matches!(says("role").as_str(), "primary" | "master") {
        return match rest::get(network::ip(node), REST_PORT, "/primary").await {
            Some((200, _)) => Look::Serving,
            _ => Look::Closed,
        };
    }
    if says("replication_state") == "streaming" {
        Look::Streaming
    } else {
        Look::Other
    }
}
