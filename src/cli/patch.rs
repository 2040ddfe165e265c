//! Changing the shared settings as a document: `-s` and `-p`, merging, and the difference between two of them. Pure.

use super::out::CliError;
use crate::config;
use serde_json::{Map, Value};

/// Server parameters may have dots in their names, so below this path a dot is part of the name.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

/// The value of a text in YAML, by the rules that hold for `bootstrap.dcs`.
pub(super) fn yaml(source: &str, text: &str) -> Result<Value, CliError> {
    config::json_of_yaml(source, text).map_err(|problem| CliError::Config(vec![problem.to_string()]))
}

/// The mapping that a text in YAML is.
pub(super) fn yaml_mapping(source: &str, text: &str) -> Result<Map<String, Value>, CliError> {
    match yaml(source, text)? {
        Value::Object(map) => Ok(map),
        _ => Err(CliError::Refused(format!(
            "{source} is no mapping of keys such as `ttl: 30`"
        ))),
    }
}

/// One `-s key.path=YAML`; null removes the key, and mappings that become empty go with it.
pub(super) fn set(settings: &mut Map<String, Value>, assignment: &str) -> Result<(), CliError> {
    let Some((path, text)) = assignment.split_once('=').filter(|(path, _)| !path.is_empty()) else {
        return Err(CliError::Refused(format!(
            "Invalid parameter setting {assignment}: write it as ttl=30 or postgresql.use_slots=true"
        )));
    };
    let value = yaml(&format!("the value of {path}"), text)?;
    let mut names: Vec<&str> = path.split('.').collect();
    if names.len() > PARAMETERS.len() && names.starts_with(&PARAMETERS) {
        names = path.splitn(PARAMETERS.len() + 1, '.').collect();
    }
    if names.iter().any(|name| name.is_empty()) {
        return Err(CliError::Refused(format!(
            "Invalid parameter setting {assignment}: {path} has an empty name"
        )));
    }
    put(settings, &names, value);
    Ok(())
}

fn put(map: &mut Map<String, Value>, names: &[&str], value: Value) {
    match names {
        [] => {}
        [name] if value.is_null() => {
            map.remove(*name);
        }
        [name] => {
            map.insert((*name).to_owned(), value);
        }
        [name, rest @ ..] => {
            let mut inner = match map.remove(*name) {
                Some(Value::Object(inner)) => inner,
                _ => Map::new(),
            };
            put(&mut inner, rest, value);
            if !inner.is_empty() {
                map.insert((*name).to_owned(), Value::Object(inner));
            }
        }
    }
}

/// Merges as `PATCH /config` does, by the same function.
pub(super) fn merged(
    settings: &Map<String, Value>,
    change: &Map<String, Value>,
) -> Result<Map<String, Value>, CliError> {
    let text = |map: &Map<String, Value>| Value::Object(map.clone()).to_string();
    let amended = config::amended(&text(settings), &text(change), false).map_err(CliError::Refused)?;
    let Some(amended) = amended else {
        return Ok(settings.clone());
    };
    serde_json::from_str(&amended).map_err(|why| CliError::Refused(why.to_string()))
}

/// What has to be merged into `old` to make it `new`.
pub(super) fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut change = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match (old.get(key), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                change.insert(key.clone(), Value::Object(difference(before, after)));
            }
            _ => {
                change.insert(key.clone(), value.clone());
            }
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn assignments() {
        for (assignment, expected) in [
            ("ttl=20", json!({"ttl": 20, "a": {"b": {"c": 1}}})),
            ("ttl=null", json!({"a": {"b": {"c": 1}}})),
            ("ttl=", json!({"a": {"b": {"c": 1}}})),
            ("a.b.c=null", json!({"ttl": 30})),
            (
                "a.b.d=[1, x]",
                json!({"ttl": 30, "a": {"b": {"c": 1, "d": [1, "x"]}}}),
            ),
            ("a.b={x: on}", json!({"ttl": 30, "a": {"b": {"x": true}}})),
            ("ttl.x=1", json!({"ttl": {"x": 1}, "a": {"b": {"c": 1}}})),
            (
                "postgresql.parameters.pg_stat_statements.max=100",
                json!({"ttl": 30, "a": {"b": {"c": 1}}, "postgresql": {"parameters": {"pg_stat_statements.max": 100}}}),
            ),
            ("s=a=b", json!({"ttl": 30, "a": {"b": {"c": 1}}, "s": "a=b"})),
        ] {
            let mut settings = map(json!({"ttl": 30, "a": {"b": {"c": 1}}}));
            set(&mut settings, assignment).unwrap();
            assert_eq!(Value::Object(settings), expected, "{assignment}");
        }
        for bad in ["ttl", "=1", "a..b=1", "ttl={", "ttl=1\nx: 2"] {
            assert!(set(&mut Map::new(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn merging_does_not_say_it_all() {
        for (old, new, says) in [
            (json!({"a": "20"}), json!({"a": 20}), false),
            (json!({"a": 21}), json!({"a": 20}), true),
            (json!({"a": 1}), json!({"a": {"b": 1}}), true),
        ] {
            let (old, new) = (map(old), map(new));
            let merged = merged(&old, &difference(&old, &new)).unwrap();
            assert_eq!(merged == new, says, "{old:?} {new:?}");
        }
    }

    fn any_settings() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..3i64).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_the_difference_makes_the_new_one(old in any_settings(), new in any_settings()) {
            let wrap = |value| map(json!({"x": value}));
            let (old, new) = (wrap(old), wrap(new));
            let merged = merged(&old, &difference(&old, &new)).unwrap();
            prop_assert_eq!(Value::Object(merged), Value::Object(new));
        }
    }
}
