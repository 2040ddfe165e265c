//! Typed reading of a tree by key path: defaults from the table of keys, every mistake collected.

use super::keys::{self, Given, Key, Kind};
use super::model::CommandOption;
use super::problem::Problem;
use super::secret::Secret;
use super::units;
use super::value::{Node, Place, Value, yaml_bool};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A tree being read, and what was found wrong or odd on the way.
pub(crate) struct Reader {
    root: Node,
    /// A path left out of messages: the dynamic configuration is read as if it stood in a file.
    hidden: &'static str,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// What was asked for; a test compares it with the table.
    #[cfg(test)]
    pub(crate) asked: std::collections::BTreeSet<String>,
}

impl Reader {
    pub(crate) fn new(root: Node, hidden: &'static str) -> Self {
        Self {
            root,
            hidden,
            problems: Vec::new(),
            warnings: Vec::new(),
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// What stands at a path of the table.
    pub(crate) fn node(&mut self, path: &str) -> Option<Node> {
        #[cfg(test)]
        self.asked.insert(path.to_owned());
        self.root.at(path).cloned()
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.at(path).is_some()
    }

    /// Notes a mistake at a path; its place is that of the nearest thing above that is there.
    pub(crate) fn problem(&mut self, path: &str, message: impl Into<String>) {
        let problem = self.remark(path, message.into());
        self.problems.push(problem);
    }

    /// Notes an oddity.
    pub(crate) fn warn(&mut self, path: &str, message: impl Into<String>) {
        let warning = self.remark(path, message.into());
        self.warnings.push(warning);
    }

    fn remark(&self, path: &str, message: String) -> Problem {
        let mut place = &self.root.place;
        let mut node = &self.root;
        for name in path.split('.') {
            match node.entries().iter().find(|(key, _)| key == name) {
                Some((_, child)) => {
                    node = child;
                    place = &child.place;
                }
                None => break,
            }
        }
        problem_at(place, path.strip_prefix(self.hidden).unwrap_or(path), message)
    }

    /// The text at a path, or its default.
    pub(crate) fn text(&mut self, path: &str) -> Option<String> {
        let written = self.node(path).and_then(|node| node.text().map(str::to_owned));
        written.or_else(|| match keys::find(path).map(|key| key.given) {
            Some(Given::Default(text)) => Some(text.to_owned()),
            _ => None,
        })
    }

    /// A text that must be there; a missing one is noted with its meaning and an example, and read as empty.
    pub(crate) fn required(&mut self, path: &str) -> String {
        if let Some(text) = self.text(path).filter(|text| !text.trim().is_empty()) {
            return text;
        }
        if self.shape_is_right(path)
            && let Some(Key {
                given: Given::Required(example),
                doc,
                ..
            }) = keys::find(path)
        {
            let name = path.rsplit('.').next().unwrap_or(path);
            self.problem(path, format!("is missing. {doc} Add `{name}: {example}`"));
        }
        String::new()
    }

    /// False where something of another shape was written, which has been noted already.
    fn shape_is_right(&self, path: &str) -> bool {
        self.root.at(path).is_none_or(|node| node.text().is_some())
    }

    pub(crate) fn secret(&mut self, path: &str) -> Option<Secret> {
        self.text(path).map(Secret::new)
    }

    /// A file or directory; an empty text is none, as templates leave it.
    pub(crate) fn path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path).filter(|text| !text.trim().is_empty())?;
        match std::path::absolute(&text) {
            Ok(found) => Some(found.components().collect()),
            Err(_) => {
                self.problem(
                    path,
                    format!("\"{text}\" is not a path; write it like /var/lib/postgresql"),
                );
                None
            }
        }
    }

    /// A boolean, or `None` when nothing valid was written and there is no default.
    pub(crate) fn flag_if_given(&mut self, path: &str) -> Option<bool> {
        let text = self.text(path)?;
        self.parsed(path, &text, units::boolean(&text))
    }

    pub(crate) fn flag(&mut self, path: &str) -> bool {
        self.flag_if_given(path).unwrap_or(false)
    }

    pub(crate) fn number(&mut self, path: &str) -> Option<i64> {
        let text = self.text(path)?;
        let bounds = match keys::find(path).map(|key| key.kind) {
            Some(Kind::Number(least, most)) => least..=most,
            _ => i64::MIN..=i64::MAX,
        };
        let number = text.trim().parse().ok().filter(|number| bounds.contains(number));
        self.parsed(path, &text, number)
    }

    pub(crate) fn bytes(&mut self, path: &str) -> u64 {
        self.text(path)
            .and_then(|text| self.parsed(path, &text, units::bytes(&text, 1)))
            .unwrap_or(0)
    }

    /// A size, or `None` for one that limits nothing: zero or less, as Patroni has it.
    pub(crate) fn bytes_if_limited(&mut self, path: &str) -> Option<u64> {
        let text = self.text(path)?;
        if text.trim().parse::<i64>().is_ok_and(|number| number <= 0) {
            return None;
        }
        self.parsed(path, &text, units::bytes(&text, 1))
    }

    /// Milliseconds of a duration.
    pub(crate) fn duration_ms(&mut self, path: &str) -> u64 {
        let Some(text) = self.text(path) else { return 0 };
        let bare = match keys::find(path).map(|key| key.kind) {
            Some(Kind::Seconds) => Some(1_000),
            _ => None,
        };
        self.parsed(path, &text, units::duration_ms(&text, bare))
            .unwrap_or(0)
    }

