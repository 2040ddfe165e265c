//! The guard's ward: the postmaster, its children and whatever else lives in the data directory.

use super::launch::{Inherited, Launched, launch};
use super::sweep::{Hunter, Quarry};
use super::wire::Launch;
use crate::cluster::Moment;
use crate::sys::{self, FileId, Reaped};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two rounds of a sweep.
pub(super) const ROUND_MS: u64 = 5;
/// How long PostgreSQL's log collector may write down the last words after a postmaster's death.
const LOGGER_GRACE_MS: u64 = 100;

/// Everything is to end: SIGQUIT first, SIGKILL from a moment on, until nothing is left.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    kill_from: Moment,
    spare_logger_until: Moment,
    next_hunt: Moment,
}

/// All processes of the data directory.
#[derive(Debug)]
pub(super) struct Ward {
    hunter: Hunter,
    quarry: Quarry,
    data_dir: Option<PathBuf>,
    /// The lock on the data directory itself: two guards never act on one.
    claim: Option<Flock<File>>,
    sweep: Option<Sweep>,
    /// The postmaster: child of this guard and not reaped yet, or adopted and not ended.
    pub(super) postmaster: Option<i32>,
    /// The adopted postmaster, which is no child: whoever started it reaps it.
    adopted: Option<OwnedFd>,
    pub(super) exits: u64,
    pub(super) last_exit: Option<i32>,
    /// Nothing was found when last looked.
    pub(super) clean: bool,
}

impl Ward {
    /// Looks after a data directory, which may be named later.
    pub(super) fn new(data_dir: Option<PathBuf>) -> io::Result<Self> {
        let mut ward = Self {
            hunter: Hunter::new()?,
            quarry: Quarry::default(),
            data_dir,
            claim: None,
            sweep: None,
            postmaster: None,
            adopted: None,
            exits: 0,
            last_exit: None,
            clean: true,
        };
        ward.look();
        Ok(ward)
    }

    /// Reaps what has ended. The end of the postmaster begins a sweep at once: an orphaned backend may be busy,
    /// commit and answer its client for seconds.
    pub(super) fn reap(&mut self, now: Moment) {
        if self.adopted.as_ref().is_some_and(has_ended) {
            self.adopted = None;
            self.postmaster_ended(None, now);
        }
        loop {
            match sys::reap() {
                Reaped::Child(pid, status) if Some(pid) == self.postmaster => {
                    self.postmaster_ended(Some(status), now);
                }
                Reaped::Child(..) => {}
                Reaped::AllRun => {
                    self.quarry.own_children = true;
                    return;
                }
                Reaped::NoneLeft => {
                    self.quarry.own_children = false;
                    return;
                }
            }
        }
    }

    fn postmaster_ended(&mut self, status: Option<i32>, now: Moment) {
        self.postmaster = None;
        self.exits += 1;
        self.last_exit = status;
        self.begin_sweep(now, now.plus(LOGGER_GRACE_MS));
    }

    /// Takes over a postmaster that somebody else started in this directory.
    pub(super) fn adopt(&mut self, pid: i32, dir: &Path) -> Result<(), String> {
        if let Some(pid) = self.postmaster {
            return Err(format!("postmaster {pid} runs already"));
        }
        if self.sweep.is_some() {
            return Err("what an ended PostgreSQL left behind is being removed".to_owned());
        }
        self.claim(Some(dir))?;
        // Opened before it is looked at: what is looked at is then what is kept.
        let process = sys::open_process(pid).map_err(|error| format!("process {pid}: {error}"))?;
        if !self.hunter.would_find(pid, &self.quarry) || has_ended(&process) {
            return Err(format!("process {pid} is no PostgreSQL of {}", dir.display()));
        }
        self.adopted = Some(process);
        self.postmaster = Some(pid);
        self.clean = false;
        Ok(())
    }

