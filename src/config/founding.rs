//! The first dynamic configuration of a cluster that is founded from a database cluster that was there before.

use super::gucs::{self, Rule};
use super::settings;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Parameters that must agree on all nodes and may not shrink unasked: a database that served 500 connections yesterday
/// serves them tomorrow. They are asked of the server that was.
pub fn inherited_parameters() -> impl Iterator<Item = &'static str> {
    gucs::CONTROLLED
        .iter()
        .filter(|row| {
            row.on_command_line && matches!(row.rule, Rule::AtLeast(_) | Rule::WalLevel | Rule::Flag)
        })
        .map(|row| row.name)
}

/// The dynamic configuration to found with: what Patroni kept beside the data, else `bootstrap.dcs`; and of the parameters
/// in force until now those that are more than the default and are not mentioned.
///
/// Answers the JSON text and, where Patroni's configuration could not be used, the reason.
pub fn founding(
    dcs: &str,
    patroni: Option<&str>,
    in_force: &BTreeMap<String, String>,
) -> (String, Option<String>) {
    let (text, why_not) = match patroni.map(|text| (text, settings::settings(text))) {
        Some((text, Ok(_))) => (text, None),
        Some((_, Err(problems))) => {
            let first = problems.first().map(ToString::to_string);
            (dcs, Some(first.unwrap_or_default()))
        }
        None => (dcs, None),
    };
    let merged = inherit(text, in_force).filter(|merged| settings::settings(merged).is_ok());
    (merged.unwrap_or_else(|| text.to_owned()), why_not)
}

fn inherit(text: &str, in_force: &BTreeMap<String, String>) -> Option<String> {
    let mut root: Map<String, Value> = serde_json::from_str(text).ok()?;
    let postgresql = root
        .entry("postgresql")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()?;
    let parameters = postgresql
        .entry("parameters")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()?;
    let mut changed = false;
    for (name, value) in in_force {
        let mentioned = parameters.keys().any(|known| known.eq_ignore_ascii_case(name));
        if !mentioned && exceeds_default(name, value) {
            parameters.insert(name.clone(), Value::String(value.clone()));
            changed = true;
        }
    }
    changed.then(|| Value::Object(root).to_string())
}

fn exceeds_default(name: &str, value: &str) -> bool {
    let Some(row) = gucs::controlled(name) else {
        return false;
    };
    match (row.rule, row.judge(value)) {
        (Rule::AtLeast(_), Ok(value)) => {
            let number = |text: &str| text.parse::<i64>().unwrap_or(0);
            number(&value) > number(row.default)
        }
        (Rule::WalLevel | Rule::Flag, Ok(value)) => value != row.default,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        given.iter().map(text).collect()
    }

    #[test]
    fn what_was_in_force_stays_in_force() {
        let old = in_force(&[
            ("max_connections", "500"),
            ("max_wal_senders", "5"),
            ("wal_level", "logical"),
            ("track_commit_timestamp", "off"),
            ("max_prepared_transactions", "0"),
            ("max_replication_slots", "40"),
        ]);
        let (text, why) = founding(
            r#"{"ttl":3,"postgresql":{"parameters":{"max_replication_slots":20}}}"#,
            None,
            &old,
        );
        assert_eq!(why, None);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["ttl"], 3);
        assert_eq!(
            json["postgresql"]["parameters"],
            serde_json::json!({"max_connections": "500", "max_replication_slots": 20, "wal_level": "logical"})
        );
        // Nothing to add changes nothing, and less than a cluster needs is not kept.
        let poor = in_force(&[("wal_level", "minimal"), ("max_connections", "10")]);
        assert_eq!(founding("{}", None, &poor), ("{}".to_owned(), None));
    }

    #[test]
    fn what_patroni_kept_goes_before_the_file() {
        let kept = r#"{"ttl":20,"postgresql":{"use_pg_rewind":true}}"#;
        assert_eq!(
            founding("{}", Some(kept), &BTreeMap::new()),
            (kept.to_owned(), None)
        );
        let (text, why) = founding("{}", Some(r#"{"ttl":"for ever"}"#), &BTreeMap::new());
        assert_eq!(text, "{}");
        assert!(why.unwrap().contains("ttl"));
    }

    #[test]
    fn only_what_must_agree_is_asked() {
        let names: Vec<_> = inherited_parameters().collect();
        assert!(names.contains(&"max_connections") && names.contains(&"wal_level"));
        assert!(
            !names.contains(&"port") && !names.contains(&"hot_standby") && !names.contains(&"wal_keep_size")
        );
    }
}
