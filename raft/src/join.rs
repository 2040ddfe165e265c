//! The leader's side of membership: admits newcomers as learners, makes level learners voters in place of the id
//! their address had before, and otherwise keeps the voters odd and few.
//!
//! Three voters are enough to lose one, five to lose two; more only cost. So a fourth member stays a learner, and with
//! the fifth both become voters in one change. A learner that has the whole log steps in where a voter was taken out. An
//! even number that the group was formed with is left alone until somebody joins. Every change is one membership entry
//! with joint consensus; a leader that dies half-way leaves the joint set, which its successor finishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, Instant, ServerState};
use tokio::time::timeout;

use crate::node::Node;
use crate::types::{Member, Raft, StoredMembership, metrics, node_id};
use crate::wire::message::JoinAnswer;

/// A membership entry needs a quorum; without one this is how long we wait for it.
const COMMIT: Duration = Duration::from_secs(3);
/// Between two looks at the learners.
const TEND: Duration = Duration::from_millis(200);
/// A learner this close to the log's end becomes a voter.
const LEVEL: u64 = 64;
/// And when it answered so lately.
const ALIVE: Duration = Duration::from_secs(1);
/// More voters than these only make every decision slower.
const MOST: usize = 5;

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
            foundation: node.identity().foundation,
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
            JoinAnswer::Admitted {
                generation,
                foundation: node.identity().foundation,
            }
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
            let step = next_step(&membership, |id, member| {
                is_level(raft, id) && node.inbox.admits(&node.peer(id, member)).is_ok()
            });
            if let Some(step) = step {
                match timeout(COMMIT, raft.change_membership(step.clone(), false)).await {
                    Ok(Ok(_)) => tracing::info!("changed the membership: {step:?}"),
                    Ok(Err(e)) => tracing::debug!("the membership could not be changed: {e}"),
                    Err(_) => tracing::debug!("no quorum acknowledged the new membership in time"),
                }
            }
        }
        node.beats.next(TEND).await;
    }
}

fn is_level(raft: &Raft, id: u64) -> bool {
    let metrics = metrics(raft);
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|r| r.get(&id).cloned())
        .flatten();
    let heard = metrics
        .heartbeat
        .as_ref()
        .and_then(|h| h.get(&id).copied())
        .flatten();
    matched.is_some_and(|at| at.index + LEVEL >= metrics.last_log_index.unwrap_or(0))
        && heard.is_some_and(|at| at.elapsed() < ALIVE)
}

/// What to change next, if anything.
fn next_step(
    membership: &StoredMembership,
    level: impl Fn(u64, &Member) -> bool,
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
        if !older.is_disjoint(&voters) && level(*id, member) {
            let mut voters: BTreeSet<u64> = voters.difference(&older).copied().collect();
            voters.insert(*id);
            return Some(ChangeMembers::ReplaceAllVoters(voters));
        }
    }
    let spare = spare(membership, &voters, level);
    let more = missing(voters.len(), spare.len());
    (more > 0).then(|| ChangeMembers::AddVoterIds(spare.into_iter().take(more).collect()))
}

/// The learners that could vote at once and take nobody's place, the longest admitted first.
fn spare(
    membership: &StoredMembership,
    voters: &BTreeSet<u64>,
    level: impl Fn(u64, &Member) -> bool,
) -> Vec<u64> {
    let replaces = |member: &Member| {
        let mut others = membership.nodes().filter(|(id, _)| voters.contains(id));
        others.any(|(_, voter)| voter.addr == member.addr)
    };
    let mut spare: Vec<_> = membership
        .nodes()
        .filter(|(id, member)| !voters.contains(id) && !replaces(member) && level(**id, member))
        .collect();
    spare.sort_by_key(|(_, member)| member.generation);
    spare.into_iter().map(|(id, _)| *id).collect()
}

/// How many learners become voters, so that the voters are the largest odd number there can be.
fn missing(voters: usize, spare: usize) -> usize {
    let all = (voters + spare).min(MOST);
    let odd = if all.is_multiple_of(2) {
        all.saturating_sub(1)
    } else {
        all
    };
    odd.saturating_sub(voters)
}

