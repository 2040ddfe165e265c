//! The lines of `explain` about synchronous replication.

use super::document::{array, flag, number, text};
use super::out::Style;
use serde_json::Value;

/// Who acknowledges a commit.
pub(super) fn acknowledging(sync: &Value, style: Style) -> String {
    let quorums = array(sync, "quorums");
    let Some(current) = quorums.last() else {
        let mode = text(sync, "mode");
        return style.warning(&format!("synchronous_mode is {mode}, but it is not in force yet"));
    };
    let primary = text(current, "primary");
    let who = match (number(current, "count"), number(current, "need")) {
        (0, _) => style.warning(&format!(
            "{primary} acknowledges alone, so nobody else may be promoted"
        )),
        (_, 0) => style.warning("no standby is there, and synchronous_mode_strict holds every commit"),
        (count, _) => format!(
            "a commit is acknowledged once {primary} and {} have it on disk",
            some_of(count, current)
        ),
    };
    let changing = match (text(sync, "mode"), flag(sync, "settled")) {
        ("off", _) => "; it is being switched off",
        (_, false) => "; a change is under way",
        _ => "",
    };
    format!("{who}{changing}")
}

/// Whom an election must hear, a line for each quorum that it has to meet.
pub(super) fn electing(sync: &Value, holder: &str, style: Style) -> Vec<String> {
    array(sync, "quorums")
        .iter()
        .map(|quorum| one(quorum, holder, style))
        .collect()
}

fn one(quorum: &Value, holder: &str, style: Style) -> String {
    let (primary, need) = (text(quorum, "primary"), number(quorum, "need"));
    let others = some_of(need, quorum);
    let whom = match (need, number(quorum, "count"), primary == holder) {
        (0, ..) => return "anybody may be promoted, as nothing can have been acknowledged".to_owned(),
        (_, 0, _) => return style.warning(&format!("only {primary} has every commit")),
        (.., true) => format!("if {primary} is lost, {others} must be heard"),
        (.., false) => format!("{primary}, or else {others}, must be heard"),
    };
    if flag(quorum, "met") {
        return format!("{whom}; enough are here");
    }
    let missing = array(quorum, "missing").iter().filter_map(Value::as_str);
    let missing: Vec<&str> = missing.filter(|name| *name != holder).collect();
    style.warning(&format!("{whom}; not here: {}", missing.join(", ")))
}

/// So many of a quorum's members.
fn some_of(count: u64, quorum: &Value) -> String {
    let members: Vec<&str> = array(quorum, "members")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match members.as_slice() {
        [one] => (*one).to_owned(),
        all if count == all.len() as u64 => format!("all of {}", all.join(", ")),
        all => format!("{count} of {}", all.join(", ")),
    }
}
