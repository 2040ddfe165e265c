//! A failover that waits for no clock: fence an epoch, hear where the logs end, elect the furthest.
//!
//! Only where commits wait for standbys. The argument, for the quorums that are agreed (`cluster/sync.rs`):
//!
//! 1. A commit acknowledged in an epoch below `e'` was flushed by the primary and by `count` members of one agreed
//!    quorum: the primary's names are always those of a quorum in the list.
//! 2. A copy that promised `e'` acknowledges nothing of an older epoch any more, and never will: the promise is on disk
//!    before its stream is ended, the stream is seen gone before the end of the log is read, and after any crash it
//!    follows nothing older. A primary promises only when no process of its epoch lives.
//! 3. The copies that promised share one with every set that could have acknowledged. So no further commit of an older
//!    epoch is acknowledged, and every one that was is on one of the copies that were heard.
//! 4. Logs are prefixes of one another up to forks that this cluster agreed on, so the furthest of those logs (timeline
//!    first, then the end of the last whole record) has them all. It is elected, with its copy named. So may a shorter
//!    one, if the copies no longer than it already share one with every such set: the rest was acknowledged to nobody.
//! 5. It opens the gate only after a record of its own is flushed by the new quorum; until that is proved the old
//!    quorums stay in the list, and a further election has to meet them as well.
//!
//! No clock, lease or watchdog occurs in it: the old primary may be paused, cut off or arbitrarily slow, its guard ends
//! it when its lease does. A committed fence is never taken back: if the last primary turns up and no winner is proven,
//! it starts again in an epoch of its own. `fence_after: 0` is the switch: the same proof, after the lease is over.

use super::handover;
use super::rules::{Verdict, next_timeline, propose, stand};
use super::sync;
use super::view::{Heard, View};
use crate::cluster::{
    Act, Epoch, Incarnation, Member, MemberName, Moment, PostgresState, Promise, Role, Tenure, WalEnd,
};
use std::cmp::Reverse;

/// How long the proof is awaited before a last primary that is there is started again instead.
const PROOF_MS: u64 = 300;

/// A copy that promised, and where its log ends.
struct Heir<'a> {
    member: &'a Member,
    heard: &'a Heard,
    end: WalEnd,
}

pub(super) fn fence(view: &View<'_>) -> Option<Verdict> {
    let (name, epoch) = gone(view)?;
    may_begin(view).then_some(())?;
    let why = match view.ended() {
        Some((_, _, why)) => format!("{name} ended its epoch ({why}) and cannot be started again"),
        None => format!("{name} is silent"),
    };
    let hope = provable(view) && view.state.members.values().any(|member| could_lead(view, member));
    hope.then_some(())?;
    let next = view.state.epoch.next();
    propose(
        Act::Fence { epoch: next },
        format!("{why}; epoch {epoch} ends by the promise of the others"),
    )
}

pub(super) fn unprovable(view: &View<'_>) -> Option<Verdict> {
    let (name, _) = gone(view)?;
    if !may_begin(view) {
        return None;
    }
    let missing = missing(view, |name, copy| running_copy(view, name, copy));
    stand(format!(
        "{name} is gone; to know what was acknowledged, one more of these must be heard: {missing}"
    ))
}

/// The holder, if commits wait for standbys and it is neither heard of nor to be started again.
pub(super) fn gone<'a>(view: &'a View<'_>) -> Option<(&'a MemberName, Epoch)> {
    view.state.sync.is_on().then_some(())?;
    let held = view.state.primacy.held()?;
    let away = view.fresh(held.0).is_none() || silent(view, held.0) || deaf(view);
    (view.ended().is_some() || away).then_some(held)
}

/// A holder that has been silent for this long may be fenced, milliseconds.
pub(super) fn limit_ms(view: &View<'_>) -> u64 {
    match view.settings.fence_after_ms {
        0 => view.silence_ms(),
        ms => ms.max(2 * view.settings.report_interval_ms),
    }
}

fn silent(view: &View<'_>, name: &MemberName) -> bool {
    let heard = view.heard.get(name).map_or(Moment(0), |heard| heard.at);
    view.now.since(heard.max(view.lead_since).max(view.held_since)) >= limit_ms(view)
}

/// It is heard, but for longer than any lease not as the holder: it does not hear what is agreed.
fn deaf(view: &View<'_>) -> bool {
    view.holding().is_none() && view.now >= view.move_at()
}

