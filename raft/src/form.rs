//! How an empty node finds its group, and how a group comes to be; then openraft is started.
//!
//! # Ids
//!
//! An id is a hash of (cluster, address, incarnation). Founders have incarnation 0, so every node can compute the ids of
//! all founders from its configuration file alone, absent ones included. (A hash of member names would not do: the names
//! of the partners stand in no file.) Whoever joins later has the random incarnation its store drew when it was
//! created, its *claim*. Of two ids with one address the later admitted one, with the greater generation, is the living.
//!
//! # What an empty node does
//!
//! ```text
//! ask all partners for their standing, again and again
//!   a partner is Member ------> it saw this very store when it formed: take the founder's id (see below)
//!                               otherwise: claim made durable, ask the leader to be admitted, start under that id
//!   none is, all that answer are Empty or Formed with our founders, and they are a majority:
//!                               all of them at once, or 3 s of patience for the rest:
//!                               Formation made durable, start under the founder's id, initialise the founding set
//!   else                        wait
//! ```
//!
//! # Why this is safe
//!
//! - *One group.* Every founder initialises the same set with the same ids, and openraft's first entry is a function of
//!   that set. Any number of founders may do so, in any order: the set's majority elects one leader. Nodes with other
//!   founders in their file refuse to form and say so.
//! - *Nobody votes twice.* A node takes the founder's id only after `Formation` is durable in its store, and a store with
//!   `Formation` always keeps that id. A wiped node has no `Formation`; it meets either a Member, and joins under an id
//!   never used before, or a Formed partner that remembers another claim for its address, and waits until that partner
//!   is a Member. A partner is Member as soon as it saw any election: before that nobody can have relied on a vote or an
//!   acknowledgement of the wiped node that this partner took part in.
//! - *A founder that was slow* finds the others elected already. The Formation of a Member lists the claims it saw. If
//!   ours is among them, this very store existed then and has not formed since (else it had a `Formation`), so the
//!   founder's id was never used with a store that is now lost.
//! - *An address answers under one id.* Every Raft connection names the id it wants, so a leader that still knows the
//!   wiped node's old id is turned away, and cannot mistake the empty log for the one it replicated to.
//!
//! # What remains
//!
//! A group formed by a mere majority, one of whose founders loses its store *before* the absent founder first came up, and
//! whose other founder is down just then: nobody who remembers is there to be asked. `Settings::may_form` = false
//! closes this where something beside the store remembers (the data directory's marker): such a node answers `Joiner`,
//! never forms, and keeps those it answers from forming.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use matriarch_storage::Meta;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::machine::Machine;
use crate::net::raft::Network;
use crate::node::Node;
use crate::seek::{Outcome, Seeker};
use crate::store::log::LogStore;
use crate::store::machine::{StateMachine, blocking};
use crate::types::{Identity, Member, Raft, node_id};
use crate::wire::envelope::{Sealed, seal};
use crate::wire::message::{JoinAnswer, Lane, Request, Response, Standing};
use crate::wire::stored::{FormationBytes, NodeBytes};

/// With a mere majority present, the rest gets this long to appear.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two rounds of asking, growing.
const ROUND: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// One partner's answer about its standing.
const ASK: Duration = Duration::from_millis(500);
/// An admission, which waits for a quorum.
const ADMISSION: Duration = Duration::from_secs(4);
/// The foundation of a group that was formed; each recovery makes a greater one.
pub(crate) const FORMED: u64 = 1;
/// Entries between two snapshots; `KEPT` of them stay for followers that are a little behind.
const SNAPSHOT_EVERY: u64 = if cfg!(test) { 60 } else { 5_000 };
const KEPT: u64 = SNAPSHOT_EVERY / 5;

/// What the store held at the start.
pub(crate) struct Known {
    pub(crate) record: NodeBytes,
    pub(crate) formation: Option<FormationBytes>,
}

impl Known {
    /// It names a part in a group.
    pub(crate) fn settled(&self) -> bool {
        self.record.admitted || self.formation.is_some()
    }
}

