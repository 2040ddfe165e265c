//! What a change of the dynamic configuration makes of it, and what is wrong with the result.

use super::gucs::{self, Rule};
use crate::cluster::Settings;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// So much of a hash tells two configurations apart.
const TAG_BYTES: usize = 16;

type Object = Map<String, Value>;

/// The configuration after a change; `None` when nothing differs, which is no change at all.
///
/// # Errors
/// A sentence, when one of the texts is no JSON object.
pub fn amended(current: &str, change: &str, whole: bool) -> Result<Option<String>, String> {
    let change = object(change)?;
    let mut config = object(current)?;
    let differs = if whole {
        let differs = config != change;
        config = change;
        differs
    } else {
        merge(&mut config, &change)
    };
    Ok(differs.then(|| Value::Object(config).to_string()))
}

/// The entity tag of a configuration (`ETag`, `If-Match`): another one for every other text.
pub fn entity_tag(config: &str) -> String {
    let hash = Sha256::digest(config.as_bytes());
    let digits: String = hash
        .iter()
        .take(TAG_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{digits}\"")
}

/// Whether an `If-Match` lets this configuration be changed.
pub fn is_meant(if_match: &str, config: &str) -> bool {
    let tag = entity_tag(config);
    if_match
        .split(',')
        .any(|meant| matches!(meant.trim(), "*") || meant.trim() == tag)
}

fn object(text: &str) -> Result<Object, String> {
    serde_json::from_str(text)
        .map_err(|why| format!("the configuration is no JSON object such as {{\"ttl\": 2}}: {why}"))
}

/// As Patroni merges: `null` removes, objects are merged, and 20 is the same as "20".
fn merge(config: &mut Object, change: &Object) -> bool {
    let mut differs = false;
    for (name, value) in change {
        match (config.get_mut(name), value) {
            (old, Value::Null) => {
                differs |= old.is_some_and(|old| !old.is_null());
                config.shift_remove(name);
            }
            (Some(Value::Object(old)), Value::Object(new)) => differs |= merge(old, new),
            (Some(old), new) if !new.is_object() && words(old) == words(new) => {}
            _ => {
                config.insert(name.clone(), value.clone());
                differs = true;
            }
        }
    }
    differs
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}

/// What a change sets of PostgreSQL's parameters.
#[derive(Debug, Default, PartialEq)]
pub struct NewParameters {
    /// What PostgreSQL itself has to judge.
    pub fresh: BTreeMap<String, String>,
    /// A sentence for each that is kept and has no effect, because its value is not the operator's to choose: people send
    /// back whole configurations in which they stand.
    pub idle: Vec<String>,
}

