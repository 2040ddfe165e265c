//! Switchover and failover as operators ask for them: Patroni's checks, in its order, with its codes and texts.
//!
//! The checks say at once what cannot work; they are no part of safety, which `decide/handover.rs` argues. Two texts are
//! ours: a failover that could lose what was acknowledged wants `accept_data_loss`, and one handover at a time.

use super::orders::Judged;
use crate::cluster::schedule::schedule;
use crate::cluster::{Act, Done, Handover, HandoverOrder, MemberName, Revision, SyncMode, UnderWay, When};
use crate::decide::candidate;
use crate::decide::handover::{at_stake, chosen};
use crate::decide::view::View;

/// What an order comes to.
pub(super) fn ask(view: &View<'_>, order: &HandoverOrder) -> Judged {
    match check(view, order) {
        Err(No { done, passing: true }) => Judged::NotYet(done),
        Err(No { done, .. }) => Judged::Answer(done),
        Ok(asked) => {
            let done = match &asked.at {
                Some(_) => Done::text(202, format!("{} scheduled", title(asked.word()))),
                // What came of it is looked for by the node that was asked.
                None => Done::text(202, String::new()),
            };
            let (word, reason) = (asked.word(), told(&asked));
            Judged::Propose(Box::new(Act::Ask(asked)), word, reason, done)
        }
    }
}

/// Why not.
struct No {
    done: Done,
    /// It may be otherwise in a moment.
    passing: bool,
}

impl From<Done> for No {
    fn from(done: Done) -> Self {
        Self { done, passing: false }
    }
}

fn not_now(text: String, passing: bool) -> No {
    let done = Done::text(412, text);
    No { done, passing }
}

/// Forgets what is scheduled.
pub(super) fn cancel(view: &View<'_>) -> Judged {
    let scheduled = view.state.handover.as_ref();
    match scheduled.filter(|asked| asked.under_way.is_none()) {
        None => Judged::Answer(Done::text(404, "no switchover is scheduled")),
        Some(asked) => Judged::Propose(
            Box::new(Act::CallOff { asked: asked.asked }),
            "switchover",
            "an operator deleted the scheduled switchover".to_owned(),
            Done::text(200, "scheduled switchover deleted"),
        ),
    }
}

fn told(asked: &Handover) -> String {
    let name =
        |name: &Option<MemberName>, none: &str| name.as_ref().map_or(none.to_owned(), ToString::to_string);
    let (from, to) = (
        name(&asked.from, "whoever is primary"),
        name(&asked.to, "the best"),
    );
    let at = asked
        .at
        .as_ref()
        .map_or(String::new(), |at| format!(", scheduled for {}", at.iso));
    let loss = if asked.accept_loss {
        "; acknowledged rows may be lost"
    } else {
        ""
    };
    format!(
        "an operator asked for a {} from {from} to {to}{at}{loss}",
        asked.word()
    )
}

