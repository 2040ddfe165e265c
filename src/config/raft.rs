//! `raft:` of a node file, the one section that a file from Patroni has to be given.

use super::model::RaftConfig;
use super::reader::Reader;
use super::units;
use super::value::{Node, Value};
use std::path::PathBuf;

pub(super) const PEER_PORT: u16 = 2222;

pub(crate) fn read(reader: &mut Reader, name: &str) -> RaftConfig {
    let default_dir = PathBuf::from(format!("/var/lib/matriarch/{name}"));
    if !reader.has("raft") {
        let message = missing_section(reader.root(), name);
        reader.problem("raft", message);
    }
    let self_addr = own_address(reader);
    let bind_addr = reader
        .address("raft.bind_addr", None)
        .map(|(host, port)| units::join(&host, port));
    let raft = RaftConfig {
        partner_addrs: partners(reader, &self_addr),
        self_addr,
        bind_addr,
        data_dir: reader.path("raft.data_dir").unwrap_or(default_dir),
        password: reader
            .secret("raft.password")
            .filter(|secret| !secret.reveal().is_empty()),
        certfile: reader.path("raft.certfile"),
        keyfile: reader.path("raft.keyfile"),
        cafile: reader.path("raft.cafile"),
        heartbeat_interval_ms: reader.duration_ms("raft.heartbeat_interval"),
        election_min_ms: reader.duration_ms("raft.election_min"),
        election_max_ms: reader.duration_ms("raft.election_max"),
    };
    let files = [
        ("certfile", &raft.certfile),
        ("keyfile", &raft.keyfile),
        ("cafile", &raft.cafile),
    ];
    if files.iter().any(|(_, file)| file.is_some()) {
        for (key, _) in files.iter().filter(|(_, file)| file.is_none()) {
            let message = "is missing; mutual TLS needs certfile, keyfile and cafile";
            reader.problem(&format!("raft.{key}"), message);
        }
    }
    raft
}

fn own_address(reader: &mut Reader) -> String {
    if !reader.has("raft") {
        return String::new();
    }
    if !reader.has("raft.self_addr") && reader.words("raft.partner_addrs").is_empty() {
        let host = guess_host(reader.root()).unwrap_or_else(|| "10.0.0.11".to_owned());
        let message = format!(
            "is missing; it is the address under which the other nodes reach this one: add `self_addr: {}`, or \
             partner_addrs, if this node shall take part without a vote",
            units::join(&host, PEER_PORT)
        );
        reader.problem("raft.self_addr", message);
        return String::new();
    }
    // Patroni's meaning: a node without an address of its own takes part without a vote.
    if !reader.has("raft.self_addr") {
        if reader.has("raft.bind_addr") {
            let message = "goes with self_addr, which is missing; without it this node listens for no peers";
            reader.problem("raft.bind_addr", message);
        }
        return String::new();
    }
    match reader.address("raft.self_addr", None) {
        Some((host, port)) if units::is_wildcard(&host) => {
            let message = super::node_file::others_must_reach(&host, port);
            reader.problem("raft.self_addr", message);
            String::new()
        }
        Some((host, port)) => units::join(&host, port),
        None => String::new(),
    }
}

/// The partners without this node itself, which people list too, and without repetitions.
fn partners(reader: &mut Reader, self_addr: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in reader.words("raft.partner_addrs") {
        match units::address(&text, None) {
            Ok((host, port)) if units::is_wildcard(&host) => {
                let message = super::node_file::others_must_reach(&host, port);
                reader.problem("raft.partner_addrs", message);
            }
            Ok((host, port)) => {
                let address = units::join(&host, port);
                if address != self_addr && !found.contains(&address) {
                    found.push(address);
                }
            }
            Err(message) => reader.problem("raft.partner_addrs", message),
        }
    }
    found
}

/// The section to add, as far as the rest of the file tells what belongs into it.
fn missing_section(root: &Node, name: &str) -> String {
    let own = guess_host(root);
    let partners = own
        .as_deref()
        .map(|own| store_hosts(root, own))
        .unwrap_or_default();
    let partners = if partners.is_empty() {
        format!("<second node>:{PEER_PORT}, <third node>:{PEER_PORT}")
    } else {
        partners
            .iter()
            .map(|host| units::join(host, PEER_PORT))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let own = own.map_or_else(|| "<this node's address>".to_owned(), |host| bracketed(&host));
    let name = if name.is_empty() { "<name>" } else { name };
    format!(
        "this section is missing: the nodes agree among themselves and need each other's addresses. Add:
    raft:
      self_addr: {own}:{PEER_PORT}
      partner_addrs: [{partners}]
      data_dir: /var/lib/matriarch/{name}
      password: <one long secret, the same on every node>"
    )
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The host that the file itself gives as this node's address.
pub(super) fn guess_host(root: &Node) -> Option<String> {
    [
        "postgresql.connect_address",
        "restapi.connect_address",
        "postgresql.listen",
        "restapi.listen",
    ]
    .into_iter()
    .filter_map(|path| units::address(root.at(path)?.text()?, Some(1)).ok())
    .map(|(host, _)| host)
    .find(|host| !units::is_wildcard(host))
}

/// Where the store ran on the nodes themselves, its hosts are the partners.
pub(super) fn store_hosts(root: &Node, own: &str) -> Vec<String> {
    for section in ["etcd3", "etcd", "zookeeper"] {
        let Some(hosts) = root.at(&format!("{section}.hosts")) else {
            continue;
        };
        let texts: Vec<&str> = match &hosts.value {
            Value::List(items) => items.iter().filter_map(Node::text).collect(),
            Value::Scalar { text, .. } => text.split(',').collect(),
            _ => Vec::new(),
        };
        let mut found: Vec<String> = texts
            .iter()
            .map(|text| {
                text.trim()
                    .trim_start_matches("http://")
                    .trim_start_matches("https://")
            })
            .filter_map(|text| units::address(text, Some(1)).ok())
            .map(|(host, _)| host)
            .collect();
        let all = found.len();
        found.retain(|host| host != own);
        if found.len() < all {
            return found;
        }
    }
    Vec::new()
}

/// An address, or nothing when the host is not known because something else is wrong.
pub(crate) fn join_or_empty(host: &str, port: u16) -> String {
    if host.is_empty() {
        String::new()
    } else {
        units::join(host, port)
    }
}
