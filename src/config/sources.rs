//! Where a configuration comes from: a file, a directory of files, variables of the environment.

use super::keys::{self, Kind};
use super::problem::Problem;
use super::survey::nearest;
use super::value::{Node, Place};
use super::yaml;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAX_FILE_BYTES: u64 = 4 << 20;
/// The later one wins.
const PREFIXES: [&str; 2] = ["PATRONI_", "MATRIARCH_"];
const STORES: [&str; 7] = [
    "ETCD3",
    "ETCD",
    "CONSUL",
    "ZOOKEEPER",
    "EXHIBITOR",
    "KUBERNETES",
    "CITUS",
];

/// What Patroni called variables before; the newer name, which sorts behind the older, wins.
const OLD_NAMES: [(&str, &str); 3] = [
    ("LOGFORMAT", "LOG_FORMAT"),
    ("LOGLEVEL", "LOG_LEVEL"),
    ("LOG_DATEFMT", "LOG_DATEFORMAT"),
];

/// Everything that was written, merged into one tree.
pub(crate) struct Written {
    pub(crate) root: Node,
    pub(crate) warnings: Vec<Problem>,
}

/// Reads all sources; every one that cannot be read is a problem.
pub(crate) fn read(path: &Path, env: &BTreeMap<String, String>) -> Result<Written, Vec<Problem>> {
    let whole = PREFIXES
        .iter()
        .rev()
        .map(|prefix| format!("{prefix}CONFIGURATION"));
    for variable in whole {
        // As with Patroni, this one replaces the file and every other variable.
        if let Some(text) = env.get(&variable).filter(|text| !text.trim().is_empty()) {
            let source = Arc::from(format!("environment variable {variable}").as_str());
            let document = yaml::parse(&source, text).map_err(|problem| vec![problem])?;
            return Ok(Written {
                root: document.root,
                warnings: document.warnings,
            });
        }
    }
    let mut written = files(path)?;
    for prefix in PREFIXES {
        variables(&mut written, prefix, env);
    }
    Ok(written)
}

/// The same for a file whose text is known.
pub(super) fn parsed(
    path: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<Written, Vec<Problem>> {
    let source = Arc::from(path.display().to_string().as_str());
    let document = yaml::parse(&source, text).map_err(|problem| vec![problem])?;
    let mut written = Written {
        root: document.root,
        warnings: document.warnings,
    };
    for prefix in PREFIXES {
        variables(&mut written, prefix, env);
    }
    Ok(written)
}

fn files(path: &Path) -> Result<Written, Vec<Problem>> {
    let place = Place {
        source: Arc::from(path.display().to_string().as_str()),
        line: None,
    };
    let mut written = Written {
        root: Node::empty_map(place),
        warnings: Vec::new(),
    };
    let mut problems = Vec::new();
    for file in list(path).map_err(|problem| vec![problem])? {
        let source = Arc::from(file.display().to_string().as_str());
        match text(&file).and_then(|text| yaml::parse(&source, &text)) {
            Ok(document) => {
                written.root.overlay(document.root);
                written.warnings.extend(document.warnings);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(written)
    } else {
        Err(problems)
    }
}

/// The file itself, or a directory's YAML files in the order of their names. No path is no file: the environment may say
/// everything.
fn list(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path
        .read_dir()
        .map_err(|error| unreadable(path, &error.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|end| end == "yml" || end == "yaml") && file.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(unreadable(path, "the directory holds no *.yml or *.yaml file"));
    }
    Ok(files)
}

pub(super) fn text(file: &Path) -> Result<String, Problem> {
    let size = file
        .metadata()
        .map_err(|error| unreadable(file, &error.to_string()))?
        .len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(file, "it is too large for a configuration"));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error.to_string()))
}

fn unreadable(path: &Path, why: &str) -> Problem {
    Problem {
        source_name: path.display().to_string(),
        line: None,
        key: String::new(),
        message: format!("cannot be read: {why}"),
    }
}

