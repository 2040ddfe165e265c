//! `configs/reference.yaml` as the table of keys gives it, and the tests that keep table, file and code equal.

use super::keys::{Fate, Given, KEYS, Key, spelled_out};
use super::node_file;
use super::reader::Reader;
use super::value::{Node, Place};
use super::yaml;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const HEAD: &str = "\
# Every key that Matriarch reads, with its default or an example, its unit and its meaning.
#
# A line without a leading # shows the default, or must be written. A line behind # has no default, or the one
# that its comment tells, and shows an example. This file is made from the table in src/config/keys.rs; a test
# keeps the two equal (MATRIARCH_RECORD=1 cargo test reference writes it anew).
#
# Variables of the environment overrule the file. They are named after sections and keys: PATRONI_NAME,
# PATRONI_SCOPE, PATRONI_RESTAPI_LISTEN, PATRONI_RAFT_PARTNER_ADDRS, PATRONI_POSTGRESQL_DATA_DIR,
# PATRONI_SUPERUSER_PASSWORD, PATRONI_REPLICATION_USERNAME, PATRONI_LOG_LEVEL and so on; the same names with
# MATRIARCH_ overrule those. PATRONI_CONFIGURATION holds a whole file and replaces all else.

";

/// One line of the tree: sections open before their keys.
struct Line<'a> {
    path: Vec<String>,
    key: &'a Key,
    active: bool,
}

fn lines() -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for key in KEYS.iter().filter(|key| key.fate == Fate::Used) {
        for (nth, path) in spelled_out(key.path).into_iter().enumerate() {
            let active = !matches!(key.given, Given::Optional(_));
            if active || nth == 0 {
                let path = path
                    .split('.')
                    .map(|name| if name == "*" { "app" } else { name }.to_owned())
                    .collect();
                lines.push(Line { path, key, active });
            }
        }
    }
    // Keys of one section stand together, sections in the order of their first key.
    let rank = |path: &[String], depth: usize, lines: &[Line<'_>]| {
        let head = path.get(..depth).unwrap_or(path).to_vec();
        lines
            .iter()
            .position(|line| line.path.starts_with(&head))
            .unwrap_or(usize::MAX)
    };
    let order: Vec<Vec<usize>> = lines
        .iter()
        .map(|line| {
            (1..=line.path.len())
                .map(|depth| rank(&line.path, depth, &lines))
                .collect()
        })
        .collect();
    let mut paired: Vec<_> = order.into_iter().zip(lines).collect();
    paired.sort_by(|(left, _), (right, _)| left.cmp(right));
    paired.into_iter().map(|(_, line)| line).collect()
}

fn example(line: &Line<'_>) -> String {
    match (line.key.given, line.path.get(2).map(String::as_str)) {
        (Given::Required("postgres"), Some("replication")) => "replicator".to_owned(),
        (Given::Required("postgres"), Some("rewind")) => "rewind".to_owned(),
        (Given::Default(text) | Given::Required(text) | Given::Optional(text), _) => text.to_owned(),
    }
}

fn render() -> String {
    let mut text = HEAD.to_owned();
    let lines = lines();
    let mut open: Vec<String> = Vec::new();
    let mut explained = BTreeSet::new();
    for line in &lines {
        let (section, name) = line.path.split_at(line.path.len() - 1);
        let common = section
            .iter()
            .zip(&open)
            .take_while(|(new, old)| new == old)
            .count();
        for depth in common..section.len() {
            let head = &section[..=depth];
            let active = lines
                .iter()
                .any(|line| line.active && line.path.starts_with(head));
            if depth == 0 {
                text.push('\n');
            }
            text.push_str(&format!(
                "{}{}{}:\n",
                "  ".repeat(depth),
                mark(active),
                head[depth]
            ));
        }
        open = section.to_vec();
        let indent = "  ".repeat(section.len());
        if explained.insert(line.key.path) {
            text.push_str(&format!("{indent}# {}{}\n", line.key.doc, likewise(line.key)));
        }
        text.push_str(&format!(
            "{indent}{}{}: {}\n",
            mark(line.active),
            name[0],
            example(line)
        ));
    }
    text.push_str(&tail());
    text
}

