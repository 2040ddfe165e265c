//! How a record is written: a line in Python's format, or an object of JSON.

use super::layer::Record;
use crate::config::{Log, LogField, LogFormat, LogPiece};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tracing::Level;

/// Python's way without a `dateformat`; milliseconds follow behind a comma.
const DATE: &str = "%Y-%m-%d %H:%M:%S";

pub(super) struct Style {
    format: LogFormat,
    /// Keys and fields of the object; `None` writes lines.
    json: Option<Vec<(String, LogField)>>,
    always: Vec<(String, Value)>,
    date: Option<String>,
    zone: TimeZone,
}

impl Style {
    pub(super) fn new(log: &Log) -> Self {
        Self {
            format: log.format.clone(),
            json: log.json.then(|| keys(log)),
            always: log.static_fields.clone(),
            date: log.dateformat.clone(),
            zone: TimeZone::system(),
        }
    }

    /// The record as one line, without its end.
    pub(super) fn render(&self, record: &Record) -> String {
        match &self.json {
            None => self.line(record),
            Some(keys) => self.object(keys, record),
        }
    }

    fn line(&self, record: &Record) -> String {
        let mut line = String::new();
        for piece in &self.format.pieces {
            match piece {
                LogPiece::Text(text) => line.push_str(text),
                LogPiece::Field {
                    field,
                    width,
                    left,
                    zeros,
                    most,
                } => {
                    let mut text = self.text(*field, record);
                    if let Some(most) = most {
                        text = text.chars().take(*most).collect();
                    }
                    let is_number = text.bytes().all(|b| b.is_ascii_digit());
                    match (left, zeros) {
                        (true, _) => line.push_str(&format!("{text:<width$}")),
                        (false, true) if is_number => line.push_str(&format!("{text:0>width$}")),
                        (false, _) => line.push_str(&format!("{text:>width$}")),
                    }
                }
            }
        }
        line
    }

    fn object(&self, keys: &[(String, LogField)], record: &Record) -> String {
        let mut object = Map::new();
        for (key, field) in keys {
            let value = match field {
                LogField::Message => Value::from(record.message.clone()),
                LogField::Line => Value::from(record.line),
                LogField::Process => Value::from(std::process::id()),
                LogField::LevelNumber => Value::from(number(record.level)),
                LogField::Created => Value::from(record.at_ms as f64 / 1000.0),
                LogField::Milliseconds => Value::from(record.at_ms % 1000),
                _ => Value::from(self.text(*field, record)),
            };
            object.insert(key.clone(), value);
        }
        for (name, value) in &record.fields {
            object
                .entry((*name).to_owned())
                .or_insert_with(|| Value::from(value.clone()));
        }
        for (key, value) in &self.always {
            object.insert(key.clone(), value.clone());
        }
        Value::Object(object).to_string()
    }

    fn text(&self, field: LogField, record: &Record) -> String {
        match field {
            LogField::Time => self.time(record.at_ms),
            LogField::Created => format!("{}.{:03}", record.at_ms / 1000, record.at_ms % 1000),
            LogField::Milliseconds => (record.at_ms % 1000).to_string(),
            LogField::Level => name(record.level).to_owned(),
            LogField::LevelNumber => number(record.level).to_string(),
            LogField::Message => message(record),
            LogField::Name => record.name.clone(),
            LogField::Module => record.name.rsplit('.').next().unwrap_or_default().to_owned(),
            LogField::Path => record.file.to_owned(),
            LogField::File => record.file.rsplit('/').next().unwrap_or_default().to_owned(),
            LogField::Line => record.line.to_string(),
            LogField::Process => std::process::id().to_string(),
            LogField::ProcessName => "matriarch".to_owned(),
            LogField::Thread => record.thread.clone(),
        }
    }

    fn time(&self, at_ms: u64) -> String {
        let at = i64::try_from(at_ms).ok();
        let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let at = at.unwrap_or_default().to_zoned(self.zone.clone());
        let wanted = self.date.as_deref();
        match wanted.and_then(|date| jiff::fmt::strtime::format(date, &at).ok()) {
            Some(text) => text,
            None => format!("{},{:03}", at.strftime(DATE), at_ms % 1000),
        }
    }
}

fn keys(log: &Log) -> Vec<(String, LogField)> {
    let own = || log.format.fields().map(|field| (field.name().to_owned(), field));
    log.keys.clone().unwrap_or_else(|| own().collect())
}

/// The message, and behind it what was said beside it; the lines of a longer one are indented, so that none looks like another record.
fn message(record: &Record) -> String {
    let mut text = record.message.clone();
    for (name, value) in &record.fields {
        text.push_str(&format!(" {name}={value}"));
    }
    if text.contains(['\n', '\r']) {
        text = text.replace("\r\n", "\n").replace(['\n', '\r'], "\n  ");
    }
    text
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            at_ms: 1_700_000_000_007,
            level: Level::WARN,
            name: "matriarch.node.agent".to_owned(),
            file: "src/node/agent.rs",
            line: 42,
            thread: "main".to_owned(),
            message: "it \"fell\"\nover".to_owned(),
            fields: vec![("peer", "10.0.0.1:5".to_owned())],
        }
    }

    fn rendered(log: Log) -> String {
        let style = Style {
            zone: TimeZone::UTC,
            ..Style::new(&log)
        };
        style.render(&record())
    }

    fn log(format: &str) -> Log {
        Log {
            format: LogFormat::parse(format).unwrap().0,
            ..Log::default()
        }
    }

    #[test]
    fn lines_in_pythons_format() {
        assert_eq!(
            rendered(Log::default()),
            "2023-11-14 22:13:20,007 WARNING: it \"fell\"\n  over peer=10.0.0.1:5"
        );
        let format =
            "%(levelname)-8s|%(lineno)05d|%(msecs)03d|%(name).9s|%(filename)s|%(module)8s|%(levelno)s 100%%";
        assert_eq!(
            rendered(log(format)),
            "WARNING |00042|007|matriarch|agent.rs|   agent|30 100%"
        );
        let dated = Log {
            dateformat: Some("%d.%m. %H:%M".to_owned()),
            ..log("[%(asctime)s]")
        };
        assert_eq!(rendered(dated), "[14.11. 22:13]");
    }

    #[test]
    fn objects_with_what_always_holds() {
        let json = Log {
            json: true,
            keys: Some(vec![
                ("asctime".to_owned(), LogField::Time),
                ("severity".to_owned(), LogField::Level),
                ("message".to_owned(), LogField::Message),
                ("lineno".to_owned(), LogField::Line),
            ]),
            static_fields: vec![("app".to_owned(), "herd".into()), ("shard".to_owned(), 3.into())],
            ..Log::default()
        };
        assert_eq!(
            rendered(json),
            r#"{"asctime":"2023-11-14 22:13:20,007","severity":"WARNING","message":"it \"fell\"\nover","lineno":42,"peer":"10.0.0.1:5","app":"herd","shard":3}"#
        );
    }
}