/// What `new` sets of PostgreSQL's parameters otherwise than `old`.
///
/// # Errors
/// A sentence for each value that the cluster could not use.
pub fn new_parameters(old: &Settings, new: &Settings) -> Result<NewParameters, Vec<String>> {
    let mut wrong = Vec::new();
    let mut found = NewParameters::default();
    let sections = [
        (
            "parameters",
            &old.postgresql.parameters,
            &new.postgresql.parameters,
        ),
        (
            "recovery_conf",
            &old.postgresql.recovery_conf,
            &new.postgresql.recovery_conf,
        ),
    ];
    for (section, old, new) in sections {
        for (name, text) in new.iter().filter(|(name, text)| old.get(*name) != Some(text)) {
            let idle = |why: &str| format!("postgresql.{section}.{name} has no effect: {why}");
            match gucs::controlled(name).map(|row| (row.rule, row.judge(text))) {
                Some((Rule::FromNodeFile | Rule::Fixed, Err(why))) => found.idle.push(idle(&why)),
                Some((_, Err(why))) => wrong.push(format!("postgresql.{section}.{name}: {why}")),
                // No newer PostgreSQL knows it; it is translated.
                Some(_) if name == "wal_keep_segments" => {}
                Some(_) => {
                    found.fresh.insert(name.clone(), text.clone());
                }
                None => match gucs::ours(name) {
                    Some(why) => found.idle.push(idle(why)),
                    None => {
                        found.fresh.insert(name.clone(), text.clone());
                    }
                },
            }
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Patroni.
    const CONFIG: &str = r#"{"ttl":20,"loop_wait":2,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":100}}}"#;

    #[test]
    fn a_change_is_merged() {
        for (change, after) in [
            (
                r#"{"ttl":21,"foo":{"bar":1}}"#,
                Some(
                    r#"{"ttl":21,"loop_wait":2,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":100}},"foo":{"bar":1}}"#,
                ),
            ),
            (r#"{"ttl":"20","foo":null}"#, None),
            (r#"{"postgresql":{"use_pg_rewind":"True"}}"#, None),
            (
                r#"{"ttl":null,"postgresql":{"parameters":{"max_connections":null,"work_mem":"4MB"}}}"#,
                Some(
                    r#"{"loop_wait":2,"postgresql":{"use_pg_rewind":true,"parameters":{"work_mem":"4MB"}}}"#,
                ),
            ),
            (
                r#"{"postgresql":7}"#,
                Some(r#"{"ttl":20,"loop_wait":2,"postgresql":7}"#),
            ),
            (
                r#"{"ttl":{"a":null}}"#,
                Some(
                    r#"{"ttl":{"a":null},"loop_wait":2,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":100}}}"#,
                ),
            ),
        ] {
            assert_eq!(
                amended(CONFIG, change, false).unwrap().as_deref(),
                after,
                "{change}"
            );
        }
        assert_eq!(
            amended(CONFIG, r#"{"ttl":5}"#, true).unwrap().unwrap(),
            r#"{"ttl":5}"#
        );
        assert_eq!(amended(CONFIG, CONFIG, true).unwrap(), None);
        assert!(amended(CONFIG, "[1]", false).is_err());
    }

    #[test]
    fn only_what_is_new_is_judged() {
        let settings = |json: &str| super::super::settings(json).unwrap();
        let old = settings(r#"{"postgresql":{"parameters":{"max_connections":"3","work_mem":"4MB"}}}"#);
        let new = settings(
            r#"{"postgresql":{"parameters":{"max_connections":"3","work_mem":"8MB","wal_keep_segments":8,"primary_conninfo":"x"},
                "recovery_conf":{"restore_command":"cp"}}}"#,
        );
        let found = new_parameters(&old, &new).unwrap();
        assert_eq!(
            found.fresh.keys().collect::<Vec<_>>(),
            ["restore_command", "work_mem"]
        );
        assert_eq!(
            found.idle,
            ["postgresql.parameters.primary_conninfo has no effect: it follows the primary"]
        );
        let bad = settings(
            r#"{"postgresql":{"parameters":{"max_connections":10,"port":1,"wal_level":"minimal"}}}"#,
        );
        assert_eq!(
            new_parameters(&old, &bad).unwrap_err(),
            [
                "postgresql.parameters.max_connections: 10 is not a number of at least 25",
                "postgresql.parameters.wal_level: minimal is neither replica nor logical",
            ]
        );
    }

    /// What a script sends back that has read everything and changed one thing.
    #[test]
    fn what_is_not_the_operators_to_choose_is_no_mistake() {
        let settings = |json: &str| super::super::settings(json).unwrap();
        let whole = r#"{"postgresql":{"parameters":{"listen_addresses":"*","port":5433,"cluster_name":"x","hot_standby":"off",
            "wal_log_hints":"on","work_mem":"5MB"}}}"#;
        let found = new_parameters(&settings("{}"), &settings(whole)).unwrap();
        assert_eq!(
            found.fresh.keys().collect::<Vec<_>>(),
            ["wal_log_hints", "work_mem"]
        );
        let why = |name: &str| {
            let of = |line: &&String| line.contains(name);
            found.idle.iter().find(of).unwrap().as_str()
        };
        assert_eq!(found.idle.len(), 4);
        assert_eq!(
            why("port"),
            "postgresql.parameters.port has no effect: it comes from the node file"
        );
        assert_eq!(
            why("hot_standby"),
            "postgresql.parameters.hot_standby has no effect: it is always on"
        );
    }
}
