//! Runs a command of the operator: a callback, `pre_promote`, `before_stop`, `post_bootstrap`.

use super::run::Group;
use super::{Postgres, sys, ways};
use crate::guard;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The words of a command line, split as a shell would; `None` when its quotes do not match or nothing is there.
pub fn words(line: &str) -> Option<Vec<String>> {
    shlex::split(line).filter(|words| !words.is_empty())
}

impl Postgres {
    /// Runs a command line with more arguments as the owner of the data directory, in our working directory, without
    /// our secrets. Given up, be it by dropping this, it ends with everything it started.
    ///
    /// # Errors
    /// Why it did not succeed, for people.
    pub async fn run_command(
        &self,
        line: &str,
        args: &[String],
        env: &[(&str, OsString)],
        bound: Duration,
    ) -> Result<(), String> {
        let words = words(line).unwrap_or_default();
        let (program, rest) = words
            .split_first()
            .ok_or_else(|| format!("'{line}' is no command"))?;
        let mut command = Command::new(program);
        command.args(rest).args(args).stdin(Stdio::null());
        for (name, _) in guard::hidden_variables() {
            command.env_remove(name);
        }
        command.env_remove("NOTIFY_SOCKET");
        for (name, value) in env {
            command.env(name, value);
        }
        if let Some(owner) = self.owner() {
            command.uid(owner.uid).gid(owner.gid);
        }
        command.kill_on_drop(true).process_group(0);
        sys::die_with_parent(&mut command);
        let mut child = command
            .spawn()
            .map_err(|why| format!("{program} cannot be run: {why}"))?;
        let mut group = Group::of(child.id());
        match tokio::time::timeout(bound, child.wait()).await {
            Ok(Ok(status)) => {
                group.disband();
                if status.success() {
                    return Ok(());
                }
                Err(format!("{program} ended with {status}"))
            }
            Ok(Err(why)) => Err(format!("{program}: {why}")),
            Err(_) => Err(format!("{program} took longer than {} s", bound.as_secs())),
        }
    }

    /// How a script reaches the local server as superuser: libpq's keywords, the password in the file of `PGPASSFILE`.
    ///
    /// # Errors
    /// The password file could not be written.
    pub fn script_login(&self) -> Result<(String, OsString), String> {
        self.write_pgpass().map_err(|why| why.to_string())?;
        let setup = self.setup();
        let host = ways::hosts(setup).into_iter().next().unwrap_or_default();
        let dsn = self.script_conninfo(&host);
        Ok((dsn, setup.pgpass.clone().into_os_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_command_line_is_split_as_a_shell_would() {
        assert_eq!(words("/bin/notify 'a b' c").unwrap(), ["/bin/notify", "a b", "c"]);
        assert_eq!(words("/bin/notify 'a"), None);
        assert_eq!(words("  "), None);
    }
}
