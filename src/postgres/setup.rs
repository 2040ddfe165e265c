//! What the hands are told: the node's settings as far as PostgreSQL's programs and files need them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// A node's PostgreSQL as configured.
#[derive(Clone)]
pub struct Setup {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where its configuration files are; mostly the data directory itself.
    pub config_dir: PathBuf,
    /// Included instead of `postgresql.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// Where the programs are; `None`: to be found.
    pub bin_dir: Option<PathBuf>,
    /// Programs that have another name there.
    pub bin_names: BTreeMap<String, String>,
    /// Value of `listen_addresses`.
    pub listen_addresses: String,
    /// The port.
    pub port: u16,
    /// Directory of the unix socket for our own connection; `None`: TCP.
    pub unix_socket_dir: Option<PathBuf>,
    /// The database we connect to.
    pub database: String,
    /// Our password file.
    pub pgpass: PathBuf,
    /// Administers the local server.
    pub superuser: Login,
    /// Streams, and makes base backups.
    pub replication: Login,
    /// Runs pg_rewind.
    pub rewind: Login,
    /// The member's name.
    pub name: String,
    /// The cluster's name.
    pub scope: String,
    /// Options of pg_basebackup, each as `--x=y`.
    pub basebackup_options: Vec<String>,
    /// Options of pg_rewind, each as `--x=y`.
    pub rewind_options: Vec<String>,
}

/// A role and how it logs in.
#[derive(Clone)]
pub struct Login {
    /// The role.
    pub username: String,
    /// Its password, if it needs one.
    pub password: Option<String>,
    /// What opens the key of its certificate (`sslpassword`).
    pub key_password: Option<String>,
    /// Other connection keywords as libpq spells them.
    pub options: BTreeMap<String, String>,
}

/// Whom a standby streams from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The slot kept for this node there.
    pub slot: Option<String>,
    /// The stream's `application_name` where it must not be the member's: it would be taken for a standby that counts.
    pub alias: Option<String>,
}

/// What PostgreSQL's configuration files shall say.
#[derive(Clone, Debug, Default)]
pub struct ServerConf {
    /// Server parameters.
    pub parameters: BTreeMap<String, String>,
    /// Recovery parameters of the operator.
    pub recovery: BTreeMap<String, String>,
    /// Lines of pg_hba.conf; `None` leaves the file alone.
    pub hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf; `None` leaves the file alone.
    pub ident: Option<Vec<String>>,
    /// Whom to stream from.
    pub upstream: Option<Upstream>,
    /// `synchronous_standby_names`; `None` leaves it to `parameters`.
    pub names: Option<String>,
}

/// How the server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSpec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// User and group to become.
    pub user: Option<(u32, u32)>,
}

/// Name of the replication slot kept for a member.
pub fn slot_name(member: &str) -> String {
    let mut name = String::new();
    for c in member.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => {
                // Writing to a String cannot fail.
                let _ = write!(name, "u{:04}", u32::from(other));
            }
        }
    }
    name.truncate(63);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names() {
        for (member, slot) in [
            ("node1", "node1"),
            ("PG-1.eu", "pg_1_eu"),
            ("a b", "au0032b"),
            ("ä", "u0228"),
        ] {
            assert_eq!(slot_name(member), slot);
        }
        assert_eq!(slot_name(&"x".repeat(80)).len(), 63);
    }
}
