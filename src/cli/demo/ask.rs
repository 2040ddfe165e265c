//! What the nodes of the demo say of themselves, by way of the command line's own client.

use super::ground::{Ground, Place};
use crate::cli::client::Client;
use crate::cli::target::{ClusterAddress, Trust};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// A daemon that is stopped does not answer; the next one is asked.
const DEADLINE: Duration = Duration::from_millis(200);

/// A member, as far as the demo talks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) timeline: String,
}

impl Member {
    pub(super) fn is_primary(&self) -> bool {
        self.role == "leader"
    }
}

/// The answer of the first node that gives one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sight {
    /// The document of `/cluster`; null when nobody answers.
    pub(super) cluster: Value,
    /// Its members.
    pub(super) members: Vec<Member>,
}

impl Sight {
    /// One primary and two that stream from it.
    pub(super) fn is_whole(&self) -> bool {
        let primaries = self
            .members
            .iter()
            .filter(|m| m.is_primary() && m.state == "running");
        let replicas = self.members.iter().filter(|m| m.state == "streaming");
        primaries.count() == 1 && replicas.count() == 2
    }
}

/// Asks one node after the other.
pub(super) async fn look(ground: &Ground) -> Sight {
    let urls: Vec<String> = ground.places.iter().map(Place::url).collect();
    let client = Client::new(&ClusterAddress {
        scope: None,
        urls: urls.clone(),
        trust: Trust::default(),
    });
    for url in &urls {
        if let Ok(Ok(cluster)) = timeout(DEADLINE, client.get_from(url, "/cluster")).await
            && let Some(members) = cluster.get("members").and_then(Value::as_array)
        {
            return Sight {
                members: members.iter().map(member).collect(),
                cluster,
            };
        }
    }
    Sight::default()
}

fn member(value: &Value) -> Member {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    Member {
        name: text("name"),
        role: text("role"),
        state: text("state"),
        timeline: text("timeline"),
    }
}
