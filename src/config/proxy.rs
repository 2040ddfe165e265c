//! `proxy:` of a node file: the ports that lead to the primary and to the replicas.

use super::model::{Config, Proxy};
use super::reader::Reader;
use super::units;
use crate::cluster::Endpoint;

impl Config {
    /// Where other nodes reach this one's port of writers.
    pub fn proxy_address(&self) -> Option<Endpoint> {
        let (host, port) = units::address(&self.proxy.as_ref()?.rw, None).ok()?;
        let host = if units::is_wildcard(&host) {
            units::address(&self.restapi.connect_address, None).ok()?.0
        } else {
            host
        };
        Some(Endpoint { host, port })
    }
}

/// Nothing is built where the section is absent; an empty one has all defaults.
pub(crate) fn read(reader: &mut Reader) -> Option<Proxy> {
    reader.root().entries().iter().find(|(key, _)| key == "proxy")?;
    let listen = reader.text("proxy.listen").unwrap_or_default();
    let rw = place(reader, "proxy.rw", &listen);
    let ro = place(reader, "proxy.ro", &listen);
    if rw == ro && !rw.is_empty() {
        let message = format!("{ro} is where proxy.rw listens; readers need a port of their own");
        reader.problem("proxy.ro", message);
    }
    let count = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
    Some(Proxy {
        rw,
        ro,
        hold_timeout_ms: reader.duration_ms("proxy.hold_timeout"),
        handshake_timeout_ms: reader.duration_ms("proxy.handshake_timeout").max(1),
        max_lag: reader.has("proxy.max_lag").then(|| reader.bytes("proxy.max_lag")),
        ro_on_primary: reader.flag("proxy.ro_on_primary"),
        max_connections: count(reader.number("proxy.max_connections")).unwrap_or(1),
        max_connections_per_client: count(reader.number("proxy.max_connections_per_client"))
            .unwrap_or_default(),
        proxy_protocol: reader.flag("proxy.proxy_protocol"),
        auth_file: reader.path("proxy.auth_file"),
    })
}

/// A port alone goes with the section's address.
fn place(reader: &mut Reader, path: &str, listen: &str) -> String {
    let text = reader.text(path).unwrap_or_default();
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u16>() {
            Ok(port) if port > 0 => units::join(listen.trim(), port),
            _ => {
                reader.problem(path, format!("\"{text}\" is not a port between 1 and 65535"));
                String::new()
            }
        };
    }
    match units::address(text, None) {
        Ok((host, port)) => units::join(&host, port),
        Err(message) => {
            reader.problem(path, message);
            String::new()
        }
    }
}
