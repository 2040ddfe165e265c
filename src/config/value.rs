//! A YAML value that remembers how it was written and where, with YAML 1.1's idea of a boolean.
//!
//! Scalars keep their text: whether `0123` is a password or a number is known only to whoever asks for it.

use serde_json::{Map, Number};
use std::sync::Arc;

/// Where a value stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// File, variable or "dynamic configuration".
    pub(crate) source: Arc<str>,
    /// Line, counted from one.
    pub(crate) line: Option<usize>,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// What was written.
    pub(crate) value: Value,
    /// Where.
    pub(crate) place: Place,
}

/// What was written.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A text; `plain` when it had no quotes, so that `on` may mean true.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file; keys are unique.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A mapping without entries.
    pub(crate) fn empty_map(place: Place) -> Self {
        Self {
            value: Value::Map(Vec::new()),
            place,
        }
    }

    /// An unquoted scalar.
    pub(crate) fn plain(text: &str, place: Place) -> Self {
        let value = if is_null(text) {
            Value::Null
        } else {
            Value::Scalar {
                text: text.to_owned(),
                plain: true,
            }
        };
        Self { value, place }
    }

    /// The entry of a mapping; what is null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .find(|(name, node)| name == key && !node.is_null())
            .map(|(_, node)| node)
    }

    /// The entry at a path of names joined by dots.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, name| node.get(name))
    }

    /// The entries of a mapping; none for anything else.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing was written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Sets the entry at a path, making mappings on the way.
    pub(crate) fn set(&mut self, path: &str, node: Self) {
        let (name, rest) = path
            .split_once('.')
            .map_or((path, None), |(name, rest)| (name, Some(rest)));
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else {
            return;
        };
        let place = node.place.clone();
        let at = entries.iter().position(|(key, _)| key == name);
        let slot = match at.and_then(|at| entries.get_mut(at)) {
            Some((_, slot)) => slot,
            None => {
                entries.push((name.to_owned(), Self::empty_map(place)));
                match entries.last_mut() {
                    Some((_, slot)) => slot,
                    None => return,
                }
            }
        };
        match rest {
            Some(rest) => slot.set(rest, node),
            None => *slot = node,
        }
    }

    /// Lays another value over this one: mappings key by key, anything else as a whole; null removes.
    pub(crate) fn overlay(&mut self, other: Self) {
        match (&mut self.value, other.value) {
            (Value::Map(mine), Value::Map(theirs)) => {
                for (key, node) in theirs {
                    match mine.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, slot)) => slot.overlay(node),
                        None => mine.push((key, node)),
                    }
                }
            }
            (mine, value) => {
                *mine = value;
                self.place = other.place;
            }
        }
    }

    /// As text PostgreSQL understands: an unquoted YAML boolean is `on` or `off`.
    pub(crate) fn parameter(&self) -> Option<String> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(match yaml_bool(text) {
                Some(true) => "on".to_owned(),
                Some(false) => "off".to_owned(),
                None => text.clone(),
            }),
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => None,
        }
    }

    /// As JSON, typed as YAML 1.1 types unquoted scalars.
    pub(crate) fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar { text, plain } => {
                if *plain {
                    json_scalar(text)
                } else {
                    serde_json::Value::String(text.clone())
                }
            }
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.clone(), node.json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// A JSON value as a tree.
    pub(crate) fn from_json(value: &serde_json::Value, place: &Place) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Scalar {
                text: flag.to_string(),
                plain: true,
            },
            Json::Number(number) => Value::Scalar {
                text: number.to_string(),
                plain: true,
            },
            Json::String(text) => Value::Scalar {
                text: text.clone(),
                plain: false,
            },
            Json::Array(items) => {
                Value::List(items.iter().map(|item| Self::from_json(item, place)).collect())
            }
            Json::Object(entries) => Value::Map(
                entries
                    .iter()
                    .map(|(key, item)| (key.clone(), Self::from_json(item, place)))
                    .collect(),
            ),
        };
        Self {
            value,
            place: place.clone(),
        }
    }
}

/// YAML 1.1's booleans, as Python's reader knows them (`y` and `n` are words).
pub(crate) fn yaml_bool(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let regular = text == lower || text == text.to_ascii_uppercase() || text.get(1..) == lower.get(1..);
    match lower.as_str() {
        "true" | "yes" | "on" if regular => Some(true),
        "false" | "no" | "off" if regular => Some(false),
        _ => None,
    }
}

/// Whether an unquoted text means nothing.
pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn json_scalar(text: &str) -> serde_json::Value {
    if let Some(flag) = yaml_bool(text) {
        return flag.into();
    }
    json_number(text).map_or_else(|| text.into(), serde_json::Value::Number)
}

/// A decimal number; leading zeros, bases and underscores stay text, which no setting minds.
fn json_number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        return unsigned
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| unsigned.parse::<u64>().map(Number::from))
            .ok();
    }
    // YAML 1.1 wants a point in a float: `1e3` is a text.
    let (whole, _) = digits.split_once('.')?;
    if !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    unsigned.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_become_json_as_yaml_1_1_reads_them() {
        let table = [
            ("on", "true"),
            ("No", "false"),
            ("oN", "\"oN\""),
            ("y", "\"y\""),
            ("30", "30"),
            ("-1", "-1"),
            ("0123", "\"0123\""),
            ("0.9", "0.9"),
            ("1e3", "\"1e3\""),
            ("128MB", "\"128MB\""),
            ("10.0.0.1", "\"10.0.0.1\""),
            ("18446744073709551615", "18446744073709551615"),
        ];
        for (text, json) in table {
            assert_eq!(json_scalar(text).to_string(), json, "{text}");
        }
    }
}
