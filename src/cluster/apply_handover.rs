//! How what operators ask of primacy is recorded, begins, and is over: the part of `apply` that is about handovers.
//!
//! A handover never moves primacy: it makes the primary end its epoch and names who is preferred after it. Whatever ends
//! it, what is agreed about primacy stands for itself.

use super::command::Act;
use super::handover::{Handover, UnderWay};
use super::ids::{Epoch, MemberName, Revision};
use super::primacy::Primacy;
use super::state::State;

pub(super) fn ask(state: &mut State, asked: &Handover) -> Result<(), String> {
    if let Some(present) = state
        .handover
        .as_ref()
        .filter(|present| !asked.failover && present.under_way.is_some())
    {
        return Err(format!("a {} is under way", present.word()));
    }
    for name in asked.from.iter().chain(&asked.to) {
        if state.member(name).is_none() {
            return Err(format!("no member is named {name}"));
        }
    }
    if let Some(begun) = &asked.under_way {
        may_begin(state, begun.epoch, &begun.to)?;
    }
    let asked = Handover {
        asked: state.revision.next(),
        ..asked.clone()
    };
    state.handover = Some(asked);
    Ok(())
}

pub(super) fn begin(state: &mut State, epoch: Epoch, to: &MemberName) -> Result<(), String> {
    may_begin(state, epoch, to)?;
    let asked = state.handover.as_mut().filter(|asked| asked.under_way.is_none());
    let asked = asked.ok_or("no switchover is scheduled")?;
    asked.under_way = Some(UnderWay {
        epoch,
        to: to.clone(),
    });
    Ok(())
}

fn may_begin(state: &State, epoch: Epoch, to: &MemberName) -> Result<(), String> {
    let Some((holder, held)) = state.primacy.last() else {
        return Err("there is no primary yet".to_owned());
    };
    if held != epoch {
        return Err(format!("the epoch is {held}, not {epoch}"));
    }
    let target = state
        .member(to)
        .ok_or_else(|| format!("no member is named {to}"))?;
    if target.is_witness() {
        return Err(format!("{to} is a witness and holds no data"));
    }
    if holder == to && state.primacy.held().is_some() {
        return Err(format!("{to} is the primary"));
    }
    Ok(())
}

pub(super) fn call_off(state: &mut State, asked: Revision) -> Result<(), String> {
    match &state.handover {
        Some(present) if present.asked == asked => {
            state.handover = None;
            Ok(())
        }
        _ => Err("it is over already".to_owned()),
    }
}

/// Whether the handover of the last holder's epoch is under way for this member.
pub(super) fn is_for(state: &State, member: &MemberName) -> bool {
    let last = state.primacy.last().map(|(_, epoch)| epoch);
    let begun = state.handover.as_ref().and_then(|asked| asked.of(last?));
    begun.is_some_and(|begun| begun.to == *member)
}

/// One that is under way is over with the first promotion that is confirmed, or when the primary starts again, or when
/// somebody else's turn has come after that.
pub(super) fn follow_up(old: &State, new: &mut State, act: &Act) {
    let Some(begun) = new.handover.as_ref().and_then(|asked| asked.under_way.clone()) else {
        return;
    };
    let was_its_epoch = old.primacy.last().is_some_and(|(_, epoch)| epoch == begun.epoch);
    let over = match act {
        Act::Restart { .. } => true,
        Act::Promoted(_) | Act::Promote { .. } | Act::Elect { .. } => !was_its_epoch,
        _ => false,
    };
    // The member that it was for may be gone.
    if over || !new.members.contains_key(&begun.to) || matches!(new.primacy, Primacy::Vacant) {
        new.handover = None;
    }
}
