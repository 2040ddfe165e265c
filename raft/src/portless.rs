//! A member without a peer port: it takes no part in Raft, is told what was agreed, and speaks beside the log.
//!
//! Raft's leader connects to whoever receives its log, so who listens nowhere cannot be a learner. Such a member asks one
//! of the voters again and again; the answer comes at once when something later is agreed, else after a moment. It gets
//! the machine's whole state, which is small, instead of entries.
//!
//! Why this is safe: it has no vote and stores nothing that counts as an acknowledgement. What a voter applied is
//! committed, so whatever it is told was agreed; it takes only later states (of the same foundation), so it never goes
//! back. It may be told late: then it is like a learner that is behind, and what must not be decided on an old state (a
//! lease, an order) is asked of the leader anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::machine::{Machine, Peer};
use crate::node::Node;
use crate::status::Status;
use crate::types::{Identity, node_id};
use crate::wire::message::{Lane, Request, Response, WatchBytes};

/// A voter keeps the question this long when nothing happens.
const PATIENCE: Duration = Duration::from_millis(500);
/// The way there and back on top.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two attempts when nobody answers.
const RETRY: Duration = Duration::from_millis(200);

/// What stands for the address in a hello: unique, and nothing that could be dialled.
pub(crate) fn address(self_addr: &str, incarnation: u64) -> String {
    match self_addr.is_empty() {
        true => format!("portless-{incarnation:016x}"),
        false => self_addr.to_owned(),
    }
}

/// Runs until the node is closed.
pub(crate) async fn take_part(node: Arc<Node>, mut machine: Box<dyn Machine>) {
    let addr = address("", node.claim);
    node.settled.store(true, Ordering::SeqCst);
    node.assume(Identity {
        id: node_id(&node.settings.cluster, &addr, node.claim),
        incarnation: node.claim,
        ..Identity::default()
    });
    let mut known = WatchBytes::default();
    let mut turn = 0_usize;
    loop {
        let mut targets: Vec<String> = known.voters.iter().map(|(_, _, addr)| addr.clone()).collect();
        targets.extend(
            node.founders
                .iter()
                .filter(|addr| !known.voters.iter().any(|v| v.2 == **addr))
                .cloned(),
        );
        let Some(target) = targets.get(turn.checked_rem(targets.len()).unwrap_or(0)) else {
            return node.give_up("no partner is known".to_owned());
        };
        let pool = node.pools.pool(target, 0, Lane::Message);
        let request = Request::Watch {
            applied: known.applied,
            leader: known.leader,
        };
        match pool.call(&request, DEADLINE).await {
            Ok(Response::Watch(told)) => {
                if let Err(why) = take_in(&node, machine.as_mut(), &mut known, told) {
                    return node.give_up(why);
                }
                continue;
            }
            Ok(Response::Removed(why) | Response::Refused(why)) => {
                if let Some(unsaid) = node.throttle.admit(&why) {
                    tracing::warn!(unsaid, "{target}: {why}");
                }
            }
            Ok(other) => tracing::debug!("{target} answered something else: {other:?}"),
            Err(e) => tracing::debug!("{e}"),
        }
        turn = turn.wrapping_add(1);
        known.leader = 0;
        publish(&node, &known);
        sleep(RETRY).await;
    }
}

fn take_in(
    node: &Node,
    machine: &mut dyn Machine,
    known: &mut WatchBytes,
    told: WatchBytes,
) -> Result<(), String> {
    if told.foundation < known.foundation {
        return Ok(());
    }
    let later = told.foundation > known.foundation || told.applied > known.applied;
    if let Some(state) = told.state.as_ref().filter(|_| later) {
        machine.restore(state).map_err(|halt| halt.why)?;
        (known.applied, known.foundation) = (told.applied, told.foundation);
    }
    node.expelled.set(None);
    (known.term, known.leader) = (told.term, told.leader);
    (known.voters, known.learners) = (told.voters, told.learners);
    publish(node, known);
    Ok(())
}

fn publish(node: &Node, known: &WatchBytes) {
    let peer = |(id, name, addr): &(u64, String, String)| Peer {
        id: *id,
        name: name.clone(),
        addr: addr.clone(),
    };
    let voters: Vec<Peer> = known.voters.iter().map(peer).collect();
    let new = Status {
        id: node.identity().id,
        joined: known.foundation != 0,
        leader: voters.iter().find(|voter| voter.id == known.leader).cloned(),
        voters,
        learners: known.learners.iter().map(peer).collect(),
        term: known.term,
        last_log: known.applied,
        applied: known.applied,
        fatal: node.fatal.get().cloned(),
        expelled: node.expelled.get(),
        ..Status::default()
    };
    node.status
        .send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
}

/// A voter's answer to one that watches.
pub(crate) async fn tell(node: &Arc<Node>, applied: u64, leader: u64) -> Response {
    let Some(raft) = node.raft.get() else {
        return Response::Refused("this node has not joined a group yet".to_owned());
    };
    let leads = |status: &Status| status.leader.as_ref().map_or(0, |peer| peer.id);
    let mut seen = node.status.subscribe();
    // Running out is the normal case: nothing happened.
    let _ = timeout(
        PATIENCE,
        seen.wait_for(|s| s.applied > applied || leads(s) != leader),
    )
    .await;
    let status = seen.borrow().clone();
    let found = raft
        .with_state_machine(|machine| {
            let found = machine.whole();
            Box::pin(async move { found })
        })
        .await;
    let (at, state) = match found {
        Ok(found) => found,
        Err(e) => return Response::Refused(e.to_string()),
    };
    let three = |peer: &Peer| (peer.id, peer.name.clone(), peer.addr.clone());
    Response::Watch(WatchBytes {
        foundation: node.identity().foundation,
        term: status.term,
        applied: at,
        leader: leads(&status),
        voters: status.voters.iter().map(three).collect(),
        learners: status.learners.iter().map(three).collect(),
        state: (at != applied).then_some(state),
    })
}
