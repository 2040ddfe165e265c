//! Brings diverged data back to the common past with another server's, in place.

use super::conninfo::Remote;
use super::run::Program;
use super::{Postgres, PostgresError, files};
use crate::cluster::Endpoint;
use std::path::Path;
use std::time::Duration;

/// It reads all of the log since the fork, and may begin with a crash recovery.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// From this line on pg_rewind may have changed the data.
const POINT_OF_NO_RETURN: &str = "rewinding from last common checkpoint";
/// Where its single-user server finds a configuration outside the data directory.
const CONFIG_FILE_SINCE: u32 = 15;
/// The control file's state of a standby that was stopped cleanly; pg_rewind recovers a crashed server itself.
const STOPPED_STANDBY: &str = "shut down in recovery";

impl Postgres {
    /// Runs pg_rewind against a primary. While it runs the data is in `<data_dir>.rewinding`, so that an interrupted
    /// rewind leaves nothing that starts; a failure that changed nothing puts it back.
    pub async fn rewind(&self, from: &Endpoint) -> Result<(), PostgresError> {
        let dir = self.data_dir();
        self.write_pgpass()?;
        // A configuration elsewhere names this very directory.
        if files::is_mount_point(dir) || self.has_config_apart() {
            return self
                .rewind_in(dir, from)
                .await
                .map(|_| ())
                .map_err(|(why, _)| why);
        }
        let aside = files::beside(dir, ".rewinding");
        if !files::exists(dir) {
            return Err(PostgresError::Misconfigured(format!(
                "there is no {} to rewind",
                dir.display()
            )));
        }
        files::remove_tree_aside(&aside).await?;
        files::rename(dir, &aside)?;
        match self.rewind_in(&aside, from).await {
            Ok(()) => files::rename(&aside, dir),
            Err((why, touched)) => {
                if !touched {
                    files::rename(&aside, dir)?;
                }
                Err(why)
            }
        }
    }

    /// Whatever comes of it, the directory starts as a standby only.
    async fn rewind_in(&self, dir: &Path, from: &Endpoint) -> Result<(), (PostgresError, bool)> {
        // The single-user server that recovers a crashed one refuses to run as a standby.
        self.set_signal_in(dir, false).map_err(|why| (why, false))?;
        self.archive_rest(dir).await;
        let result = match self.replay_rest(dir).await {
            Ok(()) => self.pg_rewind(dir, from).await,
            Err(why) => Err((why, false)),
        };
        let signal = self.set_signal_in(dir, true);
        match (result, signal) {
            (Ok(()), Err(why)) => Err((why, true)),
            (result, _) => result,
        }
    }

    /// pg_rewind judges by the pages, not by the log: of a standby that was stopped before it had replayed all it
    /// has, it would say that nothing is to be done, and the rest of that log would be replayed later.
    async fn replay_rest(&self, dir: &Path) -> Result<(), PostgresError> {
        let (postgres, place) = (self.clone(), dir.to_owned());
        let looked = tokio::task::spawn_blocking(move || postgres.control_in(&place)).await;
        match looked {
            Ok(Ok(control)) if control.state == STOPPED_STANDBY => {}
            Ok(Err(why)) => return Err(why),
            // A reader that panicked ends the daemon; a whole stop or a crash is pg_rewind's own affair.
            Ok(Ok(_)) | Err(_) => return Ok(()),
        }
        let program = Program::new("postgres", DEADLINE)
            .arg("--single")
            .arg("-F")
            .arg("-D")
            .arg(dir);
        let program = if self.has_config_apart() {
            let config = self.main_conf().display().to_string();
            program
                .arg(format!("--config-file={config}"))
                .arg(format!("--data-directory={}", dir.display()))
        } else {
            program
        };
        let program = program.arg("template1");
        self.run_program(program).await
    }

    async fn restores(&self, dir: &Path) -> bool {
        let (postgres, place) = (self.clone(), dir.to_owned());
        let asked = tokio::task::spawn_blocking(move || postgres.configured(&place, "restore_command")).await;
        asked.is_ok_and(|command| command.is_some_and(|command| !command.is_empty()))
    }

    async fn pg_rewind(&self, dir: &Path, from: &Endpoint) -> Result<(), (PostgresError, bool)> {
        let program = Program::new("pg_rewind", DEADLINE).arg("-D").arg(dir);
        let program = self
            .connecting(program, "--source-server", Remote::Rewind, from)
            .args(self.setup().rewind_options.iter().cloned());
        let names_conf = self.has_config_apart() && self.version().major >= CONFIG_FILE_SINCE;
        let program_knows_conf = names_conf || !self.has_config_apart();
        let program = if names_conf {
            program.arg(format!("--config-file={}", self.main_conf().display()))
        } else {
            program
        };
        // What the server has removed since is taken from the archive, where there is one to take it from.
        let restores = program_knows_conf && self.restores(dir).await;
        let program = program.args(restores.then(|| "--restore-target-wal".to_owned()));
        let mut touched = false;
        let watch = |line: &str| touched |= line.contains(POINT_OF_NO_RETURN);
        let finished = self.watch_program(program, |_| (), watch).await;
        match finished {
            Ok(finished) if finished.good => Ok(()),
            Ok(finished) => Err((Program::failed("pg_rewind", finished.words), touched)),
            Err(why) => Err((why, true)),
        }
    }
}
