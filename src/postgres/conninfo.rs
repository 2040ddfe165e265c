//! Connection strings and the password file, as libpq reads them.

use super::{Login, Postgres, PostgresError, Upstream, files};
use crate::cluster::Endpoint;
use std::fmt::Write;
use std::path::Path;

/// A server that stops answering is given up after about two seconds, whatever its machine does.
const IMPATIENT: [(&str, &str); 6] = [
    ("connect_timeout", "2"),
    ("keepalives", "1"),
    ("keepalives_idle", "1"),
    ("keepalives_interval", "1"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "2000"),
];

/// Builds `key=value key='other value'`.
#[derive(Default)]
struct Conninfo(String);

impl Conninfo {
    fn set(&mut self, key: &str, value: &str) {
        let plain =
            !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\');
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = if plain {
            write!(self.0, "{space}{key}={value}")
        } else {
            write!(
                self.0,
                "{space}{key}='{}'",
                value.replace('\\', "\\\\").replace('\'', "\\'")
            )
        };
    }
}

impl Postgres {
    /// Connection string of the standby. Its name is what `synchronous_standby_names` means, so nothing else may
    /// carry it.
    pub(super) fn standby_conninfo(&self, upstream: &Upstream) -> String {
        self.conninfo(
            &self.setup().replication,
            &upstream.host,
            upstream.port,
            Some(upstream.alias.as_ref().unwrap_or(&self.setup().name)),
        )
    }

    /// Connection string of a program.
    pub(super) fn program_conninfo(&self, login: &Login, from: &Endpoint) -> String {
        self.conninfo(login, &from.host, from.port, None)
    }

    /// Connection string of a script that administers the local server.
    pub(super) fn script_conninfo(&self, host: &str) -> String {
        self.conninfo(&self.setup().superuser, host, self.setup().port, None)
    }

    /// The password stays in the password file.
    fn conninfo(&self, login: &Login, host: &str, port: u16, name: Option<&str>) -> String {
        let setup = self.setup();
        let mut text = Conninfo::default();
        text.set("dbname", &setup.database);
        text.set("user", &login.username);
        text.set("passfile", &setup.pgpass.to_string_lossy());
        text.set("host", host);
        text.set("port", &port.to_string());
        if !login.options.contains_key("sslmode") {
            text.set("sslmode", "prefer");
        }
        if let Some(name) = name {
            text.set("application_name", name);
        }
        for (key, value) in IMPATIENT {
            if !login.options.contains_key(key) {
                text.set(key, value);
            }
        }
        for (key, value) in &login.options {
            text.set(key, value);
        }
        text.0
    }

    /// Writes the password file that every connection string names.
    pub(super) fn write_pgpass(&self) -> Result<(), PostgresError> {
        let setup = self.setup();
        let mut text = String::new();
        for login in [&setup.replication, &setup.rewind, &setup.superuser] {
            if let Some(password) = &login.password {
                text.push_str(&entry(&login.username, password)?);
            }
        }
        if let Some(dir) = setup
            .pgpass
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        {
            files::make_private_dir(dir, self.owner())?;
        }
        files::replace_changed(&setup.pgpass, &text, self.owner())?;
        restrict(&setup.pgpass)?;
        files::give(&setup.pgpass, self.owner())
    }
}

/// libpq ignores a password file that others may read.
fn restrict(path: &Path) -> Result<(), PostgresError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(PostgresError::file("set the mode of the file", path))
}

fn entry(user: &str, password: &str) -> Result<String, PostgresError> {
    if user.contains('\n') || password.contains('\n') {
        return Err(PostgresError::Misconfigured(format!(
            "postgresql.authentication: the name or password of '{}' contains a line break; use one without",
            user.escape_default()
        )));
    }
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    Ok(format!("*:*:*:{}:{}\n", escape(user), escape(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        let mut text = Conninfo::default();
        text.set("user", "replicator");
        text.set("application_name", "o'neil \\ co");
        text.set("sslcert", "");
        assert_eq!(
            text.0,
            r"user=replicator application_name='o\'neil \\ co' sslcert=''"
        );
        assert_eq!(entry("a:b", "c\\d:e").unwrap(), "*:*:*:a\\:b:c\\\\d\\:e\n");
        assert!(entry("a", "b\nc").is_err());
    }
}
