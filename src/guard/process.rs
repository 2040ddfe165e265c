//! The guard's own program: one thread, one poll; see the module's essay for what it promises.

use super::kin::Kin;
use super::page::{self, Page};
use super::wire::{Event, GuardState, Hello, LONGEST_LINE, Order, Request, SOCKET, StartSpec, VERSION};
use crate::clock;
use crate::cluster::{Epoch, Moment};
use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// SIGQUIT is sent this long before the deadline.
const QUIT_NS: u64 = 300_000_000;
/// SIGKILL is sent this long before the deadline.
const KILL_NS: u64 = 150_000_000;
/// Nothing is awaited longer than this, so that the heartbeat goes on and a newly armed deadline is seen in time.
const LONGEST_WAIT_MS: u64 = 100;
/// While processes are being killed.
const SWEEP_WAIT_MS: u64 = 2;
/// A guard without daemon and postmaster ends itself after this.
const IDLE_NS: u64 = 10_000_000_000;

/// What the hidden command is given.
#[derive(Clone, Debug)]
pub struct GuardArgs {
    /// Where the socket is: the Raft directory.
    pub dir: PathBuf,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
}

/// Runs the guard until it is told to go or is of no use any more.
pub fn main(args: &GuardArgs) -> ExitCode {
    match Keeper::begin(args).and_then(Keeper::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "matriarch guard: {}: {why}", args.dir.display());
            ExitCode::FAILURE
        }
    }
}

/// A request that is answered only when everything is dead.
struct Sweep {
    answer_to: Option<u64>,
}

struct Keeper {
    listener: UnixListener,
    socket: PathBuf,
    children: SignalFd,
    memory: OwnedFd,
    page: Page,
    kin: Kin,
    daemon: Option<Daemon>,
    state: GuardState,
    told: GuardState,
    sweep: Option<Sweep>,
    fencing: Option<(Epoch, u64)>,
    quit_sent: bool,
    idle_since: u64,
    leaving: bool,
    _lock: nix::fcntl::Flock<File>,
}

struct Daemon {
    stream: UnixStream,
    input: Vec<u8>,
}

