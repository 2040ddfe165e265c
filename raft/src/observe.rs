//! Keeps `Status` true: recomputed when openraft or our own facts change, and when a quorum's acknowledgement ages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::{RecvError, WatchReceiver};
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use openraft::{Instant, ServerState};
use tokio::time::{sleep, timeout};

use crate::machine::Peer;
use crate::node::Node;
use crate::status::{Lead, Status};
use crate::types::{Raft, TypeConfig, metrics};

/// How often a leader takes in acknowledgements, which every heartbeat brings, and which change nothing but an age. That
/// there are none any more is not noticed later for it: it is looked at when the newest one known grows too old.
const PACE: Duration = Duration::from_millis(200);
/// A voter this close to the log's end counts as level.
const LEVEL: u64 = 16;

/// Runs until the node is closed.
pub(crate) async fn observe(node: Arc<Node>) {
    while node.raft.get().is_none() {
        publish(
            &node,
            Status {
                id: node.identity().id,
                fatal: node.fatal.get().cloned(),
                expelled: node.expelled.get(),
                ..Status::default()
            },
        );
        node.changed.notified().await;
    }
    let Some(raft) = node.raft.get() else {
        return;
    };
    let (mut changes, mut leadership) = (raft.metrics(), raft.server_metrics());
    let mut members = BTreeSet::new();
    loop {
        // Cloned at once: openraft's core waits for whoever holds the borrow.
        let first: RaftServerMetrics<TypeConfig> = leadership.borrow_and_update().clone();
        let now: RaftMetrics<TypeConfig> = changes.borrow_and_update().clone();
        forget_strangers(&node, &now, &mut members);
        let status = status(&node, &now);
        let wake = wake_in(&node, &status);
        // openraft sends the metrics of leadership before those of everything.
        let behind = (&first.state, &first.vote, &first.membership_config)
            != (&now.state, &now.vote, &now.membership_config);
        let pace = match status.lead.is_some() && !behind {
            true => PACE,
            false => Duration::ZERO,
        };
        publish(&node, status);
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() {
                return stopped(&node, raft);
            },
            changed = async {
                if !pace.is_zero() {
                    node.beats.next(pace).await;
                    return changes.changed().await;
                }
                // A follower hears of every heartbeat, which says nothing; to a leader each is an acknowledgement.
                loop {
                    changes.changed().await?;
                    if now.state == ServerState::Leader || is_news(&now, &changes.borrow_watched()) {
                        return Ok::<_, RecvError>(());
                    }
                }
            } => if changed.is_err() {
                return stopped(&node, raft);
            },
            () = node.changed.notified() => {}
            () = sleep(wake) => {}
        }
    }
}

/// Whether anything differs that `Status` shows of a member that does not lead.
fn is_news(old: &RaftMetrics<TypeConfig>, new: &RaftMetrics<TypeConfig>) -> bool {
    let shown = |metrics: &RaftMetrics<TypeConfig>| {
        (
            metrics.state,
            metrics.current_term,
            metrics.current_leader,
            metrics.last_log_index,
            metrics.last_applied,
            metrics.running_state.is_ok(),
        )
    };
    shown(old) != shown(new)
        || old.vote != new.vote
        || old.membership_config != new.membership_config
        || old.committed_membership_config != new.committed_membership_config
}

/// openraft's core is gone.
fn stopped(node: &Node, raft: &Raft) {
    let why = metrics(raft)
        .running_state
        .err()
        .map_or("raft stopped".to_owned(), |e| e.to_string());
    let _ = node.fatal.set(why.clone());
    node.status.send_modify(|status| {
        status.lead = None;
        status.leader = None;
        status.fatal.get_or_insert(why);
    });
}

/// Closes the idle connections to ids that left the membership.
fn forget_strangers(node: &Node, metrics: &RaftMetrics<TypeConfig>, known: &mut BTreeSet<u64>) {
    let members: BTreeSet<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
    if members != *known {
        node.pools.keep_only(|_, id| id == 0 || members.contains(&id));
        *known = members;
    }
}

/// While leading, the acknowledgement may age without any event: look again when it would be too old.
fn wake_in(node: &Node, status: &Status) -> Duration {
    let max = node.settings.election_max_ms;
    match (status.lead, status.quorum_ack_age_ms) {
        (Some(_), Some(age)) => Duration::from_millis(max.saturating_sub(age).max(1)),
        _ => Duration::from_secs(3600),
    }
}

/// Wakes the watchers only for what they can act on.
fn publish(node: &Node, new: Status) {
    node.status.send_if_modified(|old| {
        let same = Status {
            quorum_ack_age_ms: old.quorum_ack_age_ms,
            ..new.clone()
        } == *old;
        if !same && (old.lead, &old.leader) != (new.lead, &new.leader) {
            let leader = new.leader.as_ref().map(|l| l.addr.as_str());
            tracing::info!(
                leader,
                leading = new.lead.is_some(),
                term = new.term,
                "leadership changed"
            );
        }
        *old = new;
        !same
    });
}

