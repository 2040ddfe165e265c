//! `log:` of a node file.

use super::keys::{self, Given};
use super::log_format::{LogField, LogFormat};
use super::model::Log;
use super::reader::Reader;
use super::value::{Node, Value};
use std::collections::BTreeMap;

const LEVELS: &[&str] = &[
    "NOTSET", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL",
];

pub(crate) fn read(reader: &mut Reader) -> Log {
    let (format, keys) = format(reader);
    Log {
        level: reader.choice("log.level").unwrap_or("INFO").to_owned(),
        loggers: loggers(reader),
        json: reader.choice("log.type") == Some("json"),
        format,
        keys,
        dateformat: dateformat(reader),
        static_fields: static_fields(reader),
        queue: number(reader, "log.max_queue_size", 1000),
        dir: reader.path("log.dir"),
        file_num: number(reader, "log.file_num", 4),
        file_size: reader.bytes("log.file_size"),
        mode: mode(reader),
    }
}

fn number<T: TryFrom<i64>>(reader: &mut Reader, key: &str, usual: T) -> T {
    let number = reader.number(key);
    number
        .and_then(|number| T::try_from(number).ok())
        .unwrap_or(usual)
}

fn mode(reader: &mut Reader) -> Option<u32> {
    let text = reader.text("log.mode")?;
    let digits = text.trim().trim_start_matches("0o");
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
    if mode.is_none() {
        let message = format!("\"{text}\" is not a file mode; write it octal, such as 0640");
        reader.problem("log.mode", message);
    }
    mode
}

/// The line, and the keys of an object.
fn format(reader: &mut Reader) -> (LogFormat, Option<Vec<(String, LogField)>>) {
    const KEY: &str = "log.format";
    let node = reader.node(KEY);
    let mut unknown = Vec::new();
    let text = match node.as_ref().map(|node| &node.value) {
        Some(Value::List(items)) => {
            let keys = items.iter().flat_map(renamed);
            let keys: Vec<_> = keys
                .filter_map(|(name, key)| {
                    let field = LogField::named(&name);
                    if field.is_none() {
                        unknown.push(name);
                    }
                    Some((key, field?))
                })
                .collect();
            if reader.choice("log.type") != Some("json") {
                reader.problem(
                    KEY,
                    "is a list, which is for `type: json`; write a line like %(asctime)s %(message)s",
                );
            }
            warn_unknown(reader, &unknown);
            return (LogFormat::default(), Some(keys));
        }
        Some(Value::Map(_)) => {
            reader.problem(
                KEY,
                "must be a line like %(asctime)s %(message)s, or a list of fields",
            );
            None
        }
        Some(Value::Scalar { text, .. }) => Some(text.clone()),
        _ => None,
    };
    let parsed = text.map(|text| LogFormat::parse(&text));
    let format = match parsed {
        Some(Ok((format, names))) => {
            unknown = names;
            Some(format)
        }
        Some(Err(message)) => {
            reader.problem(KEY, message);
            None
        }
        None => None,
    };
    warn_unknown(reader, &unknown);
    (format.unwrap_or_else(LogFormat::usual), None)
}

/// `levelname`, or `levelname: level` to have it under another key.
fn renamed(item: &Node) -> Vec<(String, String)> {
    match &item.value {
        Value::Scalar { text, .. } => vec![(text.clone(), text.clone())],
        Value::Map(entries) => entries
            .iter()
            .filter_map(|(name, key)| Some((name.clone(), key.text()?.to_owned())))
            .collect(),
        _ => Vec::new(),
    }
}

fn warn_unknown(reader: &mut Reader, unknown: &[String]) {
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        reader.warn(
            "log.format",
            format!("{names}: our log has no such field; it is left out"),
        );
    }
}

fn dateformat(reader: &mut Reader) -> Option<String> {
    let text = reader.text("log.dateformat")?;
    let example = jiff::Timestamp::default().to_zoned(jiff::tz::TimeZone::UTC);
    match jiff::fmt::strtime::format(&text, &example) {
        Ok(_) => Some(text),
        Err(error) => {
            reader.problem(
                "log.dateformat",
                format!("\"{text}\" is no format of strftime: {error}"),
            );
            None
        }
    }
}

fn static_fields(reader: &mut Reader) -> Vec<(String, serde_json::Value)> {
    let node = reader.node("log.static_fields");
    node.iter()
        .flat_map(Node::entries)
        .map(|(key, value)| (key.clone(), value.json()))
        .collect()
}

fn loggers(reader: &mut Reader) -> BTreeMap<String, String> {
    let mut found = reader.parameters("log.loggers");
    found.retain(|name, level| {
        let path = format!("log.loggers.{name}");
        let is_level = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        let is_ours =
            name == "matriarch" || name.starts_with("matriarch.") || name.starts_with("matriarch_raft");
        if !is_level {
            let message = format!("\"{level}\" is not one of: DEBUG, INFO, WARNING, ERROR, CRITICAL");
            reader.problem(&path, message);
        } else if !is_ours {
            reader.warn(
                &path,
                "has no effect: modules of ours are called like matriarch.api",
            );
        }
        is_level && is_ours
    });
    found
}

impl Default for Log {
    /// As the table of keys has it.
    fn default() -> Self {
        let given = |key: &'static str| match keys::find(key).map(|key| key.given) {
            Some(Given::Default(text)) => text,
            _ => "",
        };
        let number = |key: &'static str| given(key).parse().unwrap_or(0);
        Self {
            level: given("log.level").to_owned(),
            loggers: BTreeMap::new(),
            json: false,
            format: LogFormat::usual(),
            keys: None,
            dateformat: None,
            static_fields: Vec::new(),
            queue: 1000,
            dir: None,
            file_num: number("log.file_num"),
            file_size: number("log.file_size"),
            mode: None,
        }
    }
}
