//! The daemon's handle to its guard.

use super::link::{self, Call};
use super::page::Page;
use super::wire::{Adoption, Ask, Identity, Launch, Orders};
use super::{GuardError, GuardState, Messenger, Signal, StartSpec, WatchdogOrder};
use crate::cluster::{Epoch, Lsn, Moment};
use nix::unistd::{Gid, Uid, User};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Deadlines of the requests. A start or a kill first waits until every process is gone.
const QUICK_MS: u64 = 2000;
const START_MS: u64 = 15_000;
const KILL_ALL_MS: u64 = 15_000;

/// Where the guard is found and what it guards.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The Raft data directory; the guard's socket lies in it.
    pub dir: PathBuf,
    /// PostgreSQL's data directory, so that a new guard can find orphans in it before the first start.
    pub data_dir: Option<PathBuf>,
    /// The `matriarch` program.
    pub exe: PathBuf,
}

/// A handle to the guard; clones share it. When the last one is dropped the guard stays, with its postmaster
/// and its deadline.
#[derive(Clone, Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    calls: mpsc::Sender<Call>,
    state: watch::Receiver<GuardState>,
}

/// What the handle and its background task both touch.
#[derive(Debug, Default)]
pub(super) struct Shared {
    connection: Mutex<Option<Connected>>,
}

#[derive(Debug)]
struct Connected {
    page: Page,
    pid: i32,
}

impl Shared {
    pub(super) fn connect(&self, page: Page, pid: i32) {
        *self.lock() = Some(Connected { page, pid });
    }

