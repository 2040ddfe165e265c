//! libpq's password file.

use crate::config::Secret;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Rights of group and others; a file that gives any is passed over, as libpq does.
const OTHERS: u32 = 0o077;

/// The connection that needs a password.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Host as it is connected to.
    pub(super) host: &'a str,
    /// Port.
    pub(super) port: u16,
    /// Database.
    pub(super) database: &'a str,
    /// User.
    pub(super) user: &'a str,
}

/// The password in `$PGPASSFILE` or `~/.pgpass`, if there is one.
pub(super) fn find(wanted: &Wanted<'_>) -> Option<Secret> {
    let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty());
    let path = set("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&set("HOME")?).join(".pgpass")))?;
    if path.metadata().ok()?.mode() & OTHERS != 0 {
        return None;
    }
    find_in(&std::fs::read_to_string(path).ok()?, wanted)
}

fn find_in(text: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let port = wanted.port.to_string();
    let ours = [wanted.host, &port, wanted.database, wanted.user];
    let fits = |fields: &[String]| {
        let pairs = fields.iter().zip(ours);
        fields.len() == ours.len() + 1
            && pairs
                .into_iter()
                .all(|(field, ours)| field == "*" || field == ours)
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(fields)
        .find(|fields| fits(fields))
        .and_then(|fields| fields.last().cloned())
        .map(Secret::new)
}

/// Fields between colons; a backslash takes the next character as it is. The password is the rest of the line.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == ':' && fields.len() < 5 {
            fields.push(String::new());
            continue;
        }
        let plain = if char == '\\' { chars.next() } else { Some(char) };
        if let Some(field) = fields.last_mut() {
            field.extend(plain);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits() {
        let text = "# comment\nh:5432:*:me:one\n*:*:db:me:two\\:x:y\nh:1\n*:5433:*:*:three\n";
        let ask = |port, database| {
            let wanted = Wanted {
                host: "h",
                port,
                database,
                user: "me",
            };
            find_in(text, &wanted).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(ask(5432, "db").as_deref(), Some("one"));
        assert_eq!(ask(5433, "db").as_deref(), Some("two:x:y"));
        assert_eq!(ask(5433, "other").as_deref(), Some("three"));
        assert_eq!(ask(5434, "other"), None);
    }
}