pub(super) fn title(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Judges alone: what will be recorded, or the answer that refuses it now.
///
/// # Errors
/// Patroni's code and text for what cannot be done.
pub fn judge_alone(view: &View<'_>, order: &HandoverOrder) -> Result<Handover, Done> {
    check(view, order).map_err(|no| no.done)
}

fn check(view: &View<'_>, order: &HandoverOrder) -> Result<Handover, No> {
    let refused = |text: String| Err(No::from(Done::text(400, text)));
    let candidate = order.candidate.as_deref();
    if order.failover && candidate.is_none() {
        return refused("Failover could be performed only to a specific candidate".to_owned());
    }
    // A failover from a named leader is a switchover.
    let failover = order.failover && order.leader.is_none();
    let action = if failover { "failover" } else { "switchover" };
    if !failover && order.leader.is_none() {
        return refused("Switchover could be performed only from a specific leader".to_owned());
    }
    let at = match &order.scheduled_at {
        Some(_) if failover => return refused("Failover can't be scheduled".to_owned()),
        Some(_) if view.state.pause.is_on() => {
            return refused("Can't schedule switchover in the paused state".to_owned());
        }
        Some(text) => Some(schedule(text, action, view.wall_ms)?),
        None => None,
    };
    if view.state.pause.is_on() && candidate.is_none() {
        let text = "Switchover is possible only to a specific candidate in a paused state";
        return refused(text.to_owned());
    }
    if !failover && order.leader.as_deref() == candidate {
        return refused("Switchover target and source are the same".to_owned());
    }
    if let Some(present) = view
        .state
        .handover
        .as_ref()
        .filter(|asked| asked.under_way.is_some())
        && !(failover && view.holding().is_none())
    {
        let text = format!("a {} is under way already", present.word());
        return Err(Done::text(409, text).into());
    }
    let to = candidate.map(MemberName::from);
    let under_way = match at {
        Some(_) => None,
        None => Some(begins(view, order, failover, action)?),
    };
    known(view, order, &to, &at)?;
    Ok(Handover {
        failover,
        from: order.leader.as_deref().map(MemberName::from),
        to,
        at,
        accept_loss: failover && order.accept_data_loss,
        under_way,
        asked: Revision(0),
    })
}

/// What is scheduled is not checked for whether it could be done now, but its names must be members' at least.
fn known(
    view: &View<'_>,
    order: &HandoverOrder,
    to: &Option<MemberName>,
    at: &Option<When>,
) -> Result<(), Done> {
    let is_member = |name: &MemberName| view.state.member(name).is_some();
    if at.is_some() && !to.iter().all(is_member) {
        return Err(Done::text(412, "candidate does not exists"));
    }
    if at.is_some()
        && !order
            .leader
            .as_deref()
            .map(MemberName::from)
            .iter()
            .all(is_member)
    {
        return Err(Done::text(412, "leader name does not match"));
    }
    Ok(())
}

/// Whether it can be done at once, and to whom.
fn begins(view: &View<'_>, order: &HandoverOrder, failover: bool, action: &str) -> Result<UnderWay, No> {
    let none_good = |passing| {
        let text = format!("{action} is not possible: no good candidates have been found");
        not_now(text, passing)
    };
    let never = |text: String| Err(not_now(text, false));
    let (holder, epoch) = view.state.primacy.last().ok_or_else(|| none_good(false))?;
    if !failover {
        let leads = order.leader.as_deref() == Some(holder.as_str());
        if !leads || view.holding().is_none() {
            // A primary that is being started again is back in a moment.
            return Err(not_now("leader name does not match".to_owned(), leads));
        }
    }
    let synchronous = view.settings.synchronous_mode == SyncMode::On;
    let counts = |name: &MemberName| {
        let copy = view.state.member(name).and_then(|member| member.info.incarnation);
        view.state.sync.acknowledges(name, copy)
    };
    let to = order.candidate.as_deref().map(MemberName::from);
    match &to {
        Some(to) => {
            if !failover && synchronous && !counts(to) {
                return never("candidate name does not match with sync_standby".to_owned());
            }
            if view.state.member(to).is_none() {
                return never("candidate does not exists".to_owned());
            }
        }
        None => {
            let mut others = view
                .state
                .members
                .iter()
                .filter(|(name, member)| *name != holder && !member.is_witness());
            if synchronous && !others.clone().any(|(name, _)| counts(name)) {
                return never(format!("{action} is not possible: can not find sync_standby"));
            }
            if others.next().is_none() {
                return never(format!(
                    "{action} is not possible: cluster does not have members except leader"
                ));
            }
        }
    }
    let to = match to.as_ref().filter(|_| failover) {
        None => chosen(view, to.as_ref()).map_err(|unready| {
            tracing::info!("{action}: {}", unready.why);
            none_good(unready.passing)
        })?,
        Some(to) => fails_over(view, order, to).map_err(|why| match why {
            Stakes::Unfit(why) => {
                tracing::info!("{action} to {to}: {why}");
                none_good(candidate::is_coming(view, to))
            }
            Stakes::Loss(why) => not_now(
                format!(
                    "failover is not possible without the risk to lose what was acknowledged: {why}; \
                     if that may be lost, repeat the request with \"accept_data_loss\": true"
                ),
                view.holding().is_some() && candidate::is_coming(view, to),
            ),
        })?,
    };
    Ok(UnderWay { epoch, to })
}

/// What stands against the member that an operator named for a failover.
enum Stakes {
    Unfit(String),
    Loss(String),
}

fn fails_over(view: &View<'_>, order: &HandoverOrder, to: &MemberName) -> Result<MemberName, Stakes> {
    candidate::named(view, to).map_err(Stakes::Unfit)?;
    match at_stake(view, to).filter(|_| !order.accept_data_loss) {
        None => Ok(to.clone()),
        Some(why) => Err(Stakes::Loss(why)),
    }
}

#[cfg(test)]
#[path = "handover_test.rs"]
mod tests;