    pub(super) fn disconnect(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connected>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guard {
    /// Connects to the living guard of `dir`, or spawns one. From then on a background task reconnects or
    /// respawns whenever the connection breaks.
    pub async fn attach(options: GuardOptions) -> Result<Self, GuardError> {
        let shared = Arc::new(Shared::default());
        let (calls, receiver) = mpsc::channel(32);
        let state = link::begin(options, shared.clone(), receiver).await?;
        Ok(Self { shared, calls, state })
    }

    /// The guard's state, whenever it changes.
    pub fn watch(&self) -> watch::Receiver<GuardState> {
        self.state.clone()
    }

    /// The guard's pid, while one is connected.
    pub fn pid(&self) -> Option<i32> {
        self.shared.lock().as_ref().map(|connected| connected.pid)
    }

    /// Sets or extends the deadline of an epoch; never shortens it. No system call when it is an extension.
    ///
    /// Before a start or a promotion under a new epoch, wait until [`GuardState::armed`] shows it. An error
    /// means that the deadline does not stand: whoever wanted it must not become or stay writable.
    pub fn arm(&self, epoch: Epoch, deadline: Moment) -> Result<(), GuardError> {
        let news = self
            .shared
            .lock()
            .as_ref()
            .ok_or(GuardError::Absent)?
            .page
            .arm(epoch, deadline)?;
        if news {
            self.nudge();
        }
        Ok(())
    }

    /// Takes the deadline away: PostgreSQL runs as a standby, or is stopped. Without effect once the fence has
    /// begun. Never call it while a writable PostgreSQL runs.
    pub fn disarm(&self) {
        if self
            .shared
            .lock()
            .as_ref()
            .is_some_and(|connected| connected.page.disarm())
        {
            self.nudge();
        }
    }

    /// How many turns the guard has made; it stands still when the guard does. At most 100 ms pass between two
    /// while a postmaster runs or a deadline is armed, one second otherwise. Zero without a connection.
    pub fn heartbeat(&self) -> u64 {
        self.shared
            .lock()
            .as_ref()
            .map_or(0, |connected| connected.page.heartbeat())
    }

    /// Starts a postmaster and answers its pid, after killing orphans of its data directory.
    pub async fn start(&self, spec: StartSpec) -> Result<i32, GuardError> {
        let launch = tokio::task::spawn_blocking(move || look_up(spec))
            .await
            .map_err(|_| GuardError::Lost)??;
        self.ask("start", Ask::Start(launch), START_MS).await
    }

    /// Takes over a postmaster of this data directory that somebody else started: it is watched, signalled and fenced
    /// like one of the guard's own. Only its end together with its guard's cannot be had: it is nobody's child.
    pub async fn adopt(&self, pid: i32, data_dir: PathBuf) -> Result<(), GuardError> {
        if !self.state.borrow().adopts {
            return Err(GuardError::Refused("it is of an older version".to_owned()));
        }
        let adoption = Adoption { pid, data_dir };
        self.ask("adopt", Ask::Adopt(adoption), QUICK_MS).await.map(drop)
    }

    /// Sends a signal to the postmaster.
    pub async fn signal(&self, signal: Signal) -> Result<(), GuardError> {
        self.ask("signal", Ask::Signal(signal as i32), QUICK_MS)
            .await
            .map(drop)
    }

    /// Kills the postmaster and every process of the data directory; answers when none is left.
    pub async fn kill_all(&self) -> Result<(), GuardError> {
        self.ask("kill_all", Ask::KillAll, KILL_ALL_MS).await.map(drop)
    }

    /// Gives standing orders in place of all earlier ones; a guard that was replaced needs them again.
    pub async fn order(
        &self,
        messenger: Option<Messenger>,
        watchdog: Option<WatchdogOrder>,
    ) -> Result<(), GuardError> {
        if !self.state.borrow().takes_orders {
            return Err(GuardError::Refused("it is of an older version".to_owned()));
        }
        let orders = Orders { messenger, watchdog };
        self.ask("order", Ask::Orders(orders), QUICK_MS).await.map(drop)
    }

    /// Notes how far the log reaches, for whoever has to read its end without the daemon. No system call.
    pub fn note_position(&self, position: Lsn) {
        if let Some(connected) = self.shared.lock().as_ref() {
            connected.page.note_position(position);
        }
    }

    /// Ends the guard; refused while anything runs.
    pub async fn quit(self) -> Result<(), GuardError> {
        self.ask("quit", Ask::Quit, QUICK_MS).await.map(drop)
    }

    /// Has the guard look at the page now. If the queue is full or the guard away, its next turn does.
    fn nudge(&self) {
        let (answer, _) = oneshot::channel();
        let _ = self.calls.try_send(Call {
            ask: Ask::Look,
            answer,
        });
    }

    async fn ask(&self, what: &'static str, ask: Ask, ms: u64) -> Result<i32, GuardError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.calls
                .send(Call { ask, answer })
                .await
                .map_err(|_| GuardError::Absent)?;
            answered.await.map_err(|_| GuardError::Lost)?
        };
        let within = tokio::time::timeout(Duration::from_millis(ms), asked).await;
        within.unwrap_or(Err(GuardError::TimedOut { what, ms }))
    }
}

/// Looks up the user's groups and home here: name services may wait for a network, the guard never.
fn look_up(spec: StartSpec) -> Result<Launch, GuardError> {
    let StartSpec {
        program,
        args,
        mut env,
        data_dir,
        user,
        epoch,
    } = spec;
    let mut identity = None;
    if let Some((uid, gid)) = user {
        let mut groups = vec![gid];
        let account = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        if let Some(account) = account {
            let name = CString::new(account.name.as_str()).unwrap_or_default();
            if let Ok(all) = nix::unistd::getgrouplist(&name, Gid::from_raw(gid)) {
                groups = all.iter().map(|group| group.as_raw()).collect();
            }
            let home = account.dir.to_string_lossy().into_owned();
            for (variable, value) in [
                ("HOME", home),
                ("USER", account.name.clone()),
                ("LOGNAME", account.name),
            ] {
                if !env.iter().any(|(set, _)| set == variable) {
                    env.push((variable.to_owned(), value));
                }
            }
        }
        identity = Some(Identity { uid, gid, groups });
    }
    for path in [&program, &data_dir] {
        if path.to_str().is_none() || !path.is_absolute() {
            let why = format!("{} must be an absolute path in UTF-8", path.display());
            return Err(GuardError::Refused(why));
        }
    }
    Ok(Launch {
        program,
        args,
        env,
        data_dir,
        identity,
        epoch,
    })
}