fn may_begin(view: &View<'_>) -> bool {
    let Some((name, _)) = view.state.primacy.held() else {
        return false;
    };
    let by_proof = view.settings.fence_after_ms > 0;
    // The proof needs no clock: after a pause that left the primary without a deadline it is not awaited for ever.
    let patient_until = if by_proof && !view.state.pause.is_on() {
        view.bounded_at()
    } else {
        view.move_at()
    };
    let at_once = by_proof && !still_serves(view, name);
    view.ended().is_some() || silent(view, name) && at_once || view.now >= patient_until
}

/// Only its daemon is silent: it may be restarted within the lease, and no session need be lost.
fn still_serves(view: &View<'_>, holder: &MemberName) -> bool {
    let others = view.state.members.keys().filter(|name| *name != holder);
    others
        .filter_map(|name| view.fresh(name))
        .any(|heard| heard.report.primary_answers == Some(true))
}

/// Whether the copies that can promise now would be enough.
fn provable(view: &View<'_>) -> bool {
    view.state
        .sync
        .met_by(|name, copy| running_copy(view, name, copy))
}

/// Who else must be heard to know what was acknowledged; `None` when those that are heard are enough.
pub(super) fn unheard(view: &View<'_>) -> Option<String> {
    (!provable(view)).then(|| missing(view, |name, copy| running_copy(view, name, copy)))
}

fn running_copy(view: &View<'_>, name: &MemberName, copy: Option<Incarnation>) -> bool {
    let heard = view
        .fresh(name)
        .filter(|heard| copy.is_some() && heard.report.info.incarnation == copy);
    heard.is_some_and(|heard| is_standby(heard) || is_readable(heard))
}

/// Its server is down, and where its log ends can be read from its disk.
fn is_readable(heard: &Heard) -> bool {
    let down = |state| matches!(state, PostgresState::Stopped | PostgresState::Crashed);
    let postgres = heard.report.postgres.as_ref();
    postgres.is_some_and(|p| p.system_id.is_some() && down(p.state))
}

fn is_standby(heard: &Heard) -> bool {
    let postgres = heard.report.postgres.as_ref();
    postgres.is_some_and(|p| p.role == Role::Replica && p.state == PostgresState::Running)
}

fn could_lead(view: &View<'_>, member: &Member) -> bool {
    let tags = &member.info.tags;
    let name = &member.info.name;
    let may = !member.is_witness()
        && !view.state.is_removed(name)
        && !tags.nofailover
        && tags.failover_priority > 0;
    may && matters(view, name, member.info.incarnation)
        && view
            .fresh(name)
            .is_some_and(|heard| is_standby(heard) && heard.report.unpromotable.is_none())
}

/// A copy that acknowledges, or wrote.
fn matters(view: &View<'_>, name: &MemberName, copy: Option<Incarnation>) -> bool {
    let wrote = |quorum: &crate::cluster::Quorum| quorum.primary == *name && quorum.copy == copy;
    view.state.sync.counts(name, copy) || view.state.sync.quorums.iter().any(wrote)
}

fn missing(view: &View<'_>, heard: impl Fn(&MemberName, Option<Incarnation>) -> bool) -> String {
    let unmet = view
        .state
        .sync
        .quorums
        .iter()
        .find(|quorum| !quorum.met_by(&heard));
    let names = unmet.map(|quorum| quorum.lacks(&heard)).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    if names.is_empty() {
        "any member that may be promoted".to_owned()
    } else {
        names.join(", ")
    }
}

/// What a member promised for the epoch that is being fenced, with the copy that is agreed. A word that is remembered of
/// one that is gone would be as true, but its copy cannot be elected, and any set that meets the quorums is enough.
fn promise<'a>(view: &'a View<'_>, name: &MemberName, epoch: Epoch) -> Option<(&'a Heard, Promise)> {
    let heard = view.fresh(name)?;
    let same = heard.report.info.incarnation == view.state.member(name)?.info.incarnation;
    let promise = heard
        .report
        .promise
        .filter(|promise| promise.epoch == epoch && same)?;
    Some((heard, promise))
}

fn promised(view: &View<'_>, name: &MemberName, copy: Option<Incarnation>, epoch: Epoch) -> bool {
    promise(view, name, epoch)
        .is_some_and(|(heard, _)| copy.is_some() && heard.report.info.incarnation == copy)
}

