//! Maintenance mode: nothing moves by itself, and how it ends.
//!
//! Safety is in `View::move_at`, which never comes while the primary may be without a deadline (`cluster/pause.rs`); the
//! row here keeps automatic moves away that would be safe, because an operator works on the servers. What an operator
//! orders stands above it in the table; an epoch whose fence is committed is brought to its end in any case.

use super::fence;
use super::rules::{Verdict, propose, stand};
use super::view::View;
use crate::cluster::{Act, Pause};

/// The primary's deadline stands again, or there is none that could be without.
pub(super) fn resumed(view: &View<'_>) -> Option<Verdict> {
    let Pause::Ending { since } = view.state.pause else {
        return None;
    };
    let rearmed = |heard: &super::view::Heard| heard.report.rearmed.is_some_and(|at| at >= since);
    let over = view.ended().is_some() || view.state.system_id.is_none();
    let (why, proved) = match view.holding() {
        Some(heard) => (
            format!("the deadline of {} stands again", heard.report.member()),
            rearmed(heard),
        ),
        None => ("the primary's epoch is over".to_owned(), over),
    };
    proved.then_some(())?;
    propose(Act::Resumed { since }, why)
}

/// A primary without a deadline serves on whether it hears the leader or not; one that does not would never learn what
/// is agreed, of the synchronous set least of all.
pub(super) fn resuming(view: &View<'_>) -> Option<Verdict> {
    let ending = matches!(view.state.pause, Pause::Ending { .. });
    let heard = view.holding().filter(|_| ending && fence::gone(view).is_none())?;
    stand(format!(
        "{} has not said since the pause that its deadline stands again",
        heard.report.member()
    ))
}

/// Hands off.
pub(super) fn paused(view: &View<'_>) -> Option<Verdict> {
    let ordered = view
        .state
        .handover
        .as_ref()
        .is_some_and(|asked| asked.under_way.is_some());
    (view.state.pause.is_on() && !ordered).then_some(())?;
    let (holder, _) = view.state.primacy.held()?;
    let is_well = view.ended().is_none() && view.holding().is_some() && fence::gone(view).is_none();
    (!is_well).then_some(())?;
    stand(format!(
        "{holder} is not serving, and the cluster is paused: nothing is done about it"
    ))
}
