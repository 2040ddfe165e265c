//! Connection strings and the password file, as libpq reads them.

use super::run::Program;
use super::{Login, Postgres, PostgresError, Upstream, files};
use crate::cluster::Endpoint;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A server that stops answering is given up after about two seconds, whatever its machine does.
const IMPATIENT: [(&str, &str); 6] = [
    ("connect_timeout", "2"),
    ("keepalives", "1"),
    ("keepalives_idle", "1"),
    ("keepalives_interval", "1"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "2000"),
];

/// What libpq does anyway; people look for it in `primary_conninfo`.
const USUAL: [(&str, &str); 3] = [
    ("sslmode", "prefer"),
    ("gssencmode", "prefer"),
    ("channel_binding", "prefer"),
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
        let login = &self.setup().replication;
        let name = upstream.alias.as_ref().unwrap_or(&self.setup().name);
        let mut text = self.conninfo(login, &upstream.host, upstream.port, Some(name));
        if let Some(password) = &login.key_password {
            // libpq knows no file for this one, and nobody else reads the server's configuration.
            text.set("sslpassword", password);
        }
        text.0
    }

    /// A program that connects to `from` as one of our roles. Everybody can read its command line, so what opens the
    /// key of a certificate stands in a file that libpq is told of.
    pub(super) fn connecting(
        &self,
        program: Program,
        option: &str,
        role: Remote,
        from: &Endpoint,
    ) -> Program {
        let login = self.remote(role);
        let mut text = self.conninfo(login, &from.host, from.port, None);
        if login.key_password.is_none() {
            return program.arg(option).arg(text.0);
        }
        text.set("service", role.section());
        program
            .arg(option)
            .arg(text.0)
            .env("PGSERVICEFILE", self.service_file())
    }

    fn remote(&self, role: Remote) -> &Login {
        match role {
            Remote::Replication => &self.setup().replication,
            Remote::Rewind => &self.setup().rewind,
        }
    }

    fn service_file(&self) -> PathBuf {
        files::beside(&self.setup().pgpass, ".service")
    }

    /// Connection string of a script that administers the local server.
    pub(super) fn script_conninfo(&self, host: &str) -> String {
        self.conninfo(&self.setup().superuser, host, self.setup().port, None)
            .0
    }

    /// The password stays in the password file.
    fn conninfo(&self, login: &Login, host: &str, port: u16, name: Option<&str>) -> Conninfo {
        let setup = self.setup();
        let mut text = Conninfo::default();
        text.set("dbname", &setup.database);
        text.set("user", &login.username);
        text.set("passfile", &setup.pgpass.to_string_lossy());
        text.set("host", host);
        text.set("port", &port.to_string());
        if let Some(name) = name {
            text.set("application_name", name);
        }
        for (key, value) in USUAL.into_iter().chain(IMPATIENT) {
            if !login.options.contains_key(key) {
                text.set(key, value);
            }
        }
        for (key, value) in &login.options {
            text.set(key, value);
        }
        text
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
        self.write_secret(&setup.pgpass, &text)?;
        let mut services = String::new();
        for role in [Remote::Replication, Remote::Rewind] {
            if let Some(password) = &self.remote(role).key_password {
                services.push_str(&service(role, password)?);
            }
        }
        if services.is_empty() {
            return files::remove_file(&self.service_file());
        }
        self.write_secret(&self.service_file(), &services)
    }

    fn write_secret(&self, path: &Path, text: &str) -> Result<(), PostgresError> {
        files::replace_changed(path, text, self.owner())?;
        restrict(path)?;
        files::give(path, self.owner())
    }
}

/// Who connects to another node.
#[derive(Clone, Copy)]
pub(super) enum Remote {
    Replication,
    Rewind,
}

impl Remote {
    /// In libpq's file of services.
    fn section(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::Rewind => "rewind",
        }
    }
}

fn service(role: Remote, key_password: &str) -> Result<String, PostgresError> {
    let name = role.section();
    // libpq takes a line as it stands, without the blanks at its end.
    if key_password.contains('\n') || key_password.trim_end() != key_password {
        return Err(PostgresError::Misconfigured(format!(
            "postgresql.authentication.{name}.sslpassword ends with a blank or contains a line break; use one without"
        )));
    }
    Ok(format!("[{name}]\nsslpassword={key_password}\n"))
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
        assert_eq!(
            service(Remote::Rewind, "a = b").unwrap(),
            "[rewind]\nsslpassword=a = b\n"
        );
        assert!(service(Remote::Rewind, "a ").is_err() && service(Remote::Rewind, "a\nb").is_err());
    }
}
