//! Asks the nodes of the demo for their table: a GET of a few lines, private to the demo.

use super::ground::Ground;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A daemon that is stopped does not answer; the next one is asked.
const DEADLINE: Duration = Duration::from_millis(200);
/// A table of three nodes is far smaller.
const LONGEST_ANSWER: u64 = 1 << 20;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) timeline: String,
    pub(super) lag: String,
}

impl Member {
    pub(super) fn is_primary(&self) -> bool {
        self.role == "leader"
    }
}

/// The table as the first node that answers gives it; empty when none does.
pub(super) async fn members(ground: &Ground) -> Vec<Member> {
    for place in &ground.places {
        if let Ok(Some(body)) = tokio::time::timeout(DEADLINE, get(place.address, place.rest)).await
            && let Ok(Value::Object(cluster)) = serde_json::from_slice(&body)
            && let Some(Value::Array(members)) = cluster.get("members")
        {
            return members.iter().map(member).collect();
        }
    }
    Vec::new()
}

/// One primary and two that stream from it.
pub(super) fn is_whole(members: &[Member]) -> bool {
    members
        .iter()
        .filter(|member| member.is_primary() && member.state == "running")
        .count()
        == 1
        && members
            .iter()
            .filter(|member| member.state == "streaming")
            .count()
            == 2
}

fn member(value: &Value) -> Member {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    Member {
        name: text("name"),
        host: format!("{}:{}", text("host"), text("port")),
        role: text("role"),
        state: text("state"),
        timeline: text("timeline"),
        lag: text("replay_lag"),
    }
}

/// The body of `GET /cluster`. HTTP/1.0 keeps it simple: the answer ends with the connection.
async fn get(address: Ipv4Addr, port: u16) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((address, port)).await.ok()?;
    stream
        .write_all(b"GET /cluster HTTP/1.0\r\nHost: demo\r\n\r\n")
        .await
        .ok()?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await.ok()?;
    let end_of_head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some(answer.split_off(end_of_head + 4))
}
