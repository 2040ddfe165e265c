//! Copies the data of a running server.

use super::aside::is_ours;
use super::conninfo::Remote;
use super::run::Program;
use super::{Postgres, PostgresError, files};
use crate::cluster::Endpoint;
use std::time::Duration;
use tokio::sync::watch;

/// A large database takes long; a source that stops answering is noticed by the connection itself.
const DEADLINE: Duration = Duration::from_secs(48 * 3600);

impl Postgres {
    /// Copies into `<data_dir>.matriarch-new` and renames it when complete; in a mount point, beside the place of each file.
    pub async fn base_backup(
        &self,
        from: &Endpoint,
        progress: watch::Sender<Option<String>>,
    ) -> Result<(), PostgresError> {
        let dir = self.data_dir();
        self.write_pgpass()?;
        let in_place = files::is_mount_point(dir);
        let target = self.copy_place();
        if files::names(dir)?.is_some_and(|names| names.iter().any(|name| !is_ours(name))) {
            return Err(PostgresError::Misconfigured(format!(
                "{} is not empty; move it aside first",
                dir.display()
            )));
        }
        files::remove_tree_aside(&target).await?;
        files::make_private_dir(&target, self.owner())?;
        let program = Program::new("pg_basebackup", DEADLINE).arg("-D").arg(&target);
        let program = self
            .connecting(program, "-d", Remote::Replication, from)
            .args(["-X", "stream", "-c", "fast", "--progress", "--no-password"].map(str::to_owned))
            .args(self.setup().basebackup_options.iter().cloned());
        let show = |line: &str| {
            if let Some(percent) = percent(line) {
                progress.send_replace(Some(percent));
            }
        };
        let finished = self.watch_program(program, |_| (), show).await?;
        progress.send_replace(None);
        if !finished.good {
            files::remove_tree_aside(&target).await?;
            return Err(Program::failed("pg_basebackup", finished.words));
        }
        // The source may not have had the signal at that moment; a copy must never start as anything but a standby.
        self.set_signal_in(&target, true)?;
        if in_place {
            return self.spread(&target);
        }
        // An empty directory in the way is replaced by the rename.
        files::rename(&target, dir)
    }
}

/// The percentage in `12345/67890 kB (18%), 0/1 tablespace`.
fn percent(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" kB (")?;
    let (number, _) = rest.split_once("%)")?;
    number
        .trim()
        .parse::<u32>()
        .ok()
        .map(|number| format!("{number}%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        assert_eq!(
            percent("12345/67890 kB (18%), 0/1 tablespace"),
            Some("18%".to_owned())
        );
        assert_eq!(
            percent("    0/22831 kB (  0%), 0/1 tablespace"),
            Some("0%".to_owned())
        );
        assert_eq!(percent("waiting for checkpoint"), None);
    }
}