fn mark(active: bool) -> &'static str {
    if active { "" } else { "#" }
}

/// The other names that a row stands for.
fn likewise(key: &Key) -> String {
    let others: Vec<&str> = key
        .path
        .split('.')
        .filter(|part| part.contains('|'))
        .flat_map(|part| part.split('|').skip(1))
        .collect();
    if others.is_empty() || !matches!(key.given, Given::Optional(_)) {
        return String::new();
    }
    format!(" Likewise: {}.", others.join(", "))
}

fn tail() -> String {
    let mut text = String::new();
    let mut list = |title: &str, pick: &dyn Fn(&Key) -> Option<String>| {
        text.push_str(&format!("\n# {title}\n"));
        for key in KEYS {
            if let Some(rest) = pick(key) {
                text.push_str(&format!("#   {}{rest}\n", key.path));
            }
        }
    };
    list("Old names, still obeyed:", &|key| match key.fate {
        Fate::OldName(new) => Some(format!(" -> {new}")),
        _ => None,
    });
    list(
        "Refused until built, or unless they say that it is off:",
        &|key| match key.fate {
            Fate::Refused(_, why) => Some(format!(": {why}")),
            _ => None,
        },
    );
    list("Sections of an external store, no longer needed:", &|key| {
        (key.fate == Fate::Store).then(String::new)
    });
    list(
        "Accepted without effect, with a warning:",
        &|key| match key.fate {
            Fate::Ignored(why) => Some(format!(": {why}")),
            _ => None,
        },
    );
    text
}

#[test]
fn reference_yaml_is_what_the_table_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/reference.yaml");
    let rendered = render();
    if std::env::var_os("MATRIARCH_RECORD").is_some() {
        std::fs::write(&file, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == rendered,
        "configs/reference.yaml is stale: MATRIARCH_RECORD=1 cargo test reference"
    );
}

#[test]
fn reference_yaml_is_a_valid_node_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/reference.yaml");
    let loaded = super::load(&file, &BTreeMap::new());
    // No partners stand in it, because they have no default; hence no secret is needed but for its address.
    let problems: Vec<String> = loaded
        .err()
        .unwrap_or_default()
        .iter()
        .map(|problem| problem.key.clone())
        .collect();
    assert_eq!(problems, ["raft.password"]);
}

/// Every key of the table, with its example, read from one file: nothing is wrong or odd, and the code asks for
/// exactly the keys that the table calls obeyed.
#[test]
fn the_code_reads_what_the_table_says() {
    let place = Place {
        source: "everything".into(),
        line: None,
    };
    let mut root = Node::empty_map(place);
    let mut expected = BTreeSet::new();
    for key in KEYS {
        for path in spelled_out(key.path) {
            if key.fate == Fate::Used {
                expected.insert(path.clone());
                let (Given::Default(text) | Given::Required(text) | Given::Optional(text)) = key.given;
                let document = yaml::parse(&"everything".into(), &format!("value: {text}\n")).unwrap();
                root.set(&path, document.root.at("value").unwrap().clone());
            }
        }
    }
    let mut reader = Reader::new(root, "");
    node_file::read(&mut reader, Path::new("everything"), &BTreeMap::new());
    let texts = |list: &[super::Problem]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&reader.problems), Vec::<String>::new());
    let odd: Vec<String> = texts(&reader.warnings)
        .into_iter()
        .filter(|text| !text.contains("callbacks") && !text.contains("watchdog"))
        .collect();
    assert_eq!(odd, Vec::<String>::new());
    let unread: Vec<_> = expected.difference(&reader.asked).collect();
    assert!(unread.is_empty(), "in the table, but not read: {unread:?}");
    let unlisted: Vec<_> = reader
        .asked
        .iter()
        .filter(|path| super::keys::find(path).is_none())
        .collect();
    assert!(unlisted.is_empty(), "read, but not in the table: {unlisted:?}");
}
