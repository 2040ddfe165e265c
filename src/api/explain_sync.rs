//! The part of `GET /explain` about synchronous replication: who acknowledges a commit, and whom an election must hear.
//!
//! ```text
//! mode, strict                      as configured: off, on or quorum
//! settled                           whether only the newest quorum counts; if not, the primary still has to prove it
//! quorums[]                         oldest first, the one in force last; an election must meet each of them:
//!   primary, members, count         the primary and `count` of the members have every acknowledged commit
//!   need                            so many members must be heard where the primary is not
//!   met                             whether the members that are there now would do, without the present primary
//!   missing?                        where they would not: one more of these is needed
//! ```

use super::view::View;
use crate::cluster::{Incarnation, MemberName, PostgresState, Quorum, SyncMode};
use serde_json::{Map, Value, json};

/// `None` where commits wait for nobody and never had to.
pub(super) fn sync(view: &View<'_>) -> Option<Value> {
    let (settings, sync) = (&view.facts.settings, &view.facts.state.sync);
    let mode = match settings.synchronous_mode {
        SyncMode::Off if !sync.is_on() => return None,
        SyncMode::Off => "off",
        SyncMode::On => "on",
        SyncMode::Quorum => "quorum",
    };
    Some(json!({
        "mode": mode,
        "strict": settings.synchronous_mode_strict,
        "settled": sync.is_settled(),
        "quorums": sync.quorums.iter().map(|quorum| one(view, quorum)).collect::<Vec<_>>(),
    }))
}

fn one(view: &View<'_>, quorum: &Quorum) -> Value {
    let heard = |name: &MemberName, copy: Option<Incarnation>| is_there(view, name, copy);
    let members: Vec<&str> = quorum.members.keys().map(MemberName::as_str).collect();
    let met = quorum.met_by(heard);
    let mut doc = Map::new();
    doc.insert("primary".into(), quorum.primary.as_str().into());
    doc.insert("count".into(), quorum.count.into());
    doc.insert(
        "need".into(),
        (members.len() + 1).saturating_sub(quorum.count as usize).into(),
    );
    doc.insert("members".into(), members.into());
    doc.insert("met".into(), met.into());
    if !met {
        let missing: Vec<String> = quorum.lacks(heard).into_iter().map(|name| name.0).collect();
        doc.insert("missing".into(), missing.into());
    }
    doc.into()
}

/// Whether a copy would be heard if the present primary were lost now.
fn is_there(view: &View<'_>, name: &MemberName, copy: Option<Incarnation>) -> bool {
    let holds = view
        .facts
        .state
        .primacy
        .held()
        .is_some_and(|(holder, _)| holder == name);
    let report = view.fresh_report(name).filter(|report| {
        let running = report
            .postgres
            .as_ref()
            .is_some_and(|postgres| postgres.state == PostgresState::Running);
        running && copy.is_some() && report.info.incarnation == copy
    });
    !holds && report.is_some()
}