/// Finds out who this node is, then starts openraft. Runs in the background.
pub(crate) async fn enter(node: Arc<Node>, machine: Box<dyn Machine>, known: Known) {
    if known.settled() {
        // Partners of a later foundation end this one's start before it can speak for a group that was given up.
        ask_partners(&node).await;
        if node.fatal.get().is_some() {
            return;
        }
    }
    let entered = match known {
        Known {
            formation: Some(formation),
            record,
        } => found(&node, machine, formation, &record).await,
        Known { record, .. } if record.admitted => take_part(&node, machine, identity(&node, &record)).await,
        Known { record, .. } => seek(&node, machine, record).await,
    };
    if let Err(e) = entered {
        node.give_up(format!("this node cannot take part in the group: {e}"));
    }
}

fn identity(node: &Node, record: &NodeBytes) -> Identity {
    let id = node_id(&node.settings.cluster, &record.addr, record.incarnation);
    Identity {
        id,
        incarnation: record.incarnation,
        generation: record.generation,
        foundation: record.foundation.max(FORMED),
    }
}

/// Asks around until this node is a founder or admitted.
async fn seek(node: &Arc<Node>, machine: Box<dyn Machine>, mut record: NodeBytes) -> std::io::Result<()> {
    let seeker = Seeker {
        addr: node.settings.self_addr.clone(),
        founders: node.founders.clone(),
        claim: node.claim,
        may_form: node.settings.may_form,
    };
    let mut pause = ROUND.0;
    let mut majority_since: Option<Instant> = None;
    loop {
        let answers = ask_partners(node).await;
        let patient = majority_since.is_none_or(|since| since.elapsed() < PATIENCE);
        let outcome = seeker.judge(&answers, patient);
        majority_since = match &outcome {
            Outcome::Patience => majority_since.or_else(|| Some(Instant::now())),
            _ => None,
        };
        match outcome {
            Outcome::Form(formation) => {
                node.settled.store(true, Ordering::SeqCst);
                put(node, Meta::Formation, &formation).await?;
                tracing::info!("forming the group {:?}", formation.founders);
                return found(node, machine, formation, &record).await;
            }
            Outcome::Join { leader } => {
                if let Some((generation, foundation)) = ask_admission(node, leader, record.incarnation).await
                {
                    node.expelled.set(None);
                    (record.generation, record.admitted) = (generation, true);
                    record.foundation = foundation;
                    node.settled.store(true, Ordering::SeqCst);
                    put(node, Meta::Node, &record).await?;
                    return take_part(node, machine, identity(node, &record)).await;
                }
            }
            Outcome::Patience | Outcome::Wait => {}
            Outcome::Object(why) => {
                if let Some(unsaid) = node.throttle.admit(&why) {
                    tracing::warn!(unsaid, "no group is formed: {why}");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(ROUND.1);
    }
}

async fn ask_partners(node: &Arc<Node>) -> BTreeMap<String, Standing> {
    let mut asked = JoinSet::new();
    for addr in node
        .founders
        .iter()
        .filter(|addr| **addr != node.settings.self_addr)
    {
        let pool = node.pools.pool(addr, 0, Lane::Message);
        let request = Request::Standing {
            founders: node.founders.clone(),
            claim: node.claim,
        };
        let addr = addr.clone();
        asked.spawn(async move { (addr, pool.call(&request, ASK).await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        if let Ok((addr, Ok(Response::Standing(standing)))) = answer {
            answers.insert(addr, standing);
        }
    }
    answers
}

/// Asks the presumed leader, and the one it names, to be admitted.
async fn ask_admission(node: &Node, mut leader: String, incarnation: u64) -> Option<(u64, u64)> {
    for _ in 0..3 {
        let pool = node.pools.pool(&leader, 0, Lane::Message);
        let request = Request::Join {
            addr: node.settings.self_addr.clone(),
            incarnation,
        };
        let why = match pool.call(&request, ADMISSION).await {
            Ok(Response::Join(JoinAnswer::Admitted {
                generation,
                foundation,
            })) => {
                return Some((generation, foundation));
            }
            Ok(Response::Join(JoinAnswer::Elsewhere { leader: Some(other) })) => {
                leader = other;
                continue;
            }
            Ok(Response::Join(JoinAnswer::Elsewhere { leader: None })) => "nobody leads".to_owned(),
            Ok(Response::Join(JoinAnswer::Later { why }) | Response::Removed(why)) => why,
            Ok(other) => format!("{other:?}"),
            Err(e) => e.to_string(),
        };
        if let Some(unsaid) = node.throttle.admit("join") {
            tracing::warn!(unsaid, "not admitted to the group yet by {leader}: {why}");
        }
        return None;
    }
    None
}

async fn put<T: Sealed>(node: &Node, key: Meta, value: &T) -> std::io::Result<()> {
    let (store, bytes) = (node.store()?, seal(value)?);
    blocking(move || store.put(key, bytes).map_err(std::io::Error::other)).await
}

/// Takes part as a founder; `formation` is durable.
async fn found(
    node: &Arc<Node>,
    machine: Box<dyn Machine>,
    formation: FormationBytes,
    record: &NodeBytes,
) -> std::io::Result<()> {
    let cluster = &node.settings.cluster;
    let member = |addr: &String| {
        let member = Member {
            addr: addr.clone(),
            incarnation: 0,
            generation: 0,
        };
        (node_id(cluster, addr, 0), member)
    };
    let members: BTreeMap<u64, Member> = formation.founders.iter().map(member).collect();
    let id = node_id(cluster, &node.settings.self_addr, 0);
    let _ = node.formation.set(formation);
    take_part(
        node,
        machine,
        Identity {
            id,
            incarnation: 0,
            generation: 0,
            foundation: record.foundation.max(FORMED),
        },
    )
    .await?;
    let Some(raft) = node.raft.get() else {
        return Ok(());
    };
    match raft.initialize(members).await {
        // Not allowed: this store has seen its group already, which is how every later start goes.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(std::io::Error::other(e)),
    }
}

/// Starts openraft under a durable id.
async fn take_part(node: &Arc<Node>, machine: Box<dyn Machine>, identity: Identity) -> std::io::Result<()> {
    let store = node.store()?;
    let settings = &node.settings;
    let config = config(
        settings.heartbeat_ms,
        settings.election_min_ms,
        settings.election_max_ms,
    );
    let config = Arc::new(config.validate().map_err(std::io::Error::other)?);
    node.assume(identity);
    let network = Network {
        pools: node.pools.clone(),
        append: Duration::from_millis(settings.election_max_ms * 2).max(Duration::from_secs(1)),
    };
    let state = {
        let store = store.clone();
        blocking(move || StateMachine::load(machine, store)).await?
    };
    let raft = Raft::new(identity.id, config, network, LogStore::new(store), state).await;
    let _ = node.raft.set(raft.map_err(std::io::Error::other)?);
    node.changed.notify_one();
    Ok(())
}

pub(crate) fn config(heartbeat_ms: u64, min_ms: u64, max_ms: u64) -> Config {
    Config {
        // openraft's limit for one heartbeat's answer; ours is the next heartbeat (`net::raft`). tokio would look at a
        // timer as short as that once more before it is taken back. Still below `election_min`, with a tick of 13/64.
        heartbeat_interval: heartbeat_ms * 12 / 5,
        election_timeout_min: min_ms,
        election_timeout_max: max_ms,
        // A node back from a pause or a partition must not depose a healthy leader.
        enable_pre_vote: Some(true),
        // A restarted leader asks for votes like everybody else.
        enable_leader_restore: Some(false),
        // The default of 200 ms sends large snapshots again and again.
        install_snapshot_timeout: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEPT,
        purge_batch_size: 256,
        // Above the snapshot interval, or a follower would be sent a snapshot for every hiccup.
        replication_lag_threshold: SNAPSHOT_EVERY * 2,
        backoff: "50ms 100ms ... 500ms".to_owned(),
        // With five voters, and three may become five, a leader without its quorum can hold two followers for ever.
        quorum_loss_probe_interval: Some(max_ms * 2),
        ..Config::default()
    }
}
