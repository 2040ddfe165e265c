//! Rules about what is true already and only has to be agreed: who there is, what was created, which promotion came about.

use super::lease;
use super::rules::{Verdict, propose};
use super::view::{View, serves};
use crate::cluster::{Act, MemberName, Origin, PostgresState, Primacy, Promotion, Role};

pub(super) fn register(view: &View<'_>) -> Option<Verdict> {
    let heard = view.heard.values().find(|heard| {
        let info = &heard.report.info;
        view.fresh(&info.name).is_some()
            && !view.state.is_removed(&info.name)
            && !view.state.is_retired(info.raft_id)
            && view.state.member(&info.name).is_none_or(|m| m.info != *info)
            // It is refused, and its own node ends with a sentence when it sees the other's name.
            && view.state.namesake(&info.name).is_none()
    })?;
    let info = heard.report.info.clone();
    let reason = format!("{} at {}", info.name, info.raft_addr);
    propose(Act::Register(info), reason)
}

/// First whatever counts its copy is replaced and proved (`sync-set`), then it goes.
pub(super) fn take_out(view: &View<'_>) -> Option<Verdict> {
    let counts = |name: &MemberName| {
        let mut quorums = view.state.sync.quorums.iter();
        quorums.any(|quorum| quorum.primary == *name || quorum.members.contains_key(name))
    };
    let mut leaving = view.state.removed.keys();
    let name = leaving.find(|name| view.state.member(name).is_some() && !counts(name))?;
    let act = Act::Forget { member: name.clone() };
    propose(act, format!("{name} was taken out by an operator"))
}

pub(super) fn settle_ttl(view: &View<'_>) -> Option<Verdict> {
    let (ttl, wait) = (view.state.ttl_ms, view.state.wait_ttl_ms);
    let since = view.ttl_since.max(view.lead_since);
    (wait > ttl && view.now >= lease::move_at(since, None, wait)).then_some(())?;
    propose(
        Act::TtlSettled { ttl_ms: ttl },
        format!("led for {wait} ms with the ttl at {ttl} ms"),
    )
}

pub(super) fn initialized(view: &View<'_>) -> Option<Verdict> {
    let Primacy::Held {
        member,
        epoch,
        origin: Origin::Bootstrap,
        timeline: None,
    } = &view.state.primacy
    else {
        return None;
    };
    let heard = view.holding()?;
    let postgres = heard.report.postgres.as_ref()?;
    serves(&heard.report, *epoch).then_some(())?;
    let (system_id, timeline) = (postgres.system_id?, postgres.timeline?);
    let reason = format!("{member} created database cluster {system_id}");
    propose(
        Act::Initialized {
            member: member.clone(),
            epoch: *epoch,
            system_id,
            timeline,
        },
        reason,
    )
}

/// Holds also for a primary that has died since: what it wrote on its timeline was acknowledged to somebody. The
/// timeline was reserved for one member and epoch, so any member that is on it proves that the promotion came about.
pub(super) fn promoted(view: &View<'_>) -> Option<Verdict> {
    let (member, epoch) = view.state.primacy.last()?;
    let Some((Origin::Promotion, Some(reserved))) = view.state.primacy.origin() else {
        return None;
    };
    (!view.state.is_confirmed()).then_some(())?;
    let fork = view.heard.values().filter_map(|heard| {
        let report = &view.fresh(heard.report.member())?.report;
        let postgres = report.postgres.as_ref()?;
        let fork = postgres.fork.filter(|fork| fork.timeline == reserved)?;
        let still_standby = postgres.role == Role::Replica && postgres.state == PostgresState::Running;
        let is_holder = report.member() == member;
        let proves = if is_holder {
            !still_standby
        } else {
            Some(fork.parent) == view.state.timeline()
        };
        proves.then_some(fork)
    });
    let fork = fork.min_by_key(|fork| fork.switch)?;
    let why = view.state.events.last();
    let promotion = Promotion {
        timeline: fork.timeline,
        parent: fork.parent,
        switch: fork.switch,
        member: member.clone(),
        incarnation: view
            .state
            .member(member)
            .and_then(|member| member.info.incarnation),
        epoch,
        rule: why.map(|event| event.rule.clone()).unwrap_or_default(),
        at_ms: why.map(|event| event.at_ms).unwrap_or_default(),
    };
    let reason = format!("timeline {} begins at {}", fork.timeline, fork.switch);
    propose(Act::Promoted(promotion), reason)
}
