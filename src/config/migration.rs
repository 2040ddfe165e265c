//! A node file of Patroni -> the same file for Matriarch, and what changes by it.
//!
//! The text is kept as it was written, comments included: keys that have no effect stay, because they do no harm and
//! the way back is shorter. What is added is the one section that cannot be there yet, and the one line that a person
//! asks for.

use super::keys::{self, Fate};
use super::problem::Problem;
use super::raft::{PEER_PORT, guess_host, store_hosts};
use super::reader::Reader;
use super::value::{Node, Value};
use super::{node_file, notes, sources, units};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What a person decides beforehand.
#[derive(Clone, Debug, Default)]
pub struct MigrationWishes {
    /// The peer addresses of the other nodes; taken from the file's store when there are none.
    pub partners: Vec<String>,
    /// Another `ttl` for `bootstrap.dcs`, as it is to be written.
    pub ttl: Option<String>,
}

/// What becomes of a file.
#[derive(Clone, Debug, Default)]
pub struct Migration {
    /// The keys that are obeyed, in the order of the file.
    pub obeyed: Vec<String>,
    /// What has no effect, and why.
    pub without_effect: Vec<String>,
    /// What must be changed by hand before a node starts with it.
    pub refused: Vec<String>,
    /// What an operator may want to know.
    pub notes: Vec<String>,
    /// The section that was added.
    pub added: Option<String>,
    /// What is left to do by hand.
    pub to_do: Vec<String>,
    /// The whole new file.
    pub text: String,
}

/// Reads the file and writes nothing.
///
/// # Errors
/// The file cannot be read as YAML.
pub fn migration(
    path: &Path,
    env: &BTreeMap<String, String>,
    wishes: &MigrationWishes,
) -> Result<Migration, Vec<Problem>> {
    let text = sources::text(path).map_err(|problem| vec![problem])?;
    let before = sources::parsed(path, &text, env)?;
    let mut done = Migration {
        obeyed: obeyed(&before.root, ""),
        ..Migration::default()
    };
    done.text = with_ttl(&mut done, text, &before.root, wishes);
    add_raft(&mut done, &before.root, wishes);
    let after = sources::parsed(path, &done.text, env)?;
    let mut reader = Reader::new(after.root, "");
    reader.warnings = after.warnings;
    let config = node_file::read(&mut reader, path, env);
    let key = |problem: &Problem| (problem.source_name.clone(), problem.line);
    reader.warnings.sort_by_key(key);
    reader.problems.sort_by_key(key);
    done.without_effect = reader.warnings.iter().map(Problem::to_string).collect();
    done.refused = reader.problems.iter().map(Problem::to_string).collect();
    done.notes = notes(&config);
    Ok(done)
}

fn obeyed(node: &Node, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, child) in node.entries() {
        let full = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match keys::find(&full) {
            _ if child.is_null() => {}
            Some(key) if matches!(key.fate, Fate::Used | Fate::OldName(_)) => found.push(full),
            Some(_) => {}
            None if path == "tags" => found.push(full),
            None => found.extend(obeyed(child, &full)),
        }
    }
    found
}

/// The text with the wished `ttl` in the line that has one.
fn with_ttl(done: &mut Migration, text: String, root: &Node, wishes: &MigrationWishes) -> String {
    let Some(ttl) = &wishes.ttl else { return text };
    let line = root.at("bootstrap.dcs.ttl").and_then(|node| node.place.line);
    let Some(line) = line else {
        done.to_do.push(format!(
            "write `ttl: {ttl}` under bootstrap.dcs; the file has no ttl there"
        ));
        return text;
    };
    let mut changed = String::with_capacity(text.len());
    let mut found = false;
    for (number, written) in text.split_inclusive('\n').enumerate() {
        match written.split_once("ttl:") {
            Some((before, rest)) if number + 1 == line => {
                // The rest of the line stays: a comment, or other keys in braces.
                let end = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | '#');
                let value = rest.trim_start();
                let after = value.find(end).and_then(|at| value.get(at..)).unwrap_or_default();
                let _ = write!(changed, "{before}ttl: {ttl}{after}");
                found = true;
            }
            _ => changed.push_str(written),
        }
    }
    if !found {
        done.to_do.push(format!("line {line}: write `ttl: {ttl}` there"));
    }
    changed
}

fn add_raft(done: &mut Migration, root: &Node, wishes: &MigrationWishes) {
    if matches!(root.at("raft").map(|node| &node.value), Some(Value::Map(_))) {
        done.to_do.push(
            "see that the section `raft` names the nodes of this cluster, all on one free port".to_owned(),
        );
        return;
    }
    let name = root.at("name").and_then(Node::text).unwrap_or("node1");
    let own = guess_host(root);
    let with_port = |text: &String| match units::address(text, Some(PEER_PORT)) {
        Ok((host, port)) => units::join(&host, port),
        // Said where the whole file is judged.
        Err(_) => text.clone(),
    };
    let mut partners: Vec<String> = wishes.partners.iter().map(with_port).collect();
    if partners.is_empty() {
        let hosts = own
            .as_deref()
            .map(|own| store_hosts(root, own))
            .unwrap_or_default();
        partners = hosts.iter().map(|host| units::join(host, PEER_PORT)).collect();
        if !partners.is_empty() {
            done.to_do.push(
                "see that the hosts of the former store are the other nodes of this cluster".to_owned(),
            );
        }
    }
    if partners.is_empty() {
        partners = ["second-node", "third-node"]
            .map(|host| units::join(host, PEER_PORT))
            .to_vec();
        done.to_do
            .push("put the addresses of the other two nodes into raft.partner_addrs".to_owned());
    }
    let own = own.unwrap_or_else(|| {
        done.to_do
            .push("put this node's own address into raft.self_addr".to_owned());
        "this-node".to_owned()
    });
    done.to_do
        .push("put one long secret into raft.password, the same on every node".to_owned());
    let section = format!(
        "raft:\n  self_addr: {}\n  partner_addrs: [{}]\n  data_dir: /var/lib/matriarch/{name}\n  password: change-me-peer-secret\n",
        units::join(&own, PEER_PORT),
        partners.join(", "),
    );
    let break_before = if done.text.is_empty() || done.text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let _ = write!(
        done.text,
        "{break_before}\n# Added for Matriarch: the nodes agree among themselves.\n{section}"
    );
    done.added = Some(section);
}
