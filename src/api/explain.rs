//! `GET /explain`: what holds now, by which rule, and why each member may or may not be promoted.
//!
//! Ours alone, made for `matriarch explain` and for people:
//!
//! ```text
//! scope, name, system_id            names; system_id is a string or null
//! epoch, revision                   numbers of the replicated state applied here
//! primary                           {name, origin, timeline} or null
//! lease                             {held, remaining_ms, gate_open} of the answering node
//! ttl_ms, wait_ttl_ms               lease length; the longest lease that may still run
//! leader_contact_ms                 since the Raft leader last answered this node
//! raft                              {id, leader, leading, term, last_log, applied, voters}
//! sync                              who acknowledges commits and whom an election must hear (`explain_sync.rs`), or null
//! standing                          {rule, reason}: the leader's newest verdict, or null
//! members[]                         name, witness, api_url, raft_addr, host?, port?, fit, unfit_reason?,
//!                                   may_promote (true, false, or null when nobody said), why_not?,
//!                                   present (as in /cluster), seen_ms?, state?, role?, timeline?, lsn?, activity?, tenure?
//! events[]                          newest last: {revision, epoch, member, rule, reason, at}
//! ```

use super::documents::iso_time;
use super::explain_sync;
use super::view::View;
use super::wire::dumps;
use crate::cluster::{Event, Facts, Fitness, Member, MemberName, Moment, Origin, Primacy, Report, Tenure};
use serde_json::{Map, Value, json};

/// How many of the newest events are told.
const EVENTS: usize = 20;

/// The document.
pub fn explain_document(facts: &Facts, now: Moment) -> String {
    let (state, raft, view) = (&facts.state, &facts.raft, View { facts, now });
    let held = facts.has_lease(now);
    let members: Vec<Value> = state
        .members
        .iter()
        .map(|(name, member)| one(&view, name, member))
        .collect();
    let skipped = state.events.len().saturating_sub(EVENTS);
    dumps(&json!({
        "scope": facts.scope,
        "name": facts.me.as_str(),
        "system_id": state.system_id.map(|id| id.to_string()),
        "epoch": state.epoch.0,
        "revision": state.revision.0,
        "primary": primary(&state.primacy),
        "lease": {
            "held": held,
            "remaining_ms": if held { facts.lease.until.since(now) } else { 0 },
            "gate_open": held && facts.gate_open,
        },
        "ttl_ms": state.ttl_ms,
        "wait_ttl_ms": state.wait_ttl_ms,
        "leader_contact_ms": now.since(facts.last_seen),
        "raft": {
            "id": raft.id,
            "leader": raft.leader.as_ref().map(MemberName::as_str),
            "leading": raft.leading,
            "term": raft.term,
            "last_log": raft.last_log,
            "applied": raft.applied,
            "voters": raft.voters,
        },
        "sync": explain_sync::sync(&view),
        "standing": facts.standing.as_ref().map(|s| json!({"rule": s.rule, "reason": s.reason})),
        "members": members,
        "events": state.events.iter().skip(skipped).map(event).collect::<Vec<_>>(),
    }))
}

fn primary(primacy: &Primacy) -> Option<Value> {
    let Primacy::Held {
        member,
        origin,
        timeline,
        ..
    } = primacy
    else {
        return None;
    };
    let origin = match origin {
        Origin::Bootstrap => "bootstrap",
        Origin::Promotion => "promotion",
        Origin::Restart => "restart",
    };
    Some(json!({"name": member.as_str(), "origin": origin, "timeline": timeline.map(|t| t.0)}))
}

fn event(event: &Event) -> Value {
    json!({
        "revision": event.revision,
        "epoch": event.epoch.0,
        "member": event.member.as_ref().map(MemberName::as_str),
        "rule": event.rule,
        "reason": event.reason,
        "at": iso_time(event.at_ms),
    })
}

fn one(view: &View<'_>, name: &MemberName, member: &Member) -> Value {
    let mut doc = Map::new();
    doc.insert("name".into(), name.as_str().into());
    doc.insert("witness".into(), member.is_witness().into());
    doc.insert("api_url".into(), member.info.api_url.as_str().into());
    doc.insert("raft_addr".into(), member.info.raft_addr.as_str().into());
    if let Some(endpoint) = &member.info.postgres {
        doc.insert("host".into(), endpoint.host.as_str().into());
        doc.insert("port".into(), endpoint.port.into());
    }
    doc.insert("fit".into(), (member.fitness == Fitness::Fit).into());
    if let Fitness::Unfit(reason) = &member.fitness {
        doc.insert("unfit_reason".into(), reason.as_str().into());
    }
    let standing = view.facts.standing.as_ref();
    let verdict = standing.and_then(|s| s.candidates.iter().find(|(candidate, _)| candidate == name));
    doc.insert(
        "may_promote".into(),
        verdict.map(|(_, why_not)| why_not.is_none()).into(),
    );
    if let Some((_, Some(why_not))) = verdict {
        doc.insert("why_not".into(), why_not.as_str().into());
    }
    doc.insert("present".into(), view.fresh_report(name).is_some().into());
    if let Some((report, age_ms)) = view.report(name) {
        doc.insert("seen_ms".into(), age_ms.into());
        add_report(&mut doc, report);
    }
    doc.into()
}

fn add_report(doc: &mut Map<String, Value>, report: &Report) {
    if let Some(postgres) = &report.postgres {
        doc.insert("state".into(), postgres.state.word().into());
        doc.insert("role".into(), postgres.role.word().into());
        if let Some(timeline) = postgres.timeline {
            doc.insert("timeline".into(), timeline.0.into());
        }
        if let Some(lsn) = postgres.location.or(postgres.received.max(postgres.replayed)) {
            doc.insert("lsn".into(), lsn.to_string().into());
        }
    }
    if let Some(activity) = &report.activity {
        doc.insert("activity".into(), activity.as_str().into());
    }
    match &report.tenure {
        Tenure::None => {}
        Tenure::Holding { epoch } => {
            doc.insert("tenure".into(), format!("holds epoch {epoch}").into());
        }
        Tenure::Ended { epoch, why, .. } => {
            doc.insert("tenure".into(), format!("ended epoch {epoch}: {why}").into());
        }
    }
}