    /// One of the words of a choice, as the table spells it; a boolean in any spelling counts as on or off.
    pub(crate) fn choice(&mut self, path: &str) -> Option<&'static str> {
        let text = self.text(path)?;
        let words = match keys::find(path).map(|key| key.kind) {
            Some(Kind::Choice(words)) => words,
            _ => &[],
        };
        let switch = match units::boolean(&text) {
            Some(true) => "on",
            Some(false) => "off",
            None => text.trim(),
        };
        let word = words
            .iter()
            .find(|word| word.eq_ignore_ascii_case(text.trim()) || word.eq_ignore_ascii_case(switch))
            .copied();
        self.parsed(path, &text, word)
    }

    fn parsed<T>(&mut self, path: &str, text: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            let kind = keys::find(path).map_or(Kind::Any, |key| key.kind);
            self.problem(path, mismatch(text, kind));
        }
        value
    }

    /// host:port.
    pub(crate) fn address(&mut self, path: &str, default_port: Option<u16>) -> Option<(String, u16)> {
        let text = self.text(path)?;
        match units::address(text.trim(), default_port) {
            Ok(address) => Some(address),
            Err(message) => {
                self.problem(path, message);
                None
            }
        }
    }

    /// The lines of a list, or of one text; `None` when the key is absent.
    pub(crate) fn lines(&mut self, path: &str) -> Option<Vec<String>> {
        let node = self.node(path)?;
        Some(match &node.value {
            Value::Scalar { text, .. } => text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
                .collect(),
            Value::List(items) => items.iter().filter_map(Node::text).map(str::to_owned).collect(),
            _ => Vec::new(),
        })
    }

    /// The words of a list, or of one text with commas between (quotes as Patroni's variables have them).
    pub(crate) fn words(&mut self, path: &str) -> Vec<String> {
        let lines = self.lines(path).unwrap_or_default();
        let split = lines.iter().flat_map(|line| line.split(','));
        let words = split.map(|word| word.trim().trim_matches(['\'', '"']).trim());
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// A mapping of names to values that PostgreSQL understands; null values are left out.
    pub(crate) fn parameters(&mut self, path: &str) -> BTreeMap<String, String> {
        let Some(node) = self.node(path) else {
            return BTreeMap::new();
        };
        let mut found = BTreeMap::new();
        for (name, value) in node.entries() {
            match value.parameter() {
                Some(text) => {
                    found.insert(name.clone(), text);
                }
                None if value.is_null() => {}
                None => self.problem(
                    &format!("{path}.{name}"),
                    "must be one value, such as 'a, b' for a list",
                ),
            }
        }
        found
    }

    /// Command options: `[data-checksums, encoding: UTF8, "auth-host=md5"]` or a mapping.
    pub(crate) fn options(&mut self, path: &str, ours: &[&str]) -> Vec<CommandOption> {
        let mut found = Vec::new();
        let Some(node) = self.node(path) else { return found };
        match &node.value {
            Value::List(items) => {
                for item in items {
                    match &item.value {
                        Value::Scalar { text, .. } => found.push(word_option(text)),
                        Value::Map(entries) => found.extend(entries.iter().filter_map(pair_option)),
                        Value::Null => {}
                        Value::List(_) => {
                            self.problem(path, "has a list inside the list; write one option a line")
                        }
                    }
                }
            }
            Value::Map(entries) => found.extend(entries.iter().filter_map(pair_option)),
            _ => {}
        }
        found.retain(|option| {
            let plain = option
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !plain || option.name.is_empty() {
                let message = format!(
                    "\"{}\" is not an option; write long names without dashes",
                    option.name
                );
                self.problem(path, message);
            } else if ours.contains(&option.name.as_str()) {
                self.problem(
                    path,
                    format!("the option \"{}\" is set by us; remove it", option.name),
                );
            }
            plain
        });
        found
    }
}

/// A problem at a known place.
pub(crate) fn problem_at(place: &Place, path: &str, message: String) -> Problem {
    Problem {
        source_name: place.source.to_string(),
        line: place.line,
        key: path.to_owned(),
        message,
    }
}

fn word_option(text: &str) -> CommandOption {
    let text = text.trim().trim_start_matches("--");
    match text.split_once('=') {
        Some((name, value)) => CommandOption {
            name: name.trim().to_owned(),
            value: Some(value.trim().to_owned()),
        },
        None => CommandOption {
            name: text.to_owned(),
            value: None,
        },
    }
}

/// `name: value`; `true` or nothing is an option without a value, `false` is no option.
fn pair_option((name, node): &(String, Node)) -> Option<CommandOption> {
    let name = name.trim().trim_start_matches("--").to_owned();
    match &node.value {
        Value::Scalar { text, plain: true } => match yaml_bool(text) {
            Some(true) => Some(CommandOption { name, value: None }),
            Some(false) => None,
            None => Some(CommandOption {
                name,
                value: Some(text.clone()),
            }),
        },
        Value::Scalar { text, .. } => Some(CommandOption {
            name,
            value: Some(text.clone()),
        }),
        _ => Some(CommandOption { name, value: None }),
    }
}

/// What is wrong with a text, and what would be right.
fn mismatch(text: &str, kind: Kind) -> String {
    match kind {
        Kind::Flag => format!("\"{text}\" is neither true nor false; write true or false"),
        Kind::Number(i64::MIN, i64::MAX) => format!("\"{text}\" is not a whole number"),
        Kind::Number(least, most) => format!("\"{text}\" is not a whole number between {least} and {most}"),
        Kind::Bytes => format!("\"{text}\" is not a size; write bytes or a unit, such as 1048576 or 1MB"),
        Kind::Seconds => {
            format!("\"{text}\" is not a duration; write seconds or a unit, such as 2, 2.5 or 30min")
        }
        Kind::Duration => format!("\"{text}\" is not a duration with its unit; write it like 50ms or 2s"),
        Kind::Choice(words) => format!("\"{text}\" is not one of: {}", words.join(", ")),
        _ => format!("\"{text}\" is not understood here"),
    }
}
