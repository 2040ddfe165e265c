//! The tree of a node file -> [`Config`]: the sections that every node has.

use super::allowed::Allowed;
use super::keys;
use super::model::{
    Bootstrap, Config, Credentials, Ctl, RestApi, VerifyClient, Vip, VipRole, Watchdog, WatchdogMode,
};
use super::postgresql;
use super::raft::{self, join_or_empty};
use super::reader::Reader;
use super::relations;
use super::settings;
use super::survey::{nearest, survey};
use super::units;
use super::value::Node;
use crate::cluster::{MemberName, Tags};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// PostgreSQL cuts longer names.
const SCOPE_BYTES: usize = 63;
/// A copy that is not counted yet streams under the name with ` (new)` behind it.
const NAME_BYTES: usize = 57;
const REST_PORT: u16 = 8008;

/// Reads everything; the configuration is meaningful only if the reader has no problems afterwards.
pub(crate) fn read(reader: &mut Reader, path: &Path, env: &BTreeMap<String, String>) -> Config {
    survey(reader, "");
    let scope = reader.required("scope");
    let name = reader.required("name");
    check_name(reader, "scope", &scope, SCOPE_BYTES);
    check_name(reader, "name", &name, NAME_BYTES);
    let raft = raft::read(reader, &name);
    let own_host = units::address(&raft.self_addr, None)
        .map(|(host, _)| host)
        .unwrap_or_default();
    let holds_data = holds_data(reader);
    let config = Config {
        path: path.to_owned(),
        namespace: reader.text("namespace").unwrap_or_default(),
        restapi: restapi(reader, &own_host),
        postgresql: holds_data.then(|| postgresql::read(reader, &name, &own_host, env)),
        bootstrap: bootstrap(reader),
        tags: tags(reader),
        watchdog: watchdog(reader),
        vip: vip(reader),
        notify: super::notify::read(reader),
        proxy: super::proxy::read(reader),
        log: super::log::read(reader),
        ctl: ctl(reader),
        name: MemberName(name),
        scope,
        raft,
    };
    if reader.problems.is_empty() {
        relations::check(reader, &config);
    }
    config
}

/// Whether the node has a PostgreSQL. A slip of the pen must not turn a node into a witness.
fn holds_data(reader: &mut Reader) -> bool {
    if reader.has("postgresql") {
        return true;
    }
    let keys: Vec<String> = reader
        .root()
        .entries()
        .iter()
        .map(|(key, _)| key.clone())
        .collect();
    if keys.iter().any(|key| key == "postgresql") {
        reader.problem(
            "postgresql",
            "is empty; fill it, or remove it if this node shall only vote",
        );
    }
    let unknown = keys
        .iter()
        .filter(|key| *key != "postgresql" && keys::find(key).is_none());
    if let Some(slip) = unknown
        .into_iter()
        .find(|key| nearest(key, ["postgresql"].into_iter()).is_some())
    {
        let message = "looks like `postgresql`, without which this node would only vote; correct it";
        reader.problem(slip, message);
    }
    false
}

fn check_name(reader: &mut Reader, key: &str, name: &str, most: usize) {
    let bad = |c: char| {
        c.is_control()
            || c.is_whitespace()
            || !c.is_ascii()
            || matches!(c, '/' | '\'' | '"' | '\\' | '*' | '(' | ')' | ',')
    };
    if name.contains(bad) || name.starts_with('.') {
        let message = format!(
            "\"{name}\" is not a name; use at most {most} letters, digits, dots, dashes and underscores"
        );
        reader.problem(key, message);
    } else if name.len() > most {
        let message = format!(
            "\"{name}\" is {} bytes long, of which PostgreSQL would cut some; use at most {most}",
            name.len()
        );
        reader.problem(key, message);
    }
}