fn variables(written: &mut Written, prefix: &str, env: &BTreeMap<String, String>) {
    let known = names();
    let mut stores_told = Vec::new();
    for (variable, text) in env {
        let Some(name) = variable
            .strip_prefix(prefix)
            .filter(|name| *name != "CONFIGURATION")
        else {
            continue;
        };
        let place = Place {
            source: Arc::from(format!("environment variable {variable}").as_str()),
            line: None,
        };
        let name = OLD_NAMES
            .iter()
            .find(|(old, _)| *old == name)
            .map_or(name, |(_, new)| *new);
        if let Some((path, kind)) = known.get(name) {
            if !text.is_empty() {
                written.root.set(path, value(text, *kind, &place));
            }
            continue;
        }
        let store = STORES.iter().find(|store| {
            name.strip_prefix(**store)
                .is_some_and(|rest| rest.starts_with('_'))
        });
        let message = match store {
            Some(store) if stores_told.contains(store) => continue,
            Some(store) => {
                stores_told.push(store);
                "is no longer needed: the nodes agree among themselves".to_owned()
            }
            None => match nearest(name, known.keys().map(String::as_str)) {
                Some(near) => {
                    format!("is unknown and has no effect; the nearest known one is {prefix}{near}")
                }
                None => "is unknown and has no effect".to_owned(),
            },
        };
        written.warnings.push(Problem {
            source_name: place.source.to_string(),
            line: None,
            key: String::new(),
            message,
        });
    }
}

/// A variable's text: lists and mappings are YAML, everything else is taken as it is. Patroni's brackets may be left out.
fn value(text: &str, kind: Kind, place: &Place) -> Node {
    let bare = !text.trim_start().starts_with(['[', '-', '{']) && !text.contains('\n');
    let structured = match kind {
        Kind::Table if bare => Some(format!("{{{text}}}")),
        // A line of the log names its fields so; whatever names none is a list of them.
        Kind::Line if !text.contains("%(") && bare => Some(format!("[{text}]")),
        Kind::Line if text.contains("%(") => None,
        Kind::List if bare => None,
        Kind::Table | Kind::Options | Kind::Line | Kind::List => Some(text.to_owned()),
        _ => None,
    };
    if let Some(text) = structured {
        // A one-entry mapping makes any YAML value readable by the reader of documents.
        let wrapped = format!("value:\n  {}\n", text.replace('\n', "\n  "));
        if let Ok(document) = yaml::parse(&place.source, &wrapped)
            && let Some(node) = document.root.get("value")
        {
            return Node {
                value: node.value.clone(),
                place: place.clone(),
            };
        }
    }
    Node {
        value: super::value::Value::Scalar {
            text: text.to_owned(),
            plain: true,
        },
        place: place.clone(),
    }
}

/// Names of variables (without prefix) and the keys they set.
pub(crate) fn names() -> BTreeMap<String, (String, Kind)> {
    let mut found = BTreeMap::new();
    for key in keys::KEYS {
        if !matches!(key.fate, keys::Fate::Used | keys::Fate::Ignored(_)) {
            continue;
        }
        for path in keys::spelled_out(key.path) {
            if let Some(name) = name_of(&path) {
                found.insert(name, (path, key.kind));
            }
        }
    }
    found
}

/// The variable of a key, where Patroni has one.
fn name_of(path: &str) -> Option<String> {
    const OF_POSTGRESQL: [&str; 7] = [
        "listen",
        "connect_address",
        "proxy_address",
        "config_dir",
        "data_dir",
        "pgpass",
        "bin_dir",
    ];
    let name = match path.split_once('.') {
        None if matches!(path, "name" | "scope" | "namespace") => path.to_owned(),
        None => return None,
        Some((section @ ("restapi" | "ctl" | "log" | "raft"), rest)) => {
            format!(
                "{section}_{}",
                rest.strip_prefix("authentication.").unwrap_or(rest)
            )
        }
        Some(("postgresql", rest)) => {
            if let Some(role) = rest.strip_prefix("authentication.") {
                role.to_owned()
            } else if let Some(program) = rest.strip_prefix("bin_name.") {
                format!("postgresql_bin_{program}")
            } else if OF_POSTGRESQL.contains(&rest) {
                format!("postgresql_{rest}")
            } else {
                return None;
            }
        }
        Some(_) => return None,
    };
    Some(name.replace('.', "_").to_ascii_uppercase())
}
