//! The synchronous set: who shall acknowledge commits, and when the change to it is complete.
//!
//! **Invariant.** Every set of copies that can have acknowledged a commit shares a copy with every set that may elect a
//! primary. The resolver below only says what the set *should* be; the order of steps that keeps the invariant is in
//! the nouns (`cluster/sync.rs`) and is the same for every change, wider or narrower:
//!
//! ```text
//! 1  Resync(new)    agreed         an election must meet old *and* new
//! 2  names          PostgreSQL     the primary writes new into synchronous_standby_names and reloads
//! 3  proof          primary        nobody waits by the old names any more, walsenders of dropped members are gone, and
//!                                  a record written after that is flushed by `count` members of new
//! 4  Settle         agreed         an election must meet new only
//! ```
//!
//! Interrupted anywhere, the agreed list still holds every quorum that PostgreSQL can be running: before 2 it runs an
//! older one, between 2 and 4 either. The tests replay every prefix of every change against a brute-force model of
//! who can acknowledge. Nothing follows a `Fence`: it ends the epoch that a proof must name.
//!
//! A standby that is gone is dropped after `synchronous_standby_timeout`; until then it may hold commits. Without any,
//! the primary acknowledges alone, unless `synchronous_mode_strict`: then nothing is acknowledged.

use super::rules::{Verdict, healthy_epoch, propose};
use super::view::{Heard, View, reach, streams};
use crate::cluster::{Act, Incarnation, Lsn, Member, MemberName, PostgresReport, Quorum, Settings, SyncMode};
use std::cmp::Reverse;

/// Stands in `synchronous_standby_names` where nobody may acknowledge; no member can be called so.
pub const NOBODY: &str = "(nobody)";

/// What PostgreSQL's `synchronous_standby_names` must say for a quorum.
pub fn names(quorum: &Quorum, mode: SyncMode) -> String {
    if quorum.is_blocked() {
        return format!("\"{NOBODY}\"");
    }
    if quorum.count == 0 {
        return String::new();
    }
    let list: Vec<String> = quorum.members.keys().map(quoted).collect();
    let some = mode == SyncMode::Quorum || (quorum.count as usize) < list.len();
    match (some, list.as_slice()) {
        (true, _) => format!("ANY {} ({})", quorum.count, list.join(",")),
        (false, [one]) => one.clone(),
        (false, _) => format!("{} ({})", quorum.count, list.join(",")),
    }
}

fn quoted(name: &MemberName) -> String {
    format!("\"{}\"", name.as_str().replace('"', "\"\""))
}

/// The primary proved the newest change.
pub(super) fn settled(view: &View<'_>) -> Option<Verdict> {
    let (name, epoch) = view.state.primacy.held()?;
    let synced = view.fresh(name)?.report.synced?;
    let serial = view.state.sync.serial;
    let proved = synced.epoch == epoch && synced.serial == serial && !view.state.sync.is_settled();
    proved.then_some(())?;
    let members = view.state.sync.current().map(told).unwrap_or_default();
    propose(
        Act::Settle { epoch, serial },
        format!("{name} proved it: {members}"),
    )
}

/// The set is not what it should be.
pub(super) fn changed(view: &View<'_>) -> Option<Verdict> {
    healthy_epoch(view)?;
    let sync = &view.state.sync;
    if view.settings.synchronous_mode == SyncMode::Off {
        return sync
            .is_on()
            .then(|| Verdict::Propose(Act::Resync { quorum: None }, "synchronous_mode is off".to_owned()));
    }
    let wanted = wanted(view)?;
    if sync.current() == Some(&wanted) {
        return None;
    }
    let reason = told(&wanted);
    propose(Act::Resync { quorum: Some(wanted) }, reason)
}

fn told(quorum: &Quorum) -> String {
    let members: Vec<&str> = quorum.members.keys().map(MemberName::as_str).collect();
    match (quorum.is_blocked(), quorum.count) {
        (true, _) => {
            "nobody is there to acknowledge, and synchronous_mode_strict forbids to go on alone".to_owned()
        }
        (_, 0) => format!("{} acknowledges alone", quorum.primary),
        (_, count) => format!("{count} of {} acknowledge", members.join(", ")),
    }
}

/// What should acknowledge while the present primary serves.
fn wanted(view: &View<'_>) -> Option<Quorum> {
    let (holder, epoch) = view.state.primacy.held()?;
    let copy = Some(view.state.member(holder)?.info.incarnation?);
    let settings = view.settings;
    let allowed = settings
        .synchronous_standby_timeout_ms
        .saturating_sub(settings.report_interval_ms);
    // A standby that was just added has yet to stream under the name that counts.
    let floor = view.lead_since.max(view.held_since).max(view.sync_since);
    // Only the primary's server tells that a stream moves: while it or its daemon is silent, that none moved is its
    // silence, not theirs.
    let told_at = view.heard.get(holder).map_or(view.now, Heard::said_at);
    let lag = lag_of(view, holder);
    let there = |member: &Member, heard: &Heard, counts: bool| {
        let name = &member.info.name;
        let now = view.fresh(name).is_some() && streams(&heard.report, epoch);
        let lately = told_at.since(heard.streamed_at.max(floor)) < allowed.max(1);
        let level = settings
            .maximum_lag_on_syncnode
            .is_none_or(|limit| lag(heard) <= limit);
        level
            && if counts {
                lately
            } else {
                now && member.fitness == crate::cluster::Fitness::Fit
            }
    };
    Some(chosen(view, holder, copy, there))
}

