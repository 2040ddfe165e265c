//! PostgreSQL's configuration file syntax, as strictly as we write it.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One `name = 'value'` line.
pub(super) fn line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quote(value))
}

/// A value in quotes; a line cannot hold a line break, so that becomes an escape.
pub(super) fn quote(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

/// Whether a name may stand in front of `=`: a word, or two with a dot between for an extension's parameter.
pub(super) fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    match name.split_once('.') {
        Some((class, name)) => word(class) && word(name),
        None => word(name),
    }
}

/// All parameters, sorted by name.
pub(super) fn lines(parameters: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        // Writing to a String cannot fail.
        let _ = text.write_str(&line(name, value));
    }
    text
}

/// The text without the lines that set one of `names`.
pub(super) fn without(text: &str, names: &[&str]) -> String {
    let sets = |line: &str| {
        let name = line
            .trim_start()
            .split(|c: char| c == '=' || c.is_whitespace())
            .next()
            .unwrap_or_default();
        names.iter().any(|unwanted| name.eq_ignore_ascii_case(unwanted))
    };
    text.split_inclusive('\n').filter(|line| !sets(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(line("a", "it's C:\\x\ny"), "a = 'it''s C:\\\\x\\ny'\n");
        assert!(is_name("shared_buffers") && is_name("pg_stat_statements.max"));
        assert!(!is_name("a b") && !is_name("") && !is_name("a.b.c") && !is_name("x='1'\ny"));
    }

    #[test]
    fn removing() {
        let text = "# keep\nwork_mem = '1MB'\nPrimary_conninfo = 'x'\nprimary_conninfo='y'\nprimary_conninfo_x = 1\n";
        assert_eq!(
            without(text, &["primary_conninfo"]),
            "# keep\nwork_mem = '1MB'\nprimary_conninfo_x = 1\n"
        );
    }
}
