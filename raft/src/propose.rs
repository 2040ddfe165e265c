//! Proposals: applied here when this node leads, forwarded once when another does.

use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::{Instant, sleep, timeout_at};

use crate::errors::ProposeError;
use crate::net::pool::CallError;
use crate::node::Node;
use crate::types::{Command, Member, Raft};
use crate::wire::message::{Lane, ProposeAnswer, Request, Response};

/// From the call to an answer or `Unknown`.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Largest command; several must fit one append.
const COMMAND_LIMIT: usize = 4 << 20;
/// Between two attempts while nobody leads.
const RETRY: Duration = Duration::from_millis(20);

/// What became of one attempt.
enum Attempt {
    Applied(Vec<u8>),
    /// Certainly not committed: another attempt is harmless.
    Again {
        leader: Option<(u64, Member)>,
        why: String,
    },
    Unknown(String),
    Stopped(String),
}

/// `Group::propose`.
pub(crate) async fn propose(node: &Node, command: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
    if command.len() > COMMAND_LIMIT {
        return Err(ProposeError::Refused(format!(
            "{} bytes exceed {COMMAND_LIMIT}",
            command.len()
        )));
    }
    let until = Instant::now() + DEADLINE;
    loop {
        let attempt = match node.raft.get() {
            None => Attempt::Again {
                leader: None,
                why: "this node has not joined a group yet".to_owned(),
            },
            Some(raft) => match write(raft, command.clone(), until).await {
                Attempt::Again {
                    leader: Some((id, member)),
                    ..
                } => forward(node, id, &member, command.clone(), until).await,
                other => other,
            },
        };
        match attempt {
            Attempt::Applied(answer) => return Ok(answer),
            Attempt::Unknown(why) => return Err(ProposeError::Unknown(why)),
            Attempt::Stopped(why) => return Err(ProposeError::Stopped(why)),
            Attempt::Again { why, .. } if Instant::now() + RETRY >= until => {
                return Err(ProposeError::Refused(why));
            }
            Attempt::Again { .. } => sleep(RETRY).await,
        }
    }
}

/// A forwarded proposal: answered here or not at all.
pub(crate) async fn as_leader(node: &Node, command: Vec<u8>) -> ProposeAnswer {
    let Some(raft) = node.raft.get() else {
        return ProposeAnswer::NotLeading;
    };
    match write(raft, command, Instant::now() + DEADLINE).await {
        Attempt::Applied(answer) => ProposeAnswer::Applied(answer),
        Attempt::Again { .. } => ProposeAnswer::NotLeading,
        Attempt::Unknown(why) | Attempt::Stopped(why) => ProposeAnswer::Unknown(why),
    }
}

async fn write(raft: &Raft, command: Vec<u8>, until: Instant) -> Attempt {
    match timeout_at(until, raft.client_write(Command(command))).await {
        Err(_) => Attempt::Unknown(format!("no quorum acknowledged it within {DEADLINE:?}")),
        Ok(Ok(response)) => Attempt::Applied(response.data.0),
        // A fresh leader answers without a leader until its first quorum acknowledgement; so does one that lost it.
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
            // A leader that names itself would only forward to itself.
            let leader = to
                .leader_id
                .zip(to.leader_node)
                .filter(|(id, _)| id != raft.node_id());
            Attempt::Again {
                leader,
                why: "nobody leads with a quorum".to_owned(),
            }
        }
        Ok(Err(RaftError::APIError(e @ ClientWriteError::LogEntryDiscarded(_)))) => {
            Attempt::Unknown(e.to_string())
        }
        Ok(Err(RaftError::APIError(e))) => Attempt::Again {
            leader: None,
            why: e.to_string(),
        },
        Ok(Err(RaftError::Fatal(e))) => Attempt::Stopped(e.to_string()),
    }
}

async fn forward(node: &Node, id: u64, member: &Member, command: Vec<u8>, until: Instant) -> Attempt {
    let again = |why: String| Attempt::Again { leader: None, why };
    let pool = node.pools.pool(&member.addr, id, Lane::Message);
    let deadline = until.saturating_duration_since(Instant::now());
    match pool.call(&Request::Propose(command), deadline).await {
        Ok(Response::Propose(ProposeAnswer::Applied(answer))) => Attempt::Applied(answer),
        Ok(Response::Propose(ProposeAnswer::NotLeading)) => {
            again(format!("{} does not lead (any more)", member.addr))
        }
        Ok(Response::Propose(ProposeAnswer::Unknown(why))) => Attempt::Unknown(why),
        Ok(Response::Refused(why)) => again(why),
        Ok(other) => Attempt::Unknown(format!("{} answered something else: {other:?}", member.addr)),
        Err(CallError::NotSent(why)) => again(why),
        Err(CallError::Lost(why)) => Attempt::Unknown(why),
    }
}