fn restapi(reader: &mut Reader, own_host: &str) -> RestApi {
    let listen = reader.address("restapi.listen", Some(REST_PORT));
    let connect = reader.address("restapi.connect_address", Some(REST_PORT));
    let (listen_host, port) = listen.clone().unwrap_or_else(|| (own_host.to_owned(), REST_PORT));
    let (connect_host, connect_port) = connect.unwrap_or_else(|| {
        let host = if units::is_wildcard(&listen_host) {
            own_host.to_owned()
        } else {
            listen_host.clone()
        };
        (host, port)
    });
    if units::is_wildcard(&connect_host) {
        reader.problem(
            "restapi.connect_address",
            others_must_reach(&connect_host, connect_port),
        );
    }
    let keyfile = reader.path("restapi.keyfile");
    let certfile = reader.path("restapi.certfile");
    if keyfile.is_some() && certfile.is_none() {
        reader.problem(
            "restapi.certfile",
            "is missing beside keyfile; add the certificate, or remove keyfile",
        );
    }
    RestApi {
        listen: join_or_empty(&listen_host, port),
        connect_address: join_or_empty(&connect_host, connect_port),
        authentication: credentials(reader, "restapi.authentication"),
        certfile,
        keyfile,
        keyfile_password: reader.secret("restapi.keyfile_password"),
        cafile: reader.path("restapi.cafile"),
        verify_client: match reader.choice("restapi.verify_client") {
            Some("optional") => VerifyClient::Optional,
            Some("required") => VerifyClient::Required,
            _ => VerifyClient::None,
        },
        ciphers: ciphers(reader),
        http_extra_headers: reader.parameters("restapi.http_extra_headers"),
        https_extra_headers: reader.parameters("restapi.https_extra_headers"),
        server_tokens: reader
            .choice("restapi.server_tokens")
            .unwrap_or("original")
            .to_owned(),
        allowlist: allowlist(reader),
        allowlist_include_members: reader.flag("restapi.allowlist_include_members"),
    }
}

fn ciphers(reader: &mut Reader) -> Option<Vec<u16>> {
    const KEY: &str = "restapi.ciphers";
    let list = reader.text(KEY).filter(|list| !list.trim().is_empty())?;
    let cut = match super::ciphers::parse(&list) {
        Ok(cut) => cut,
        Err(message) => {
            reader.problem(KEY, message);
            return None;
        }
    };
    if !cut.without_effect.is_empty() {
        let message = format!(
            "{} cannot be had here and has no effect; {}",
            cut.without_effect.join(", "),
            super::ciphers::supported()
        );
        reader.warn(KEY, message);
    }
    if !reader.has("restapi.certfile") {
        reader.warn(KEY, "has no effect without certfile: the API does not speak TLS");
    }
    Some(cut.suites)
}

fn allowlist(reader: &mut Reader) -> Vec<Allowed> {
    let mut found = Vec::new();
    for word in reader.words("restapi.allowlist") {
        match Allowed::parse(&word) {
            Ok(allowed) => found.push(allowed),
            Err(message) => reader.problem("restapi.allowlist", message),
        }
    }
    found
}

/// The sentence for an address that stands for all of a machine's own.
pub(crate) fn others_must_reach(host: &str, port: u16) -> String {
    format!("{host} cannot be reached from other nodes; write this host's address, such as 10.0.0.11:{port}")
}

pub(crate) fn credentials(reader: &mut Reader, section: &str) -> Option<Credentials> {
    let username = reader.text(&format!("{section}.username"));
    let password = reader.secret(&format!("{section}.password"));
    match (username, password) {
        (Some(username), Some(password)) => Some(Credentials { username, password }),
        (None, None) => None,
        (Some(_), None) => {
            reader.problem(section, "has a username but no password; add the password");
            None
        }
        (None, Some(_)) => {
            reader.problem(section, "has a password but no username; add the username");
            None
        }
    }
}

pub(crate) fn ctl(reader: &mut Reader) -> Ctl {
    Ctl {
        authentication: credentials(reader, "ctl.authentication"),
        insecure: reader.flag("ctl.insecure"),
        cacert: reader.path("ctl.cacert"),
        certfile: reader.path("ctl.certfile"),
        keyfile: reader.path("ctl.keyfile"),
        keyfile_password: reader.secret("ctl.keyfile_password"),
    }
}

fn bootstrap(reader: &mut Reader) -> Bootstrap {
    let dcs = reader
        .root()
        .at(settings::DCS)
        .map(|node| node.json().to_string());
    let settings = settings::read(reader);
    if settings.paused {
        reader.problem(
            "bootstrap.dcs.pause",
            "a cluster cannot begin paused; remove the key",
        );
    }
    Bootstrap {
        settings,
        dcs: dcs.unwrap_or_else(|| "{}".to_owned()),
        initdb: reader.options(
            "bootstrap.initdb",
            &["pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version"],
        ),
        pg_hba: reader.lines("bootstrap.pg_hba").unwrap_or_default(),
        post_bootstrap: postgresql::command(reader, "bootstrap.post_bootstrap")
            .or_else(|| postgresql::command(reader, "bootstrap.post_init")),
        allow: reader.root().entries().iter().any(|(key, _)| key == "bootstrap"),
    }
}

