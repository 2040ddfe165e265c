//! `/members`: who takes part in the group, and how: what `/cluster` has no words for.
//!
//! ```text
//! {scope, members: [{name, raft_id, address, vote, data, level, last_heard_ms, leaving}], removed: [name]}
//! vote: leader | voter | learner | none
//! ```
//!
//! A learner becomes a voter with the end of the change that makes it one, not in its middle (Raft's joint consensus,
//! section 4.3 of Ongaro's dissertation): until then the old voters are needed too, and whoever waits to see a voter
//! before it takes another node away would take away one too many. A member without a Raft port shows it in the middle.

use super::wire::dumps;
use crate::cluster::{Facts, Member, Moment};
use serde_json::{Value, json};

pub(super) fn members_document(facts: &Facts, now: Moment) -> String {
    let members: Vec<Value> = facts
        .state
        .members
        .values()
        .map(|member| row(facts, member, now))
        .collect();
    let gone = facts
        .state
        .removed
        .keys()
        .filter(|name| facts.state.member(name).is_none());
    let removed: Vec<&str> = gone.map(|name| name.as_str()).collect();
    dumps(&json!({"scope": facts.scope, "members": members, "removed": removed}))
}

fn row(facts: &Facts, member: &Member, now: Moment) -> Value {
    let info = &member.info;
    let seen = facts
        .members
        .iter()
        .find(|seen| seen.report.info.name == info.name);
    let since = if info.name == facts.me {
        0
    } else {
        now.since(facts.members_at)
    };
    json!({
        "name": info.name.as_str(),
        "raft_id": info.raft_id.to_string(),
        "address": info.raft_addr,
        "vote": vote(facts, member),
        "data": !member.is_witness(),
        "level": info.level,
        "last_heard_ms": seen.map(|seen| seen.age_ms.saturating_add(since)),
        "leaving": facts.state.is_removed(&info.name),
    })
}

/// Its part in Raft.
fn vote(facts: &Facts, member: &Member) -> &'static str {
    let (raft, id) = (&facts.raft, member.info.raft_id);
    let leads = raft.leader.as_ref() == Some(&member.info.name);
    match (raft.voter_ids.contains(&id), raft.learner_ids.contains(&id)) {
        (true, _) if leads => "leader",
        (true, _) => "voter",
        (_, true) => "learner",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{self, NOW};
    use super::*;

    #[test]
    fn everybody_is_shown_with_its_part() {
        let mut facts = fixtures::facts(0);
        let text = members_document(&facts, NOW);
        let document: Value = serde_json::from_str(&text).unwrap();
        let members = document["members"].as_array().unwrap();
        assert_eq!(members.len(), facts.state.members.len());
        let state = std::sync::Arc::make_mut(&mut facts.state);
        let name = state.members.keys().last().unwrap().clone();
        state.removed.insert(name.clone(), 9);
        let document: Value = serde_json::from_str(&members_document(&facts, NOW)).unwrap();
        let shown = document["members"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&shown["leaving"], &shown["name"]),
            (&json!(true), &json!(name.as_str()))
        );
        let state = std::sync::Arc::make_mut(&mut facts.state);
        state.members.remove(&name);
        let document: Value = serde_json::from_str(&members_document(&facts, NOW)).unwrap();
        assert_eq!(document["removed"], json!([name.as_str()]));
    }
}
