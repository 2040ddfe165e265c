//! The section `notify:`: which HAProxy and pgBouncer hear of a change of primary at once.

use super::reader::Reader;
use super::secret::Secret;
use super::units;
use std::fmt;
use std::path::PathBuf;

/// Where a program listens for commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A unix socket, or the directory of one.
    Path(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// `notify:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// HAProxy, if it is to be told.
    pub haproxy: Option<Haproxy>,
    /// pgBouncer, if it is to be told.
    pub pgbouncer: Option<Pgbouncer>,
}

/// `notify.haproxy:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// Runtime sockets.
    pub sockets: Vec<Reach>,
    /// The backend whose servers carry the members' names.
    pub backend: String,
}

/// `notify.pgbouncer:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pgbouncer {
    /// Where they listen; a path is the directory of the unix socket.
    pub addresses: Vec<Reach>,
    /// The port that a unix socket's name carries.
    pub port: u16,
    /// One of pgBouncer's `admin_users`.
    pub username: String,
    /// Its password.
    pub password: Option<Secret>,
    /// The databases that are paused; empty: all.
    pub databases: Vec<String>,
    /// A file that pgbouncer.ini includes and that names the primary.
    pub hosts_file: Option<PathBuf>,
}

/// Where pgBouncer listens by its own default.
const PGBOUNCER_PORT: u16 = 6432;

pub(super) fn read(reader: &mut Reader) -> Notify {
    Notify {
        haproxy: haproxy(reader),
        pgbouncer: pgbouncer(reader),
    }
}

fn haproxy(reader: &mut Reader) -> Option<Haproxy> {
    reader.has("notify.haproxy").then_some(())?;
    let sockets = reaches(reader, "notify.haproxy.socket", None);
    let backend = reader
        .text("notify.haproxy.backend")
        .unwrap_or_else(|| "primary".to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if backend.is_empty() || !backend.chars().all(is_plain) {
        let message = format!("\"{backend}\" is not the name of a backend or listen section of HAProxy");
        reader.problem("notify.haproxy.backend", message);
    }
    Some(Haproxy { sockets, backend })
}

fn pgbouncer(reader: &mut Reader) -> Option<Pgbouncer> {
    reader.has("notify.pgbouncer").then_some(())?;
    let databases = reader.words("notify.pgbouncer.databases");
    if let Some(name) = databases.iter().find(|name| name.contains(['"', ';', '=', '\n'])) {
        let message = format!("\"{name}\" is not the name of a database of pgBouncer");
        reader.problem("notify.pgbouncer.databases", message);
    }
    Some(Pgbouncer {
        addresses: reaches(reader, "notify.pgbouncer.address", Some(PGBOUNCER_PORT)),
        port: PGBOUNCER_PORT,
        username: reader
            .text("notify.pgbouncer.username")
            .unwrap_or_else(|| "pgbouncer".to_owned()),
        password: reader.secret("notify.pgbouncer.password"),
        databases,
        hosts_file: reader.path("notify.pgbouncer.hosts_file"),
    })
}

/// One or more addresses, at least one.
fn reaches(reader: &mut Reader, key: &str, default_port: Option<u16>) -> Vec<Reach> {
    let words = reader.words(key);
    if words.is_empty() {
        let example = if default_port.is_some() {
            "127.0.0.1:6432"
        } else {
            "/run/haproxy/admin.sock"
        };
        let name = key.rsplit('.').next().unwrap_or(key);
        reader.problem(
            key,
            format!("is missing: who is to be told? Add `{name}: {example}`, or remove the section"),
        );
    }
    let mut found = Vec::new();
    for word in words {
        if word.starts_with('/') {
            found.push(Reach::Path(word.into()));
            continue;
        }
        match units::address(&word, default_port) {
            Ok((host, port)) => found.push(Reach::Tcp(host, port)),
            Err(message) => reader.problem(key, message),
        }
    }
    found
}