    /// The adopted postmaster: readable when it has ended.
    pub(super) fn adopted(&self) -> Option<BorrowedFd<'_>> {
        self.adopted.as_ref().map(AsFd::as_fd)
    }

    /// Signals the postmaster, never another process that was given its number.
    fn strike(&self, pid: i32, signal: Signal) -> io::Result<()> {
        match &self.adopted {
            Some(process) => sys::signal_process(process.as_fd(), pid, signal),
            None => Ok(kill(Pid::from_raw(pid), signal)?),
        }
    }

    /// A child that never became a postmaster does not count as one; reaped or not, it is swept away.
    pub(super) fn forget_child(&mut self, pid: i32, exits: u64, last_exit: Option<i32>, now: Moment) {
        self.postmaster = self.postmaster.filter(|postmaster| *postmaster != pid);
        (self.exits, self.last_exit) = (exits, last_exit);
        self.end_all(now);
    }

    /// Nothing of PostgreSQL lives.
    pub(super) fn idle(&self) -> bool {
        self.clean && self.postmaster.is_none() && self.sweep.is_none() && !self.quarry.own_children
    }

    /// SIGQUIT to everything now, SIGKILL from `kill_from` on. A harsher sweep that is under way stays.
    pub(super) fn end_all(&mut self, kill_from: Moment) {
        self.begin_sweep(kill_from, Moment(0));
    }

    fn begin_sweep(&mut self, kill_from: Moment, spare_logger_until: Moment) {
        self.clean = false;
        let new = Sweep {
            kill_from,
            spare_logger_until,
            next_hunt: Moment(0),
        };
        let merged = self.sweep.map_or(new, |old| Sweep {
            kill_from: old.kill_from.min(new.kill_from),
            spare_logger_until: old.spare_logger_until.min(new.spare_logger_until),
            next_hunt: old.next_hunt,
        });
        self.sweep = Some(merged);
    }

    /// A sweep is under way.
    pub(super) fn sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// One round of the sweep; true when it has just ended, with nothing left. Infallible and free of
    /// allocations: this is the fence.
    pub(super) fn sweep(&mut self, now: Moment) -> bool {
        let Some(sweep) = &mut self.sweep else {
            return false;
        };
        let childless = self.postmaster.is_none() && !self.quarry.own_children;
        if now < sweep.next_hunt && !childless {
            // Every child's end wakes the guard; a hunt for each would keep the others from ending.
            return false;
        }
        sweep.next_hunt = now.plus(ROUND_MS);
        let sweep = *sweep;
        let signal = if now >= sweep.kill_from {
            Signal::SIGKILL
        } else {
            Signal::SIGQUIT
        };
        if let Some(pid) = self.postmaster {
            // Before the others, so that it starts no new ones.
            let children = self.hunter.list_children(pid);
            let _ = self.strike(pid, signal);
            self.hunter.strike_listed(children, pid, signal);
        }
        self.quarry.spare_logger = now < sweep.spare_logger_until;
        let found = self.hunter.hunt(&self.quarry, Some(signal));
        self.reap(now);
        let none = matches!(found, Ok(0)) && self.postmaster.is_none() && !self.quarry.own_children;
        // Looking twice: a process that was forked behind the reader's back shows up the second time.
        if none && matches!(self.hunter.hunt(&self.quarry, Some(signal)), Ok(0)) {
            self.sweep = None;
            self.clean = true;
            return true;
        }
        false
    }

    /// Looks whether anything lives in the data directory. Not on the fence path: this may wait for the data
    /// directory's file system, so it is for times when no postmaster runs.
    pub(super) fn look(&mut self) {
        if self.postmaster.is_some() || self.sweep.is_some() {
            return;
        }
        if let Some(place) = self.data_dir.as_deref().and_then(locate) {
            self.moved_to(place);
        }
        self.clean = matches!(self.hunter.hunt(&self.quarry, None), Ok(0));
    }

    fn moved_to(&mut self, place: FileId) {
        let [current, former] = &mut self.quarry.dirs;
        if !current.is_some_and(|known| known.same(&place)) {
            *former = current.replace(place);
        }
    }

    /// Makes sure that no other guard acts on a data directory, by default the known one.
    pub(super) fn claim(&mut self, dir: Option<&Path>) -> Result<(), String> {
        let Some(dir) = dir.map(Path::to_owned).or_else(|| self.data_dir.clone()) else {
            return Ok(());
        };
        let (Some(place), Ok(file)) = (locate(&dir), File::open(&dir)) else {
            return Ok(());
        };
        let held = self.claim.is_some()
            && self
                .quarry
                .dirs
                .first()
                .is_some_and(|known| known.is_some_and(|known| known.same(&place)));
        if !held {
            self.claim = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Some(lock),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(format!(
                        "another guard holds the data directory {}",
                        dir.display()
                    ));
                }
                // Some network file systems lock no directories: then the Raft directory's lock is all there is.
                Err(_) => None,
            };
        }
        self.moved_to(place);
        self.data_dir = Some(dir);
        Ok(())
    }

    /// Lets go of the data directory; for when nothing runs in it.
    pub(super) fn release(&mut self) {
        self.claim = None;
    }

    /// Starts a postmaster in a swept data directory.
    pub(super) fn start(&mut self, plan: &Launch, inherited: &Inherited) -> Result<Launched, String> {
        self.quarry.program = locate(&plan.program);
        let launched = launch(plan, inherited)
            .map_err(|error| format!("{} could not be started: {error}", plan.program.display()))?;
        self.postmaster = Some(launched.pid);
        self.adopted = None;
        self.quarry.own_children = true;
        self.clean = false;
        Ok(launched)
    }

    /// Sends the postmaster a signal.
    pub(super) fn signal(&self, signal: i32) -> Result<(), String> {
        let signal = Signal::try_from(signal).map_err(|_| format!("{signal} is no signal"))?;
        let pid = self.postmaster.ok_or("no postmaster runs under this guard")?;
        self.strike(pid, signal).map_err(|error| error.to_string())
    }
}

/// No allocation and no waiting: this is looked at on the fence path.
fn has_ended(process: &OwnedFd) -> bool {
    let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    ppoll(&mut end, Some(TimeSpec::from(Duration::ZERO)), None) == Ok(1)
}

fn locate(path: &Path) -> Option<FileId> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let root = File::open("/").ok()?;
    sys::file_id(root.as_fd(), &path).ok()
}