fn tags(reader: &mut Reader) -> Tags {
    let priority = reader.number("tags.failover_priority");
    let nofailover = priority_or_flag(reader, "nofailover", "failover_priority", priority);
    let sync_priority = reader.number("tags.sync_priority");
    let nosync = priority_or_flag(reader, "nosync", "sync_priority", sync_priority);
    Tags {
        nofailover,
        failover_priority: if nofailover { 0 } else { priority.unwrap_or(1) },
        noloadbalance: reader.flag("tags.noloadbalance"),
        clonefrom: reader.flag("tags.clonefrom"),
        nosync,
        sync_priority: if nosync { 0 } else { sync_priority.unwrap_or(1) },
        shown: shown_tags(reader.root()),
    }
}

/// A boolean tag, or the priority that means the same when it is zero or less.
fn priority_or_flag(reader: &mut Reader, flag: &str, priority: &str, number: Option<i64>) -> bool {
    let path = format!("tags.{flag}");
    if !reader.has(&path) {
        return number.is_some_and(|number| number <= 0);
    }
    let set = reader.flag(&path);
    if let Some(number) = number.filter(|number| (*number <= 0) != set) {
        let word = if set { "True" } else { "False" };
        let message = format!(
            "Conflicting configuration between {flag}: {word} and {priority}: {number}. Defaulting to {flag}: {word}"
        );
        reader.warn(&path, message);
    }
    set
}

/// The tags as the API shows them: those that are off are left out, unless they overrule a priority.
fn shown_tags(root: &Node) -> String {
    const QUIET: [&str; 5] = ["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];
    let Some(tags) = root.get("tags") else {
        return "{}".to_owned();
    };
    let mut shown = serde_json::Map::new();
    for (name, node) in tags.entries() {
        let overrules = (name == "nofailover" && tags.get("failover_priority").is_some())
            || (name == "nosync" && tags.get("sync_priority").is_some());
        let flag = node.text().and_then(units::boolean);
        if QUIET.contains(&name.as_str()) {
            if flag == Some(true) || overrules {
                shown.insert(name.clone(), flag.unwrap_or(false).into());
            }
        } else {
            shown.insert(name.clone(), node.json());
        }
    }
    serde_json::Value::Object(shown).to_string()
}

fn watchdog(reader: &mut Reader) -> Watchdog {
    let mode = match reader.choice("watchdog.mode") {
        Some("off") => WatchdogMode::Off,
        Some("required") => WatchdogMode::Required,
        // A machine is not reset by a device that nobody wrote down.
        _ if !reader.has("watchdog") => WatchdogMode::Off,
        _ => WatchdogMode::Automatic,
    };
    let device = reader.path("watchdog.device").unwrap_or_default();
    let testing = reader.choice("watchdog.driver") == Some("testing");
    Watchdog {
        mode,
        device,
        safety_margin_s: reader.number("watchdog.safety_margin").unwrap_or(5),
        testing,
    }
}

fn vip(reader: &mut Reader) -> Option<Vip> {
    reader.has("vip").then_some(())?;
    let role = match reader.choice("vip.role") {
        Some("proxy") => VipRole::Proxy,
        _ => VipRole::Primary,
    };
    let proxies = || reader.root().entries().iter().any(|(key, _)| key == "proxy");
    if role == VipRole::Proxy && !proxies() {
        let message = "the address is to stand where a built-in proxy lives, and there is none here; write the section \
             proxy: too (`proxy: {}` is enough), or role: primary";
        reader.problem("vip.role", message);
    }
    let written = reader.required("vip.address");
    let interface = reader.required("vip.interface");
    let parsed = written.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.trim().parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.trim().parse().ok().filter(|prefix| *prefix <= longest)?;
        Some((address, prefix))
    });
    if parsed.is_none() && !written.is_empty() {
        let example = "is not an address with its prefix; write it like 10.0.0.100/24 or fd00::100/64";
        reader.problem("vip.address", format!("\"{written}\" {example}"));
    }
    // The kernel's limit, IFNAMSIZ with its final zero.
    if interface.len() > 15 {
        reader.problem(
            "vip.interface",
            format!("\"{interface}\" is longer than the 15 bytes of an interface's name"),
        );
    }
    let (address, prefix) = parsed?;
    Some(Vip {
        address,
        prefix,
        interface,
        role,
    })
}