/// The voters once `id` is none: where that would leave four, a learner steps in, or the newest of the rest steps back.
fn voters_without(
    membership: &StoredMembership,
    me: u64,
    id: u64,
    level: impl Fn(u64, &Member) -> bool,
) -> BTreeSet<u64> {
    let before: BTreeSet<u64> = membership.voter_ids().collect();
    let mut voters = before.clone();
    voters.remove(&id);
    let other = |found: &u64| *found != id;
    let spare = spare(membership, &before, &level).into_iter().find(other);
    match spare {
        Some(spare) if voters.len().is_multiple_of(2) => {
            voters.insert(spare);
        }
        None if voters.len() > 2 && voters.len().is_multiple_of(2) => {
            let newest = membership
                .nodes()
                .filter(|(voter, _)| voters.contains(voter) && **voter != me)
                .max_by_key(|(voter, member)| (!level(**voter, member), member.generation, **voter))
                .map(|(voter, _)| *voter);
            if let Some(newest) = newest {
                voters.remove(&newest);
            }
        }
        _ => {}
    }
    voters
}

/// Takes a member out for good.
pub(crate) async fn remove(raft: &Raft, id: u64) -> Result<(), String> {
    let membership = metrics(raft).membership_config;
    if membership.voter_ids().any(|voter| voter == id) {
        let voters = voters_without(&membership, *raft.node_id(), id, |id, _| is_level(raft, id));
        // Whoever loses its vote stays a learner for the moment.
        change(raft, ChangeMembers::ReplaceAllVoters(voters), true).await?;
    }
    change(raft, ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await
}

async fn change(raft: &Raft, change: ChangeMembers<u64, Member>, retain: bool) -> Result<(), String> {
    match timeout(COMMIT, raft.change_membership(change, retain)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("no quorum acknowledged the new membership in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn membership(voters: &[u64], learners: &[u64]) -> StoredMembership {
        let member = |id: &u64| {
            let addr = format!("n{id}:1");
            (
                *id,
                Member {
                    addr,
                    incarnation: *id,
                    generation: *id,
                },
            )
        };
        let nodes: BTreeMap<u64, Member> = voters.iter().chain(learners).map(member).collect();
        let voters = vec![voters.iter().copied().collect()];
        StoredMembership::new(None, crate::types::Membership::new(voters, nodes).unwrap())
    }

    fn step(voters: &[u64], learners: &[u64], level: &[u64]) -> Option<ChangeMembers<u64, Member>> {
        next_step(&membership(voters, learners), |id, _| level.contains(&id))
    }

    #[test]
    fn a_fourth_waits_for_a_fifth_and_a_sixth_never_votes() {
        assert_eq!(step(&[1, 2, 3], &[4], &[4]), None);
        assert_eq!(step(&[1, 2, 3], &[4, 5], &[4]), None);
        let both = ChangeMembers::AddVoterIds([4, 5].into());
        assert_eq!(step(&[1, 2, 3], &[4, 5], &[5, 4]), Some(both));
        assert_eq!(step(&[1, 2, 3, 4, 5], &[6, 7], &[6, 7]), None);
    }

    #[test]
    fn a_learner_makes_an_even_number_odd() {
        let it = |id| Some(ChangeMembers::AddVoterIds([id].into()));
        assert_eq!(step(&[1, 2], &[3, 4], &[3, 4]), it(3));
        assert_eq!(step(&[1, 2, 3, 4], &[5], &[5]), it(5));
        assert_eq!(step(&[1, 2, 3, 4], &[], &[]), None, "founders keep their votes");
        assert_eq!(step(&[1], &[2], &[2]), None);
    }

    #[test]
    fn whoever_is_taken_out_leaves_an_odd_number() {
        let without = |voters: &[u64], learners: &[u64], level: &[u64], id| -> Vec<u64> {
            let level = |id: u64, _: &Member| level.contains(&id);
            voters_without(&membership(voters, learners), 1, id, level)
                .into_iter()
                .collect()
        };
        assert_eq!(without(&[1, 2, 3], &[4], &[4, 2], 3), [1, 2, 4]);
        assert_eq!(
            without(&[1, 2, 3], &[4], &[2], 3),
            [1, 2],
            "a learner that is away does not help"
        );
        assert_eq!(
            without(&[1, 2, 3, 4, 5], &[], &[2, 3, 4], 5),
            [1, 2, 3],
            "the newest steps back"
        );
        assert_eq!(
            without(&[1, 2, 3, 4, 5], &[], &[3, 4], 5),
            [1, 3, 4],
            "or who is away"
        );
        assert_eq!(without(&[1, 2, 3], &[], &[2], 3), [1, 2]);
    }
}
