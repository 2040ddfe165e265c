//! What a stopped server still has to archive, handed to its archive before the data is rewound.
//!
//! A server that crashed has segments that nobody archived, and those of its timeline that its standbys received are marked
//! as archived there. pg_rewind removes them here, so the archive would have a hole for good.

use super::{Postgres, files};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// An archive that takes longer for one segment is as good as none.
const DEADLINE: Duration = Duration::from_secs(300);
const READY: &str = ".ready";
/// `eval` is what PostgreSQL does with the command: a shell's.
const SCRIPT: &str = r#"cd "$1" && eval "$2""#;

impl Postgres {
    /// Archives what waits for it in `dir`, oldest first, as far as its archive takes it; what it does not take keeps
    /// nobody from going on.
    pub(super) async fn archive_rest(&self, dir: &Path) {
        let (postgres, place) = (self.clone(), dir.to_owned());
        let waiting = tokio::task::spawn_blocking(move || postgres.waiting(&place)).await;
        let Ok(Some((command, names))) = waiting else {
            return;
        };
        for name in names {
            let line = filled(&command, &name);
            let words = ["-c", SCRIPT, "archive", &dir.to_string_lossy(), &line];
            let args = words.map(str::to_owned);
            if let Err(why) = self.run_command("sh", &args, &[], DEADLINE).await {
                tracing::warn!("archive_command failed for {name}, the rest is not archived: {why}");
                return;
            }
            let status = dir.join("pg_wal/archive_status");
            let done = std::fs::rename(
                status.join(format!("{name}{READY}")),
                status.join(format!("{name}.done")),
            );
            match done {
                Ok(()) => tracing::info!("archived {name} before the data is rewound"),
                Err(why) => tracing::warn!("{name} is archived, and could not be marked so: {why}"),
            }
        }
    }

    /// The command and what waits for it; blocking.
    fn waiting(&self, dir: &Path) -> Option<(String, Vec<String>)> {
        let status = files::names(&dir.join("pg_wal/archive_status")).ok()??;
        let ready = status.iter().filter_map(|name| name.strip_suffix(READY));
        let names: Vec<String> = ready.map(str::to_owned).collect();
        let archives = || {
            self.configured(dir, "archive_mode")
                .is_some_and(|mode| mode != "off")
        };
        if names.is_empty() || !archives() {
            return None;
        }
        let command = self.configured(dir, "archive_command")?;
        (!command.is_empty()).then_some((command, names))
    }

    /// What a parameter is in the configuration of the data in `dir`, which may have another name than usual; blocking.
    pub(super) fn configured(&self, dir: &Path, name: &str) -> Option<String> {
        let file = if self.has_config_apart() {
            self.main_conf()
        } else {
            dir.join("postgresql.conf")
        };
        let mut command = Command::new(self.program("postgres"));
        command
            .args(["-C", name, "-D"])
            .arg(dir)
            .arg(format!("--config-file={}", file.display()))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(owner) = self.owner() {
            use std::os::unix::process::CommandExt;
            command.uid(owner.uid).gid(owner.gid);
        }
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    }
}

/// The command for one file, as PostgreSQL fills it in.
fn filled(command: &str, name: &str) -> String {
    let mut line = String::with_capacity(command.len() + name.len());
    let mut rest = command.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('%', Some('p')) => line.push_str(&format!("pg_wal/{name}")),
            ('%', Some('f')) => line.push_str(name),
            ('%', Some('%')) => line.push('%'),
            (other, _) => {
                line.push(other);
                continue;
            }
        }
        rest.next();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn placeholders() {
        let line = filled("test ! -f /a/%f && cp \"%p\" /a/%f # 100%% %x %", "00A");
        assert_eq!(line, "test ! -f /a/00A && cp \"pg_wal/00A\" /a/00A # 100% %x %");
    }
}
