//! One walk over what was written: keys nobody knows, keys without effect, things not supported yet, wrong shapes.

use super::keys::{self, Fate, Key, Kind, RAFT_TIMINGS};
use super::reader::Reader;
use super::units;
use super::value::{Node, Value};

/// Looks at every key below `path` (empty: the whole file).
pub(crate) fn survey(reader: &mut Reader, path: &str) {
    let node = if path.is_empty() {
        Some(reader.root().clone())
    } else {
        reader.root().at(path).cloned()
    };
    if let Some(node) = node {
        section(reader, &node, path);
    }
}

fn section(reader: &mut Reader, node: &Node, path: &str) {
    for (name, child) in node.entries() {
        let full = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let names: Vec<&str> = full.split('.').collect();
        if let Some(key) = keys::find(&full) {
            known(reader, child, &full, key);
        } else if is_section(&names) {
            match &child.value {
                Value::Map(_) => section(reader, child, &full),
                Value::Null => {}
                _ => reader.problem(&full, "must be a section: keys on lines of their own, indented"),
            }
        } else if path == "tags" {
            custom_tag(reader, child, &full);
        } else {
            unknown(reader, path, name, &full);
        }
    }
}

fn is_section(names: &[&str]) -> bool {
    keys::KEYS
        .iter()
        .any(|key| matches!(keys::matches(key.path, names), keys::Match::Inside(_)))
}

fn known(reader: &mut Reader, node: &Node, path: &str, key: &Key) {
    match key.fate {
        Fate::Used | Fate::OldName(_) => shape(reader, node, path, key.kind),
        Fate::Ignored(why) => {
            let said = why == RAFT_TIMINGS
                && reader
                    .warnings
                    .iter()
                    .any(|warning| warning.message.contains(why));
            if !said {
                reader.warn(path, format!("has no effect: {why}"));
            }
        }
        Fate::Store => {
            reader.warn(
                path,
                "is no longer needed: the nodes agree among themselves; the section may be removed",
            );
        }
        Fate::Refused(unless, why) => {
            let value = normal(node);
            if !value.is_empty() && !unless.contains(&value.as_str()) {
                reader.problem(path, why);
            }
        }
    }
}

/// A value for comparison: booleans as on or off, lists joined by commas, nothing as nothing.
fn normal(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Scalar { text, .. } => match units::boolean(text) {
            Some(true) => "on".to_owned(),
            Some(false) => "off".to_owned(),
            None => text.trim().to_ascii_lowercase(),
        },
        Value::List(items) => items.iter().map(normal).collect::<Vec<_>>().join(","),
        Value::Map(entries) => entries
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(","),
    }
}

fn shape(reader: &mut Reader, node: &Node, path: &str, kind: Kind) {
    let wanted = match (kind, &node.value) {
        (_, Value::Null) | (Kind::Any | Kind::Line, _) => return,
        (Kind::Table, Value::Map(_)) | (Kind::Options, Value::Map(_) | Value::List(_)) => return,
        (Kind::Table, _) => "must be a mapping of names to values",
        (Kind::Options, _) => "must be a list of options",
        (Kind::List, Value::Scalar { .. }) => return,
        (Kind::List, Value::List(items)) if items.iter().all(|item| item.text().is_some()) => return,
        (Kind::List, Value::List(_)) => "must be a list of texts; put a text that contains `: ` in quotes",
        (Kind::List, _) => "must be a list",
        (_, Value::Scalar { .. }) => return,
        (_, Value::List(_)) => "must be one value, not a list",
        (_, Value::Map(_)) => "must be one value, not a section",
    };
    reader.problem(path, wanted);
}

fn custom_tag(reader: &mut Reader, node: &Node, path: &str) {
    if matches!(node.value, Value::List(_) | Value::Map(_)) {
        reader.problem(path, "must be one value: a text, a number or a boolean");
    }
}

fn unknown(reader: &mut Reader, path: &str, name: &str, full: &str) {
    let names: Vec<&str> = if path.is_empty() {
        Vec::new()
    } else {
        path.split('.').collect()
    };
    let known = keys::children(&names);
    let near = nearest(name, known.iter().copied());
    let home = elsewhere(name).filter(|_| near.is_none());
    let message = match (near.or_else(|| shortened(name, &known)), home) {
        (_, Some(home)) => format!("has no effect here; it belongs to {home}"),
        (Some(near), _) => {
            format!("is an unknown key and has no effect; the nearest known key is \"{near}\"")
        }
        _ => "is an unknown key and has no effect".to_owned(),
    };
    reader.warn(full, message);
}

/// The known name that a mistyped one most likely means.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = if name.len() < 8 { 2 } else { 3 };
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= tolerance && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// The known name of which this one is a beginning, or most likely means the first words.
fn shortened<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let begins = known
        .iter()
        .find(|candidate| name.len() > 2 && candidate.starts_with(name));
    let words = |candidate: &&'a str| -> Option<usize> {
        let ends = candidate.match_indices('_').map(|(end, _)| end);
        let beginnings = ends.filter_map(|end| candidate.get(..end));
        beginnings
            .filter(|beginning| nearest(name, std::iter::once(*beginning)).is_some())
            .map(|beginning| strsim::damerau_levenshtein(name, beginning))
            .min()
    };
    let near = || {
        let meant = known
            .iter()
            .filter_map(|candidate| Some((words(candidate)?, candidate)));
        meant.min().map(|(_, candidate)| candidate)
    };
    begins.or_else(near).copied()
}

/// The section in which a key of this name is obeyed, when there is just one.
fn elsewhere(name: &str) -> Option<String> {
    let suffix = format!(".{name}");
    let mut homes = keys::KEYS
        .iter()
        .filter(|key| key.fate == Fate::Used)
        .flat_map(|key| keys::spelled_out(key.path))
        .filter_map(|path| path.strip_suffix(&suffix).map(str::to_owned));
    homes.next().filter(|_| homes.next().is_none())
}