pub(super) fn proven(view: &View<'_>) -> Option<Verdict> {
    let epoch = view.state.primacy.fencing()?;
    let (holder, _) = view.state.primacy.last()?;
    let mut heirs: Vec<Heir<'_>> = view
        .state
        .members
        .values()
        .filter(|member| matters(view, &member.info.name, member.info.incarnation))
        .filter_map(|member| {
            let (heard, promise) = promise(view, &member.info.name, epoch)?;
            Some(Heir {
                member,
                heard,
                end: promise.end,
            })
        })
        .collect();
    heirs.sort_by_key(|heir| {
        let info = &heir.member.info;
        (
            Reverse(heir.end),
            Reverse(info.tags.failover_priority),
            info.name.clone(),
        )
    });
    let first = heirs.iter().find(|heir| has_everything(view, &heirs, heir))?;
    let able = |heir: &&Heir<'_>| could_lead(view, heir.member) && has_everything(view, &heirs, heir);
    let wish = handover::preferred(view);
    let best = heirs.iter().filter(able);
    if let Some(best) = best.min_by_key(|heir| Some(&heir.member.info.name) != wish) {
        let name = &best.member.info.name;
        let reason = format!(
            "{name} has everything that was acknowledged, up to {}",
            best.end.lsn
        );
        return elect(view, name, reason);
    }
    let owner = |heir: &&Heir<'_>| heir.member.info.name == *holder && has_everything(view, &heirs, heir);
    if heirs
        .iter()
        .find(owner)
        .is_some_and(|heir| can_restart(view, heir.heard))
    {
        let reason = "no other that has everything that was acknowledged can be promoted".to_owned();
        return restart(view, holder, reason);
    }
    let name = &first.member.info.name;
    stand(format!(
        "{name} has everything that was acknowledged, but it cannot be promoted now"
    ))
}

/// Whether the copies whose logs are no longer than this one's share one with every set that could have acknowledged:
/// then its log has all of it. What a longer log has beyond was acknowledged to nobody.
fn has_everything(view: &View<'_>, heirs: &[Heir<'_>], heir: &Heir<'_>) -> bool {
    view.state.sync.met_by(|name, copy| {
        let same = |other: &&Heir<'_>| {
            other.member.info.name == *name && copy.is_some() && other.member.info.incarnation == copy
        };
        heirs.iter().find(same).is_some_and(|other| other.end <= heir.end)
    })
}

/// Proposes an election with what acknowledges after it.
pub(super) fn elect(view: &View<'_>, name: &MemberName, reason: String) -> Option<Verdict> {
    let copy = view.state.member(name)?.info.incarnation;
    let act = Act::Elect {
        member: name.clone(),
        copy,
        epoch: view.state.epoch.next(),
        timeline: next_timeline(view),
        quorum: sync::after(view, name, copy),
    };
    propose(act, reason)
}

/// Everything acknowledged is on the last primary's own disk, so it may always go on.
pub(super) fn holder_returned(view: &View<'_>) -> Option<Verdict> {
    view.state.primacy.fencing()?;
    let (holder, _) = view.state.primacy.last()?;
    let heard = view.fresh(holder)?;
    let waited = view.now.since(view.held_since.max(view.lead_since)) >= PROOF_MS;
    (waited && can_restart(view, heard)).then_some(())?;
    restart(
        view,
        holder,
        format!("{holder} is back, and too few of the others promised"),
    )
}

fn can_restart(view: &View<'_>, heard: &Heard) -> bool {
    let (confirmed, last) = (view.state.is_confirmed(), view.state.primacy.last());
    let ended = matches!(heard.report.tenure, Tenure::Ended { epoch, .. } if last.is_some_and(|(_, held)| held == epoch));
    // Also one that never began the epoch it was given has promised not to.
    let promised = heard.report.promise.map(|promise| promise.epoch);
    let over = ended || promised.is_some() && promised == view.state.primacy.fencing();
    let there = view.fresh(heard.report.member()).is_some() && heard.report.unpromotable.is_none();
    confirmed && over && there
}

fn restart(view: &View<'_>, name: &MemberName, reason: String) -> Option<Verdict> {
    let act = Act::Restart {
        member: name.clone(),
        epoch: view.state.epoch.next(),
    };
    propose(act, reason)
}

pub(super) fn proof_wanting(view: &View<'_>) -> Option<Verdict> {
    let epoch = view.state.primacy.fencing()?;
    let missing = missing(view, |name, copy| promised(view, name, copy, epoch));
    stand(format!(
        "epoch {epoch} is being promised; wanted is the word of one more of {missing}"
    ))
}
