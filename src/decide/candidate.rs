//! Who may be promoted, who is best, and why each other may not: one check and one comparison.
//!
//! The order is the furthest log first, then `failover_priority`, least replay lag, name: a tag never outweighs
//! a byte that was acknowledged to somebody (Patroni's users rely on that too).

use super::rules::healthy_epoch;
use super::view::{Heard, View, reach, streams};
use crate::cluster::{Fitness, Lsn, MemberName, PostgresState, Role};
use std::cmp::Reverse;

/// A member that may be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub name: MemberName,
    /// How far its log reaches.
    pub reach: Lsn,
    /// It has followed a primary since its own start; one that has not may have been away for days.
    pub warm: bool,
}

/// Why a member may not be promoted; `None` when it may.
pub fn why_not(view: &View<'_>, name: &MemberName) -> Option<String> {
    judge(view, name, Bar::Rules).err()
}

/// The same for one whom an operator named: it need not have the right to be promoted, nor count in the synchronous
/// set, nor be close. What must not be lost is asked by whoever promotes it.
pub fn named(view: &View<'_>, name: &MemberName) -> Result<Candidate, String> {
    judge(view, name, Bar::Named).map(|(candidate, ..)| candidate)
}

/// Whether what bars a member may be over in a moment: it is heard, nothing that is configured or agreed bars it, and its
/// server has yet to come up, to connect or to receive what is on its way, as after a restart of the primary. A copy that
/// streams is fit as soon as it has come near.
pub fn is_coming(view: &View<'_>, name: &MemberName) -> bool {
    let is_fit = view
        .state
        .member(name)
        .is_some_and(|member| member.fitness == Fitness::Fit);
    let streams = |heard: &Heard| healthy_epoch(view).is_some_and(|epoch| streams(&heard.report, epoch));
    entitled(view, name, Bar::Named).is_ok_and(|(heard, _)| is_fit || streams(heard))
}

/// How much is asked of a candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bar {
    /// Everything: nobody looks.
    Rules,
    /// What it takes to be promoted at all.
    Named,
}

/// The members that may be promoted, best first.
pub fn candidates(view: &View<'_>) -> Vec<Candidate> {
    let mut found: Vec<(Candidate, i64, Lsn)> = view
        .state
        .members
        .keys()
        .filter_map(|name| judge(view, name, Bar::Rules).ok())
        .collect();
    found.sort_by_key(|(candidate, priority, replayed)| {
        (
            Reverse(candidate.reach),
            Reverse(*priority),
            Reverse(*replayed),
            candidate.name.clone(),
        )
    });
    found.into_iter().map(|(candidate, _, _)| candidate).collect()
}

fn judge(view: &View<'_>, name: &MemberName, bar: Bar) -> Result<(Candidate, i64, Lsn), String> {
    let (heard, priority) = entitled(view, name, bar)?;
    let found = standby(view, heard, priority)?;
    if bar == Bar::Rules {
        near(view, &found.0)?;
    }
    Ok(found)
}

/// What does not depend on how far its PostgreSQL is.
fn entitled<'a>(view: &'a View<'_>, name: &MemberName, bar: Bar) -> Result<(&'a Heard, i64), String> {
    let member = view.state.member(name).ok_or("it is not a member")?;
    if member.is_witness() {
        return Err("it is a witness and holds no data".to_owned());
    }
    if view.state.is_removed(name) {
        return Err("it is being taken out of the cluster".to_owned());
    }
    let tags = &member.info.tags;
    if tags.nofailover || tags.failover_priority <= 0 {
        return Err("it has the tag nofailover".to_owned());
    }
    if view.state.is_confirmed()
        && view
            .state
            .primacy
            .last()
            .is_some_and(|(holder, _)| holder == name)
    {
        return Err("it is the primary".to_owned());
    }
    if let Fitness::Unfit(why) = &member.fitness
        && bar == Bar::Rules
    {
        return Err(why.clone());
    }
    let heard = view.fresh(name).ok_or("it is silent")?;
    if heard.report.info.incarnation != member.info.incarnation {
        return Err("its copy of the data is new".to_owned());
    }
    if let Some(why) = &heard.report.unpromotable {
        return Err(why.clone());
    }
    let counts = !view.state.sync.is_on() || view.state.sync.counts(name, member.info.incarnation);
    if !counts && bar == Bar::Rules {
        return Err("it is not in the synchronous set".to_owned());
    }
    Ok((heard, tags.failover_priority))
}

fn standby(view: &View<'_>, heard: &Heard, priority: i64) -> Result<(Candidate, i64, Lsn), String> {
    let postgres = heard.report.postgres.as_ref().ok_or("it reports no PostgreSQL")?;
    if postgres.state != PostgresState::Running || postgres.role != Role::Replica {
        return Err(format!(
            "its PostgreSQL is no running standby but {}",
            postgres.state.word()
        ));
    }
    if postgres.timeline != view.state.timeline() {
        return Err(match (postgres.timeline, view.state.timeline()) {
            (Some(its), Some(ours)) => format!("it is on timeline {its}, the cluster is on {ours}"),
            _ => "its timeline is not known yet".to_owned(),
        });
    }
    let reached = reach(postgres).ok_or("its position is not known yet")?;
    let warm = postgres.streamed_in.is_some();
    let candidate = Candidate {
        name: heard.report.member().clone(),
        reach: reached,
        warm,
    };
    Ok((candidate, priority, postgres.replayed.unwrap_or_default()))
}

/// Whether it is close enough to the primary as last heard of.
pub(super) fn near(view: &View<'_>, candidate: &Candidate) -> Result<(), String> {
    let limit = view.settings.maximum_lag_on_failover;
    let behind = view
        .primary_position()
        .map_or(0, |position| candidate.reach.behind(position));
    if behind > limit {
        return Err(format!(
            "it is {behind} bytes behind, more than maximum_lag_on_failover ({limit})"
        ));
    }
    Ok(())
}
