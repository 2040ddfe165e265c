//! A dead postmaster that nobody has reaped yet: PostgreSQL takes it for a living one and refuses to start.

use super::{Postgres, files};
use std::path::Path;
use std::time::Duration;

/// Whoever inherits the orphans of a killed node reaps them within this time, or never.
const REAPED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(5);

impl Postgres {
    /// Waits until the process in postmaster.pid is reaped, if it is a zombie. When daemon, guard and postmaster are
    /// killed together, the daemon may be back before whoever adopted the postmaster has taken notice of its death.
    pub async fn await_reaped(&self) {
        let Some(pid) = self.zombie() else { return };
        tracing::info!("waiting until the dead postmaster {pid} is reaped");
        let reaped = async {
            while self.zombie().is_some() {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(REAPED_WITHIN, reaped).await.is_err() {
            // As in a container whose first process reaps nobody. It is dead for certain, and the guard has ended
            // whatever it left behind, so its files say nothing any more.
            tracing::warn!("nobody reaps the dead postmaster {pid}; its lock files are removed");
            self.forget(pid);
        }
    }

    /// Removes postmaster.pid and the lock of the socket that it names, as far as they name `pid`.
    fn forget(&self, pid: u32) {
        let own = self.data_dir().join("postmaster.pid");
        let text = files::read(&own).ok().flatten().unwrap_or_default();
        // The fourth line is the port, the fifth the first socket's directory.
        let mut place = text.lines().skip(3);
        let socket = place
            .next()
            .zip(place.next())
            .map(|(port, dir)| Path::new(dir.trim()).join(format!(".s.PGSQL.{}.lock", port.trim())));
        for file in [Some(own), socket].into_iter().flatten() {
            let text = files::read(&file).ok().flatten().unwrap_or_default();
            let names_it = text
                .lines()
                .next()
                .is_some_and(|line| line.trim() == pid.to_string());
            if let (true, Err(why)) = (names_it, std::fs::remove_file(&file)) {
                tracing::warn!("{}: {why}", file.display());
            }
        }
    }

    /// The process that postmaster.pid names, if it is dead and unreaped.
    fn zombie(&self) -> Option<u32> {
        let text = files::read(&self.data_dir().join("postmaster.pid")).ok()??;
        let pid = text.lines().next()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name stands in parentheses and may hold anything; what follows the last one is regular.
        let state = stat.rsplit_once(')')?.1.split_whitespace().next()?;
        (state == "Z").then_some(pid)
    }
}