/// Where a standby is, as far as commits wait for it: what it has, or what it has replayed where they wait for that.
fn place(postgres: &PostgresReport, settings: &Settings) -> Option<Lsn> {
    let wanted = settings.postgresql.parameters.get("synchronous_commit");
    if wanted.is_some_and(|wanted| wanted == "remote_apply") {
        postgres.replayed
    } else {
        reach(postgres)
    }
}

/// Bytes behind the furthest standby, or behind the primary where there is only one, as Patroni counts.
fn lag_of<'a>(view: &'a View<'_>, holder: &'a MemberName) -> impl Fn(&Heard) -> u64 + 'a {
    let reaches: Vec<Lsn> = view
        .heard
        .iter()
        .filter(|(name, _)| *name != holder)
        .filter_map(|(name, _)| view.fresh(name))
        .filter_map(|heard| place(heard.report.postgres.as_ref()?, view.settings))
        .collect();
    let furthest = if reaches.len() > 1 {
        reaches.into_iter().max()
    } else {
        view.primary_position()
    };
    move |heard| {
        let postgres = heard.report.postgres.as_ref();
        let own = postgres.and_then(|postgres| place(postgres, view.settings));
        let own = own.unwrap_or_default();
        furthest.map_or(0, |furthest| own.behind(furthest))
    }
}

/// What should acknowledge once `winner` is primary: whoever runs as a standby of a known copy and can follow it.
pub(super) fn after(view: &View<'_>, winner: &MemberName, copy: Option<Incarnation>) -> Quorum {
    let promise = view.heard.get(winner).and_then(|heard| heard.report.promise);
    let fenced = promise.filter(|promise| Some(promise.epoch) == view.state.primacy.fencing());
    let limit = fenced.map(|promise| promise.end.lsn);
    let there = |member: &Member, heard: &Heard, _| {
        let running = heard.report.postgres.as_ref().is_some_and(|postgres| {
            postgres.role == crate::cluster::Role::Replica
                && postgres.state == crate::cluster::PostgresState::Running
        });
        // One that has more than the winner has to forget it first, and is another copy then.
        let own = heard.report.postgres.as_ref().and_then(reach);
        let settled = limit.is_none_or(|limit| own.is_some_and(|own| own <= limit));
        running && settled && view.fresh(&member.info.name).is_some()
    };
    if view.settings.synchronous_mode == SyncMode::Off {
        return Quorum::only(winner.clone(), copy);
    }
    chosen(view, winner, copy, there)
}

fn chosen(
    view: &View<'_>,
    primary: &MemberName,
    copy: Option<Incarnation>,
    there: impl Fn(&Member, &Heard, bool) -> bool,
) -> Quorum {
    let settings: &Settings = view.settings;
    let current = view.state.sync.current();
    let mut found: Vec<(&Member, Incarnation, bool, Lsn)> = view
        .state
        .members
        .values()
        .filter(|member| member.info.name != *primary && may_acknowledge(member))
        .filter(|member| !view.state.is_removed(&member.info.name))
        .filter_map(|member| {
            let copy = member.info.incarnation?;
            let heard = view.heard.get(&member.info.name)?;
            let counts = current.is_some_and(|quorum| quorum.members.get(&member.info.name) == Some(&copy));
            let same = heard.report.info.incarnation == Some(copy);
            let at = heard.report.postgres.as_ref().and_then(reach).unwrap_or_default();
            (same && there(member, heard, counts)).then_some((member, copy, counts, at))
        })
        .collect();
    let most = settings.synchronous_node_count.max(1);
    if settings.synchronous_mode == SyncMode::On {
        found.sort_by_key(|(member, _, counts, at)| {
            let name = member.info.name.clone();
            (
                Reverse(member.info.tags.sync_priority),
                Reverse(*counts),
                Reverse(*at),
                name,
            )
        });
        found.truncate(most as usize);
    }
    let members: std::collections::BTreeMap<_, _> = found
        .into_iter()
        .map(|(member, copy, ..)| (member.info.name.clone(), copy))
        .collect();
    let count = most.min(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let count = if settings.synchronous_mode_strict {
        count.max(1)
    } else {
        count
    };
    Quorum {
        primary: primary.clone(),
        copy,
        members,
        count,
    }
}

/// One that may never be promoted does not acknowledge: an election could need exactly its bytes.
fn may_acknowledge(member: &Member) -> bool {
    let tags = &member.info.tags;
    let may_lead = !tags.nofailover && tags.failover_priority > 0;
    !member.is_witness() && !tags.nosync && tags.sync_priority > 0 && may_lead
}

#[cfg(test)]
#[path = "sync_test.rs"]
mod tests;
