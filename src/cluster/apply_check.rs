//! The invariants of the replicated state, checked after every change.

use super::state::State;

/// What must hold between any state and the next one.
pub(super) fn check(old: &State, new: &State) -> Result<(), &'static str> {
    let moved = new.primacy != old.primacy;
    let same_holder = new.primacy.held() == old.primacy.held() && old.primacy.held().is_some();
    if new.epoch < old.epoch || new.reserved < old.reserved {
        return Err("epochs and timelines only grow");
    }
    if moved && !same_holder && new.epoch == old.epoch {
        return Err("a change of primary needs a new epoch");
    }
    if old.system_id.is_some() && new.system_id != old.system_id {
        return Err("the system identifier never changes");
    }
    if old.first.is_some() && new.first != old.first {
        return Err("the first timeline never changes");
    }
    if new.wait_ttl_ms < new.ttl_ms {
        return Err("waits must cover the ttl in force");
    }
    // What a quorum acknowledged is forgotten only with the proof that a newer one has it, or with the mode.
    if !new.sync.quorums.is_empty()
        && old.sync.serial != new.sync.serial
        && old
            .sync
            .quorums
            .iter()
            .any(|quorum| !new.sync.quorums.contains(quorum))
    {
        return Err("a quorum is dropped only by the newest one's proof");
    }
    if new
        .timelines
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.timeline >= b.timeline))
    {
        return Err("the list of timelines only grows");
    }
    Ok(())
}
