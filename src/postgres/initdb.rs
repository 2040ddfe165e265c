//! Creates a database cluster.

use super::run::Program;
use super::{DataDir, Postgres, PostgresError, files};
use std::path::PathBuf;
use std::time::Duration;

/// A slow disk needs a while to flush a few thousand files.
const DEADLINE: Duration = Duration::from_secs(600);

/// Removes the file with the password, however initdb ends.
struct Secret(PathBuf);

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Postgres {
    /// Creates the database cluster with these long options; answers its system identifier.
    pub async fn initdb(&self, options: &[String]) -> Result<u64, PostgresError> {
        let superuser = &self.setup().superuser;
        files::make_private_dir(self.data_dir(), self.owner())?;
        let mut program = Program::new("initdb", DEADLINE)
            .in_our_locale()
            .arg("-D")
            .arg(self.data_dir())
            .arg(format!("--username={}", superuser.username));
        let secret = match &superuser.password {
            Some(password) => Some(self.password_file(password)?),
            None => None,
        };
        if let Some(Secret(path)) = &secret {
            let mut option = std::ffi::OsString::from("--pwfile=");
            option.push(path);
            program = program.arg(option);
        }
        // Without a password the superuser comes through the unix socket, or from this machine where there is none.
        let local = if secret.is_some() {
            "scram-sha-256"
        } else {
            "trust"
        };
        let host = match (&secret, &self.setup().unix_socket_dir) {
            (None, None) => "trust",
            _ => "scram-sha-256",
        };
        let says = |name: &str| {
            options
                .iter()
                .any(|option| option == name || option.starts_with(&format!("{name}=")))
        };
        if !says("--auth") {
            for (name, value) in [("--auth-local", local), ("--auth-host", host)] {
                if !says(name) {
                    program = program.arg(format!("{name}={value}"));
                }
            }
        }
        self.run_program(program.args(options.iter().cloned())).await?;
        match self.inspect()? {
            DataDir::Present(control) => Ok(control.system_id),
            other => Err(Program::failed(
                "initdb",
                format!("it ended well, but left {other:?}"),
            )),
        }
    }

    fn password_file(&self, password: &str) -> Result<Secret, PostgresError> {
        let unique = crate::clock::boot_ns();
        let path = std::env::temp_dir().join(format!("matriarch-{}-{unique}", std::process::id()));
        files::create(&path, &format!("{password}\n"), self.owner())?;
        Ok(Secret(path))
    }
}
