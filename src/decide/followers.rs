//! Who has the right to be promoted: it is lost by not following a healthy primary, and regained by following closely.

use super::rules::{Verdict, healthy_epoch, propose};
use super::view::{View, follows};
use crate::cluster::{Act, Epoch, Fitness, MemberName};

/// How long a standby may fail to follow a healthy primary before it loses the right to be promoted.
pub const UNFIT_AFTER_MS: u64 = 10_000;

/// One question for losing and regaining the right, so that the two never undo each other.
fn is_follower(view: &View<'_>, name: &MemberName, epoch: Epoch) -> bool {
    let limit = view.settings.maximum_lag_on_failover;
    view.fresh(name)
        .is_some_and(|heard| follows(&heard.report, epoch, view.primary_position(), limit))
}

pub(super) fn lost_right(view: &View<'_>) -> Option<Verdict> {
    let epoch = healthy_epoch(view)?;
    let (holder, _) = view.state.primacy.held()?;
    let settled = view.lead_since.max(view.held_since).plus(UNFIT_AFTER_MS);
    (view.now >= settled).then_some(())?;
    let member = view.state.members.values().find(|member| {
        member.info.name != *holder
            && !member.is_witness()
            && member.fitness == Fitness::Fit
            && !is_follower(view, &member.info.name, epoch)
            && view
                .heard
                .get(&member.info.name)
                .is_none_or(|heard| view.now.since(heard.followed_at) >= UNFIT_AFTER_MS)
    })?;
    let why = format!("it has not followed the primary of epoch {epoch} since ten seconds or more");
    let name = member.info.name.clone();
    propose(
        Act::Judge {
            member: name.clone(),
            fitness: Fitness::Unfit(why),
        },
        format!("{name} does not follow"),
    )
}

pub(super) fn regained_right(view: &View<'_>) -> Option<Verdict> {
    let epoch = healthy_epoch(view)?;
    let (holder, _) = view.state.primacy.held()?;
    let member = view.state.members.values().find(|member| {
        let name = &member.info.name;
        member.fitness != Fitness::Fit && (name == holder || is_follower(view, name, epoch))
    })?;
    let name = member.info.name.clone();
    propose(
        Act::Judge {
            member: name.clone(),
            fitness: Fitness::Fit,
        },
        format!("{name} follows closely"),
    )
}