fn status(node: &Node, metrics: &RaftMetrics<TypeConfig>) -> Status {
    let membership = &metrics.membership_config;
    let peer = |id: u64| membership.get_node(&id).map(|member| node.peer(id, member));
    let voters: Vec<Peer> = membership.voter_ids().filter_map(peer).collect();
    let learners: Vec<Peer> = membership.membership().learner_ids().filter_map(peer).collect();
    let fatal = node
        .fatal
        .get()
        .cloned()
        .or(metrics.running_state.as_ref().err().map(|e| e.to_string()));
    let leading = metrics.state == ServerState::Leader && fatal.is_none();
    let committed = &metrics.committed_membership_config;
    // The end of a change counts once it is committed: until then another leader may have to finish the change.
    let sets = [membership, committed].map(|known| known.membership().get_joint_config());
    let alone = voters.len() == 1 && voters.iter().all(|v| v.id == metrics.id);
    let age = quorum_ack_age(metrics, alone).filter(|_| leading);
    Status {
        id: metrics.id,
        joined: committed.get_node(&metrics.id).is_some(),
        lead: lead(metrics, age, node.settings.election_max_ms).filter(|_| leading),
        leader: metrics.current_leader.filter(|_| fatal.is_none()).and_then(peer),
        voters,
        changing: sets.iter().any(|sets| sets.len() > 1),
        coming: sets.iter().flat_map(|sets| coming(sets)).collect(),
        learners,
        term: metrics.current_term,
        last_log: metrics.last_log_index.unwrap_or(0),
        applied: metrics.last_applied.as_ref().map_or(0, |id| id.index),
        fatal,
        expelled: node.expelled.get(),
        quorum_ack_age_ms: age.map(|age| age.as_millis() as u64),
        peers_level: if leading {
            peers_level(metrics, node.settings.election_max_ms)
        } else {
            Vec::new()
        },
    }
}

/// Who is in the last set of voters and not in the first.
fn coming(sets: &[BTreeSet<u64>]) -> BTreeSet<u64> {
    match (sets.first(), sets.last()) {
        (Some(old), Some(new)) => new.difference(old).copied().collect(),
        _ => BTreeSet::new(),
    }
}

fn quorum_ack_age(metrics: &RaftMetrics<TypeConfig>, alone: bool) -> Option<Duration> {
    if alone {
        return Some(Duration::ZERO);
    }
    metrics.last_quorum_acked.as_ref().map(|at| at.elapsed())
}

/// openraft says "leader" long after its quorum is gone, and briefly after a restart: only a fresh acknowledgement and
/// an applied entry of this very vote count. Its term numbers the leadership: a node leads a term at most once.
fn lead(metrics: &RaftMetrics<TypeConfig>, age: Option<Duration>, max_ms: u64) -> Option<Lead> {
    let vote = &metrics.vote;
    let elected = vote.committed && vote.leader_id.node_id == metrics.id;
    let applied = metrics
        .last_applied
        .as_ref()
        .is_some_and(|id| id.leader_id == vote.leader_id);
    let fresh = age.is_some_and(|age| age < Duration::from_millis(max_ms));
    (elected && applied && fresh).then_some(Lead {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
    })
}

fn peers_level(metrics: &RaftMetrics<TypeConfig>, max_ms: u64) -> Vec<(u64, bool)> {
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = |id: &u64| {
        metrics
            .replication
            .as_ref()
            .and_then(|r| r.get(id).cloned())
            .flatten()
    };
    let heard = |id: &u64| {
        metrics
            .heartbeat
            .as_ref()
            .and_then(|h| h.get(id).copied())
            .flatten()
    };
    let level = |id: u64| {
        let near = matched(&id).is_some_and(|at| at.index + LEVEL >= last);
        let alive = heard(&id).is_some_and(|at| at.elapsed() < Duration::from_millis(max_ms));
        (id, near && alive)
    };
    metrics
        .membership_config
        .voter_ids()
        .filter(|id| *id != metrics.id)
        .map(level)
        .collect()
}

/// Waits for a condition of the status, for callers that need one moment of it.
pub(crate) async fn wait(node: &Node, deadline: Duration, until: impl FnMut(&Status) -> bool) -> bool {
    let mut status = node.status.subscribe();
    matches!(timeout(deadline, status.wait_for(until)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_in_the_new_set_alone_is_coming() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(coming(&[set(&[1, 2, 3])]), set(&[]));
        assert_eq!(
            coming(&[set(&[1, 2, 3]), set(&[1, 2, 4])]),
            set(&[4]),
            "in place of 3"
        );
        assert_eq!(coming(&[set(&[1, 2, 3, 4, 5]), set(&[1, 2, 3])]), set(&[]));
        assert_eq!(coming(&[]), set(&[]));
    }
}