impl Keeper {
    fn begin(args: &GuardArgs) -> io::Result<Self> {
        let lock = File::create(args.dir.join("guard.lock"))?;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|_| io::Error::other("another guard is at work here"))?;
        sys::become_subreaper()?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
            ignore(signal)?;
        }
        let socket = args.dir.join(SOCKET);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let memory = memfd_create(c"matriarch-lease", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&memory, page::SIZE)?;
        let page = Page::map(memory.as_fd())?;
        let mut kin = Kin::of(args.data_dir.as_deref());
        let clean = kin.signal_all(None) == 0;
        harden();
        let state = GuardState {
            connected: true,
            guard: std::process::id(),
            clean,
            ..GuardState::default()
        };
        Ok(Self {
            listener,
            socket,
            children,
            memory,
            page,
            kin,
            daemon: None,
            told: GuardState::default(),
            state,
            sweep: None,
            fencing: None,
            quit_sent: false,
            idle_since: clock::boot_ns(),
            leaving: false,
            _lock: lock,
        })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            self.page.beat();
            self.enforce();
            self.reap();
            self.sweep();
            self.tell();
            if self.leaving || self.is_idle() {
                let _ = std::fs::remove_file(&self.socket);
                return Ok(());
            }
            self.wait();
        }
    }

    /// The deadline. Nothing here can fail or allocate.
    fn enforce(&mut self) {
        let now = clock::boot_ns();
        if self.fencing.is_none()
            && let Some((epoch, deadline)) = self.page.armed()
            && now >= deadline.saturating_sub(QUIT_NS)
        {
            self.page.begin_fence(epoch);
            self.fencing = Some((epoch, deadline));
            self.quit_sent = false;
        }
        let Some((_, deadline)) = self.fencing else { return };
        if !self.quit_sent {
            self.quit_sent = true;
            self.kin.signal_all(Some(Signal::SIGQUIT as i32));
        }
        if now >= deadline.saturating_sub(KILL_NS) && self.sweep.is_none() {
            self.sweep = Some(Sweep { answer_to: None });
        }
        if self.sweep.is_none() && self.state.postmaster.is_none() && self.kin.signal_all(None) == 0 {
            self.fenced();
        }
    }

    fn fenced(&mut self) {
        if let Some((epoch, _)) = self.fencing.take() {
            self.page.end_fence(epoch);
            self.state.fenced = Some(epoch);
        }
    }

    /// Collects the dead: the postmaster, and orphans that it left to us.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let (pid, how) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exited with code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("was ended by {signal}")),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) => continue,
                Err(_) => return,
            };
            if self.state.postmaster == Some(pid.as_raw()) {
                self.state.postmaster = None;
                self.state.exits = self.state.exits.saturating_add(1);
                self.state.last_exit = Some(how);
                self.state.clean = false;
                // Whatever it left behind ends now, before anybody is told that it is gone.
                self.sweep.get_or_insert(Sweep { answer_to: None });
            }
        }
    }

    /// Kills until nobody is left.
    fn sweep(&mut self) {
        if self.sweep.is_none() {
            return;
        }
        let left = self.kin.signal_all(Some(Signal::SIGKILL as i32));
        self.reap();
        if left > 0 || self.state.postmaster.is_some() {
            return;
        }
        self.state.clean = true;
        if let Some(id) = self.sweep.take().and_then(|sweep| sweep.answer_to) {
            self.say(&Event::Answer(id, Ok(0)));
        }
        self.fenced();
    }

    fn tell(&mut self) {
        self.state.fencing = self.fencing.is_some();
        self.state.armed = self
            .page
            .armed()
            .map(|(epoch, deadline)| (epoch, Moment(deadline / 1_000_000)));
        // The deadline moves with every renewal, which the daemon knows: it moved it.
        let armed = (
            self.state.armed.map(|(epoch, _)| epoch),
            self.told.armed.map(|(epoch, _)| epoch),
        );
        let same = GuardState {
            armed: None,
            ..self.state.clone()
        } == GuardState {
            armed: None,
            ..self.told.clone()
        };
        if same && armed.0 == armed.1 {
            return;
        }
        self.told = self.state.clone();
        self.say(&Event::State(self.state.clone()));
    }

    fn say(&mut self, event: &Event) {
        let Some(daemon) = &mut self.daemon else { return };
        let sent = serde_json::to_vec(event)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                daemon.stream.write_all(&line)
            });
        if sent.is_err() {
            // A daemon that does not read is as good as gone; it may connect again.
            self.daemon = None;
        }
    }

    fn is_idle(&mut self) -> bool {
        let now = clock::boot_ns();
        if self.daemon.is_some()
            || self.state.postmaster.is_some()
            || !self.state.clean
            || self.fencing.is_some()
        {
            self.idle_since = now;
        }
        now.saturating_sub(self.idle_since) > IDLE_NS
    }

    fn wait(&mut self) {
        let mut wait_ms = LONGEST_WAIT_MS;
        if self.sweep.is_some() || self.fencing.is_some() {
            wait_ms = SWEEP_WAIT_MS;
        } else if let Some((_, deadline)) = self.page.armed() {
            let left = deadline.saturating_sub(QUIT_NS).saturating_sub(clock::boot_ns());
            wait_ms = wait_ms.min(left / 1_000_000 + 1);
        }
        let timeout = PollTimeout::from(u16::try_from(wait_ms).unwrap_or(u16::MAX));
        let (mut readable, mut called) = (false, false);
        {
            let mut fds = [
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(
                    self.daemon
                        .as_ref()
                        .map_or(self.children.as_fd(), |daemon| daemon.stream.as_fd()),
                    PollFlags::POLLIN,
                ),
            ];
            if poll(&mut fds, timeout).is_ok_and(|count| count > 0) {
                let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
                let [_, listener, daemon] = &fds;
                (called, readable) = (is_ready(listener), is_ready(daemon) && self.daemon.is_some());
            }
        }
        if called {
            self.accept();
        }
        if readable {
            self.listen();
        }
    }

    /// The newest daemon wins: an older one is dead or is about to be.
    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let may = getsockopt(&stream, sockopt::PeerCredentials)
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw());
        if !may || stream.set_nonblocking(true).is_err() {
            return;
        }
        let hello = Hello {
            version: VERSION,
            pid: std::process::id(),
        };
        let Ok(mut line) = serde_json::to_vec(&hello) else {
            return;
        };
        line.push(b'\n');
        let fds = [self.memory.as_raw_fd()];
        let message = [IoSlice::new(&line)];
        let rights = [ControlMessage::ScmRights(&fds)];
        if sendmsg::<()>(stream.as_raw_fd(), &message, &rights, MsgFlags::empty(), None).is_err() {
            return;
        }
        self.daemon = Some(Daemon {
            stream,
            input: Vec::new(),
        });
        self.told = GuardState::default();
    }

    fn listen(&mut self) {
        let mut chunk = [0_u8; 16 * 1024];
        let Some(daemon) = &mut self.daemon else { return };
        match daemon.stream.read(&mut chunk) {
            Ok(0) => self.daemon = None,
            Ok(read) => {
                daemon
                    .input
                    .extend_from_slice(chunk.get(..read).unwrap_or_default());
                if daemon.input.len() > LONGEST_LINE {
                    self.daemon = None;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.daemon = None,
        }
        while let Some(request) = self.next_request() {
            self.obey(request);
        }
    }

    fn next_request(&mut self) -> Option<Request> {
        let daemon = self.daemon.as_mut()?;
        let end = daemon.input.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = daemon.input.drain(..=end).collect();
        match serde_json::from_slice(&line) {
            Ok(request) => Some(request),
            Err(_) => {
                self.daemon = None;
                None
            }
        }
    }

    fn obey(&mut self, Request { id, order }: Request) {
        let answer = match order {
            Order::Start(spec) => self.start(&spec),
            Order::Signal(signal) => match (self.state.postmaster, Signal::try_from(signal)) {
                (Some(pid), Ok(signal)) => kill(Pid::from_raw(pid), signal)
                    .map(|()| 0)
                    .map_err(|error| error.to_string()),
                (None, _) => Err("no postmaster runs".to_owned()),
                (_, Err(_)) => Err(format!("there is no signal {signal}")),
            },
            Order::KillAll => {
                self.state.clean = false;
                self.sweep = Some(Sweep { answer_to: Some(id) });
                return;
            }
            Order::Quit if self.state.postmaster.is_some() || self.fencing.is_some() => {
                Err("a postmaster still runs".to_owned())
            }
            Order::Quit => {
                self.leaving = true;
                Ok(0)
            }
        };
        self.say(&Event::Answer(id, answer));
    }

    fn start(&mut self, spec: &StartSpec) -> Result<i32, String> {
        if let Some(pid) = self.state.postmaster {
            return Err(format!("postmaster {pid} runs already"));
        }
        if self.sweep.is_some() || self.fencing.is_some() {
            return Err("processes of the last postmaster are still being removed".to_owned());
        }
        self.kin.starts_in(&spec.data_dir);
        if self.kin.signal_all(None) > 0 {
            return Err("processes of this data directory still live".to_owned());
        }
        let pid = spawn(spec).map_err(|error| format!("{}: {error}", spec.program.display()))?;
        self.state.postmaster = Some(pid);
        self.state.clean = false;
        self.state.last_exit = None;
        Ok(pid)
    }
}

/// Starts PostgreSQL in a session of its own, with nothing of ours in its environment.
fn spawn(spec: &StartSpec) -> io::Result<i32> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .current_dir(&spec.data_dir)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PATRONI_") || text.starts_with("MATRIARCH_") || text == "NOTIFY_SOCKET" {
            command.env_remove(&name);
        }
    }
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    let (identity, parent) = (spec.user.map(identity), std::process::id());
    sys::before_exec(&mut command, move || {
        nix::unistd::setsid()?;
        SigSet::empty().thread_set_mask()?;
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
            default(signal)?;
        }
        sys::become_postmaster(identity.as_ref(), parent)
    });
    let child = command.spawn()?;
    // Its end is collected together with everybody else's.
    i32::try_from(child.id()).map_err(io::Error::other)
}

fn identity((uid, gid): (u32, u32)) -> sys::Identity {
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    let name = name.and_then(|user| std::ffi::CString::new(user.name).ok());
    let groups = name.and_then(|name| nix::unistd::getgrouplist(&name, gid.into()).ok());
    let groups = groups
        .unwrap_or_default()
        .into_iter()
        .map(nix::unistd::Gid::as_raw)
        .collect();
    sys::Identity { uid, gid, groups }
}

fn ignore(signal: Signal) -> io::Result<()> {
    sys::handle_signal(signal as i32, true)
}

fn default(signal: Signal) -> io::Result<()> {
    sys::handle_signal(signal as i32, false)
}

/// Best effort: an ordinary user may be refused all of it, and is protected by the same deadlines.
fn harden() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = sys::raise_priority();
    let _ = sys::lock_memory();
}

/// Whether a guard listens in `dir` already.
pub fn socket_of(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}
