//! What the command line needs of a node file: whom to ask and how to be let in. The rest of the file may be missing or
//! wrong, because a `patronictl.yaml` often holds nothing else.

use super::model::{Credentials, Ctl};
use super::node_file::{credentials, ctl};
use super::problem::Problem;
use super::reader::Reader;
use super::sources;
use super::units;
use std::collections::BTreeMap;
use std::path::Path;

const REST_PORT: u16 = 8008;

/// Whom the command line asks, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// The cluster's name.
    pub scope: Option<String>,
    /// REST addresses, `host:port`: the file's own node first, then where its partners' doors are if they all listen on
    /// the same port. Empty where the file names no host.
    pub doors: Vec<String>,
    /// Whether the doors speak TLS.
    pub tls: bool,
    /// `ctl:`, with what is absent there taken from `restapi:`.
    pub ctl: Ctl,
}

/// Reads `path` (empty: only the environment) for the command line; every problem with what it needs is reported.
///
/// # Errors
/// The file cannot be read, or what is needed of it makes no sense.
pub fn operator(path: &Path, env: &BTreeMap<String, String>) -> Result<Operator, Vec<Problem>> {
    let mut reader = Reader::new(sources::read(path, env)?.root, "");
    let own = own_door(&mut reader);
    let port = own.as_ref().map_or(REST_PORT, |(_, port)| *port);
    let self_addr = reader.address("raft.self_addr", None);
    let mut hosts: Vec<String> = self_addr.into_iter().map(|(host, _)| host).collect();
    for partner in reader.words("raft.partner_addrs") {
        hosts.extend(units::address(&partner, Some(port)).map(|(host, _)| host));
    }
    let mut doors: Vec<String> = own
        .into_iter()
        .map(|(host, port)| units::join(&host, port))
        .collect();
    for host in hosts {
        let door = units::join(&host, port);
        if !doors.contains(&door) {
            doors.push(door);
        }
    }
    let found = Operator {
        scope: reader.text("scope"),
        doors,
        tls: reader.has("restapi.certfile"),
        ctl: entry(&mut reader),
    };
    if reader.problems.is_empty() {
        Ok(found)
    } else {
        Err(reader.problems)
    }
}

/// Where the node itself is reached; a door that listens everywhere is reached on this machine.
fn own_door(reader: &mut Reader) -> Option<(String, u16)> {
    let published = reader.address("restapi.connect_address", Some(REST_PORT));
    published.or_else(|| {
        let (host, port) = reader.address("restapi.listen", Some(REST_PORT))?;
        let host = if units::is_wildcard(&host) {
            "127.0.0.1".to_owned()
        } else {
            host
        };
        Some((host, port))
    })
}

fn entry(reader: &mut Reader) -> Ctl {
    let mut entry = ctl(reader);
    let authentication: Option<Credentials> = credentials(reader, "restapi.authentication");
    entry.authentication = entry.authentication.or(authentication);
    entry.cacert = entry.cacert.or_else(|| reader.path("restapi.cafile"));
    let asks = matches!(
        reader.choice("restapi.verify_client"),
        Some("optional" | "required")
    );
    // The door's own key may be unreadable for whoever types the command, so it is used only where one is asked for.
    if entry.certfile.is_none() && asks {
        entry.certfile = reader.path("restapi.certfile");
        entry.keyfile = reader.path("restapi.keyfile");
        entry.keyfile_password = reader.secret("restapi.keyfile_password");
    }
    entry
}
