//! The leader's side of membership: admits newcomers as learners, makes level learners voters in place of the id
//! their address had before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, ServerState};
use tokio::time::{sleep, timeout};

use crate::node::Node;
use crate::types::{Member, Raft, StoredMembership, metrics, node_id};
use crate::wire::message::JoinAnswer;

/// A membership entry needs a quorum; without one this is how long we wait for it.
const COMMIT: Duration = Duration::from_secs(3);
/// Between two looks at the learners.
const TEND: Duration = Duration::from_millis(200);
/// A learner this close to the log's end becomes a voter.
const LEVEL: u64 = 64;

/// Admits `addr` in its given incarnation as a learner, or says who might. Asking twice is harmless: the incarnation
/// is the caller's and durable, so the same caller always asks for the same id.
pub(crate) async fn admit(node: &Arc<Node>, addr: &str, incarnation: u64) -> JoinAnswer {
    let later = |why: &str| JoinAnswer::Later { why: why.to_owned() };
    let Some(raft) = node.raft.get() else {
        return later("this node has not joined a group itself");
    };
    let metrics = metrics(raft);
    if metrics.state != ServerState::Leader {
        let leader = metrics
            .current_leader
            .and_then(|id| metrics.membership_config.get_node(&id).cloned());
        return JoinAnswer::Elsewhere {
            leader: leader.map(|m| m.addr),
        };
    }
    let id = node_id(&node.settings.cluster, addr, incarnation);
    if incarnation == 0 {
        return later("incarnation 0 is a founder's");
    }
    if let Some(member) = metrics.committed_membership_config.get_node(&id) {
        return JoinAnswer::Admitted {
            generation: member.generation,
        };
    }
    // Greater than that of everybody admitted before: each admission is an entry of the log.
    let generation = metrics.last_log_index.unwrap_or(0) + 1;
    let member = Member {
        addr: addr.to_owned(),
        incarnation,
        generation,
    };
    match timeout(COMMIT, raft.add_learner(id, member, false)).await {
        Ok(Ok(_)) => {
            tracing::info!(addr, id, "admitted to the group");
            JoinAnswer::Admitted { generation }
        }
        Ok(Err(e)) => later(&e.to_string()),
        Err(_) => later("no quorum acknowledged the new membership in time"),
    }
}

/// Level-triggered: brings the membership one step closer to "each address once, every level member a voter".
pub(crate) async fn tend(node: Arc<Node>) {
    let mut status = node.status.subscribe();
    loop {
        // Sleeps while another node leads.
        if status.wait_for(|s| s.lead.is_some()).await.is_err() {
            return;
        }
        if let Some(raft) = node.raft.get() {
            let membership = metrics(raft).membership_config;
            let step = next_step(&membership, |id| is_level(raft, id));
            if let Some(step) = step {
                match timeout(COMMIT, raft.change_membership(step.clone(), false)).await {
                    Ok(Ok(_)) => tracing::info!("changed the membership: {step:?}"),
                    Ok(Err(e)) => tracing::debug!("the membership could not be changed: {e}"),
                    Err(_) => tracing::debug!("no quorum acknowledged the new membership in time"),
                }
            }
        }
        sleep(TEND).await;
    }
}

fn is_level(raft: &Raft, id: u64) -> bool {
    let metrics = metrics(raft);
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|r| r.get(&id).cloned())
        .flatten();
    matched.is_some_and(|at| at.index + LEVEL >= metrics.last_log_index.unwrap_or(0))
}

/// What to change next, if anything.
fn next_step(
    membership: &StoredMembership,
    level: impl Fn(u64) -> bool,
) -> Option<ChangeMembers<u64, Member>> {
    let voters: BTreeSet<u64> = membership.get_joint_config().last().cloned().unwrap_or_default();
    // A leader died half-way through a change: finish it.
    if membership.get_joint_config().len() > 1 {
        return Some(ChangeMembers::ReplaceAllVoters(voters));
    }
    let older_than = |member: &Member| -> BTreeSet<u64> {
        let older = |m: &Member| m.addr == member.addr && m.generation < member.generation;
        membership
            .nodes()
            .filter(|(_, m)| older(m))
            .map(|(id, _)| *id)
            .collect()
    };
    let learners = || membership.nodes().filter(|(id, _)| !voters.contains(id));
    // Newest first: of two learners with one address only the newest can still be alive.
    let mut newest: Vec<_> = learners().collect();
    newest.sort_by_key(|(_, m)| std::cmp::Reverse(m.generation));
    for (id, member) in newest {
        let older = older_than(member);
        let dead_learners: BTreeSet<u64> = older.difference(&voters).copied().collect();
        if !dead_learners.is_empty() {
            return Some(ChangeMembers::RemoveNodes(dead_learners));
        }
        if level(*id) {
            let mut voters: BTreeSet<u64> = voters.difference(&older).copied().collect();
            voters.insert(*id);
            return Some(ChangeMembers::ReplaceAllVoters(voters));
        }
    }
    None
}

/// Takes a member out for good.
pub(crate) async fn remove(raft: &Raft, id: u64) -> Result<(), String> {
    let membership = metrics(raft).membership_config;
    let change = match membership.voter_ids().any(|v| v == id) {
        true => ChangeMembers::RemoveVoters(BTreeSet::from([id])),
        false => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
    };
    match timeout(COMMIT, raft.change_membership(change, false)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("no quorum acknowledged the new membership in time".to_owned()),
    }
}
