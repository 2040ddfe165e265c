//! YAML in the one style that is compared and grepped: sorted keys, two spaces, quotes only where needed.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Block style, ending with a newline.
pub(super) fn block(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut text, map, 0, false),
        Value::Array(list) if !list.is_empty() => sequence(&mut text, list, 0),
        other => {
            text.push_str(&flow(other));
            text.push('\n');
        }
    }
    text
}

/// Flow style on one line: `{num: 1.4, zone: z0}`.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs: Vec<String> = sorted(map)
                .into_iter()
                .map(|(key, value)| format!("{}: {}", scalar(key), flow(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => scalar(text),
        plain => plain.to_string(),
    }
}

fn sorted(map: &Map<String, Value>) -> BTreeMap<&str, &Value> {
    map.iter().map(|(key, value)| (key.as_str(), value)).collect()
}

fn mapping(text: &mut String, map: &Map<String, Value>, indent: usize, after_dash: bool) {
    for (at, (key, value)) in sorted(map).into_iter().enumerate() {
        if at > 0 || !after_dash {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&scalar(key));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                mapping(text, inner, indent + 2, false);
            }
            Value::Array(inner) if !inner.is_empty() => {
                text.push('\n');
                sequence(text, inner, indent);
            }
            other => {
                text.push(' ');
                text.push_str(&flow(other));
                text.push('\n');
            }
        }
    }
}

fn sequence(text: &mut String, list: &[Value], indent: usize) {
    for value in list {
        text.push_str(&" ".repeat(indent));
        text.push_str("- ");
        match value {
            Value::Object(inner) if !inner.is_empty() => mapping(text, inner, indent + 2, true),
            other => {
                text.push_str(&flow(other));
                text.push('\n');
            }
        }
    }
}

/// A string as it may stand in both styles.
fn scalar(text: &str) -> String {
    if text.chars().any(|c| c.is_control()) {
        // JSON's string is a double-quoted YAML one.
        Value::from(text).to_string()
    } else if is_plain(text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

fn is_plain(text: &str) -> bool {
    const INDICATORS: &str = "-?:,[]{}#&*!|>'\"%@`";
    let starts_badly = text.starts_with(|c| INDICATORS.contains(c)) && !starts_like_a_word(text);
    !(text.is_empty()
        || starts_badly
        || text != text.trim()
        || text.contains([',', '[', ']', '{', '}'])
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with(':')
        || means_something_else(text))
}

/// `-`, `?` and `:` mark nothing when something other than a space follows.
fn starts_like_a_word(text: &str) -> bool {
    let mut chars = text.chars();
    matches!(chars.next(), Some('-' | '?' | ':')) && chars.next().is_some_and(|c| c != ' ' && c != '-')
}

/// Words that YAML reads as null, a truth value, a number, a time.
fn means_something_else(text: &str) -> bool {
    const WORDS: &[&str] = &["~", "null", "true", "false", "yes", "no", "on", "off", "=", "<<"];
    if WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return true;
    }
    let number = text.trim_start_matches(['-', '+']);
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '_');
    let starts_with_digit = number.starts_with(|c: char| c.is_ascii_digit());
    let is_number = starts_with_digit && number.replace('_', "").parse::<f64>().is_ok()
        || number.starts_with('.') && number.get(1..).is_some_and(|rest| digits(rest) || rest == "inf")
        || text.eq_ignore_ascii_case(".nan")
        || number.starts_with("0x")
            && number
                .get(2..)
                .is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
    let is_clock = starts_with_digit && number.contains(':') && number.split(':').all(digits);
    let date: Vec<&str> = text.splitn(3, '-').collect();
    let is_date = matches!(date.as_slice(), [year, month, day]
        if year.len() == 4 && digits(year) && digits(month) && day.get(..2).is_some_and(digits));
    is_number || is_clock || is_date
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_or_quoted() {
        for (text, expected) in [
            ("zone", "zone"),
            ("127.0.0.1:5461", "127.0.0.1:5461"),
            ("0/5000060", "0/5000060"),
            ("", "''"),
            ("1.4", "'1.4'"),
            ("-3", "'-3'"),
            ("yes", "'yes'"),
            ("12:30", "'12:30'"),
            ("2099-01-01T00:00:00+00:00", "'2099-01-01T00:00:00+00:00'"),
            ("a: b", "'a: b'"),
            ("*", "'*'"),
            ("it's", "it's"),
            ("'tis", "'''tis'"),
            ("two\nlines", "\"two\\nlines\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }

    #[test]
    fn nested() {
        let value = json!([{"b": {"y": [1, "x"], "x": {}}, "a": null}, []]);
        assert_eq!(
            block(&value),
            "- a: null\n  b:\n    x: {}\n    y:\n    - 1\n    - x\n- []\n"
        );
        assert_eq!(flow(&value), "[{a: null, b: {x: {}, y: [1, x]}}, []]");
        assert_eq!(block(&json!([])), "[]\n");
    }
}
