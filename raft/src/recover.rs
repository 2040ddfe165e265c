//! Makes one survivor of a dead majority a group of its own, while its daemon is stopped.
//!
//! Whatever the survivor's log holds is kept, entries included that it cannot know to be committed; what only the others
//! had is lost. The result is a snapshot with this node as the only member, in a later term, and a later *foundation*:
//! both sides of a handshake name theirs, and refuse each other where they differ. So the others, if they come back, cannot
//! count this node's vote or give it theirs; those that meet it learn that their group was given up and stop
//! (`farewell`). Two of them that meet each other but not this node can still elect a leader: that the old members are down, and
//! stay down until their Raft directories are gone, is what the operator has to be sure of.
//!
//! The order of the writes makes a crash harmless: the foundation first, from which on nobody else counts; then the
//! snapshot, the log's end and the vote. Running it again completes it.

use matriarch_storage::{Log, Meta};
use std::collections::{BTreeMap, BTreeSet};

use crate::errors::StartError;
use crate::form::FORMED;
use crate::machine::Machine;
use crate::settings::Settings;
use crate::start::{load, open_store};
use crate::status::Lead;
use crate::store::log::LogStore;
use crate::store::machine::{load_snapshot, save_snapshot};
use crate::types::{LogId, Member, Membership, SnapshotMeta, StoredMembership, node_id, random};
use crate::wire::envelope::seal;
use crate::wire::stored::{EntryBytes, FormationBytes, LogIdBytes, NodeBytes, PayloadBytes, VoteBytes};

/// What a recovery found and made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// This node's Raft id, which it keeps.
    pub id: u64,
    /// Addresses of the members that were given up.
    pub given_up: Vec<String>,
    /// Index of the log's end.
    pub last_log: u64,
    /// The new foundation.
    pub foundation: u64,
}

/// Rewrites the store of `settings`. `machine` is given the whole log; then `edit` sees what will be and the machine's
/// state, and makes of it the state that the new group begins with, or says why not: then nothing is changed.
pub fn recover(
    settings: &Settings,
    mut machine: Box<dyn Machine>,
    edit: impl FnOnce(&Recovered, Vec<u8>) -> Result<Vec<u8>, String>,
) -> Result<Recovered, StartError> {
    let unusable = |why: String| StartError::Store {
        dir: settings.data_dir.clone(),
        why,
    };
    let failed = |e: std::io::Error| unusable(e.to_string());
    if settings.self_addr.is_empty() {
        return Err(unusable(
            "a node without self_addr has no vote and keeps nothing to recover from".to_owned(),
        ));
    }
    if !settings.data_dir.join("identity").exists() {
        return Err(unusable(
            "there is none, so this node belongs to no group".to_owned(),
        ));
    }
    let store = open_store(settings)?;
    let record = load::<NodeBytes>(store.as_ref(), Meta::Node).map_err(failed)?;
    let formation = load::<FormationBytes>(store.as_ref(), Meta::Formation).map_err(failed)?;
    let mut record = record
        .filter(|record| record.admitted || formation.is_some())
        .ok_or_else(|| unusable("this node never belonged to a group".to_owned()))?;
    if record.addr != settings.self_addr {
        let why = format!(
            "it belongs to {}, but self_addr is {}",
            record.addr, settings.self_addr
        );
        return Err(unusable(why));
    }
    let incarnation = if formation.is_some() {
        0
    } else {
        record.incarnation
    };
    let id = node_id(&settings.cluster, &record.addr, incarnation);
    let (last, membership) = replay(store.as_ref(), machine.as_mut()).map_err(failed)?;
    let vote = LogStore::new(store.clone()).stored_vote().map_err(failed)?;
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.term) + 1;
    let last = LogIdBytes {
        term,
        node: id,
        index: last.index + 1,
    };
    // The upper half counts the foundations, the lower keeps two recoveries of one group apart.
    let salt = u64::from(u32::from_le_bytes(random().map_err(failed)?));
    let count = (record.foundation.max(FORMED) >> 32) + 1;
    let foundation = (count << 32) | salt;
    let member = Member {
        addr: record.addr.clone(),
        incarnation,
        generation: if formation.is_some() { 0 } else { record.generation },
    };
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, member)]));
    let alone = alone.map_err(|e| unusable(e.to_string()))?;
    let at = LogId::from(last.clone());
    let meta = SnapshotMeta {
        last_log_id: Some(at),
        last_membership: StoredMembership::new(Some(at), alone),
    };
    let recovered = Recovered {
        id,
        given_up: others(&membership, id),
        last_log: last.index,
        foundation,
    };
    let state = edit(&recovered, machine.snapshot()).map_err(StartError::Declined)?;
    record.foundation = foundation;
    let put = |key: Meta, bytes: Vec<u8>| store.put(key, bytes).map_err(|e| unusable(e.to_string()));
    put(Meta::Node, seal(&record).map_err(|e| unusable(e.to_string()))?)?;
    save_snapshot(store.as_ref(), &meta, &state).map_err(failed)?;
    let pointer = seal(&last).map_err(|e| unusable(e.to_string()))?;
    store
        .purge_to(last.index, pointer.clone())
        .map_err(|e| unusable(e.to_string()))?;
    put(Meta::Committed, pointer)?;
    let vote = VoteBytes {
        term,
        node: id,
        committed: false,
    };
    put(Meta::Vote, seal(&vote).map_err(|e| unusable(e.to_string()))?)?;
    Ok(recovered)
}

fn others(membership: &Membership, id: u64) -> Vec<String> {
    let others = membership.nodes().filter(|(other, _)| **other != id);
    others.map(|(_, member)| member.addr.clone()).collect()
}

/// Applies everything that is stored; answers where the log ends and the newest membership in it.
fn replay(store: &dyn Log, machine: &mut dyn Machine) -> std::io::Result<(LogIdBytes, Membership)> {
    let halted = |halt: crate::machine::Halt| std::io::Error::other(halt.why);
    let mut last = LogIdBytes {
        term: 0,
        node: 0,
        index: 0,
    };
    let mut membership = Membership::default();
    let mut from = 0;
    if let Some(snapshot) = load_snapshot(store)? {
        machine.restore(&snapshot.snapshot).map_err(halted)?;
        membership = snapshot.meta.last_membership.membership().clone();
        if let Some(at) = &snapshot.meta.last_log_id {
            (last, from) = (at.into(), at.index + 1);
        }
    }
    for (_, bytes) in store
        .read(from, u64::MAX, usize::MAX)
        .map_err(std::io::Error::other)?
    {
        let entry: EntryBytes = crate::wire::envelope::open(&bytes)?;
        let lead = Lead {
            term: entry.id.term,
            node: entry.id.node,
        };
        match entry.payload {
            PayloadBytes::Blank => {}
            PayloadBytes::Command(command) => {
                machine.apply(lead, &command).map_err(halted)?;
            }
            PayloadBytes::Membership(found) => membership = found.try_into()?,
        }
        last = entry.id;
    }
    Ok((last, membership))
}
