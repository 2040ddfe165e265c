//! Finding the processes of a directory in `/proc`, and signalling them with proof.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a signal may take to show its effect: a process in the middle of a disk write ends late.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(10);

/// A living process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its arguments; PostgreSQL writes its title here.
    pub args: Vec<String>,
    /// Its working directory, where it may be read.
    pub cwd: Option<PathBuf>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let (state, parent) = state_and_parent(pid)?;
        if matches!(state, 'Z' | 'X') {
            return None;
        }
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let args = cmdline
            .split(|byte| *byte == 0)
            .filter(|arg| !arg.is_empty())
            .map(|arg| String::from_utf8_lossy(arg).into_owned())
            .collect();
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
        Some(Self {
            pid,
            parent,
            args,
            cwd,
        })
    }

    /// Whether it works in `dir` or below, or names something there in its arguments.
    fn belongs_to(&self, dir: &Path) -> bool {
        let inside = format!("{}/", dir.display());
        let itself = dir.display().to_string();
        self.cwd.as_ref().is_some_and(|cwd| cwd.starts_with(dir))
            || self
                .args
                .iter()
                .any(|arg| arg.contains(&inside) || arg.ends_with(&itself))
    }

    /// The program's name without its directory.
    pub fn program(&self) -> &str {
        self.args
            .first()
            .map_or("", |arg| arg.rsplit('/').next().unwrap_or(""))
    }

    /// Arguments as one line.
    pub fn title(&self) -> String {
        self.args.join(" ")
    }
}

/// Every process of a directory: the daemon (its node file), the guard (its Raft directory), PostgreSQL (works in the
/// data directory), and the tools they run. This process is never one of them.
pub fn of(dir: &Path) -> Vec<Process> {
    let me = i32::try_from(std::process::id()).unwrap();
    let entries = std::fs::read_dir("/proc").expect("/proc can be listed");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter_map(Process::read)
        .filter(|process| process.belongs_to(dir))
        .collect()
}

/// Whether a process of this id lives (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// SIGKILL, and wait until it is dead. Fails when it was not alive: a fault that hits nothing proves nothing.
pub fn kill_now(pid: i32) {
    assert!(is_alive(pid), "process {pid} was to be killed and is not alive");
    send(pid, Signal::SIGKILL);
    wait_for(pid, "die of SIGKILL", || !is_alive(pid));
}

/// SIGSTOP, and wait until it stands still.
pub fn freeze(pid: i32) {
    send(pid, Signal::SIGSTOP);
    wait_for(pid, "stand still", || {
        state_and_parent(pid).is_some_and(|(state, _)| state == 'T')
    });
}

/// Waits until a process that was sent SIGKILL is dead.
pub fn wait_dead(pid: i32) {
    wait_for(pid, "die of SIGKILL", || !is_alive(pid));
}

/// Waits until a process that was sent SIGSTOP stands still; false when it has died instead.
pub fn await_stopped(pid: i32) -> bool {
    wait_for(pid, "stand still", || {
        !is_alive(pid) || state_and_parent(pid).is_some_and(|(state, _)| state == 'T')
    });
    is_alive(pid)
}

/// SIGCONT, and wait until it runs again.
pub fn thaw(pid: i32) {
    send(pid, Signal::SIGCONT);
    wait_for(pid, "run again", || {
        state_and_parent(pid).is_none_or(|(state, _)| state != 'T')
    });
}

/// Kills every process of a directory as one crash: all stand still before the first one dies, so that none has time
/// to take leave of the others. Returns how many there were.
pub fn kill_all_of(dir: &Path) -> usize {
    let mut killed = 0;
    // A process may have been forked while the list was read: look again until the directory is quiet.
    loop {
        let found = of(dir);
        if found.is_empty() {
            return killed;
        }
        killed += found.len();
        for process in &found {
            send(process.pid, Signal::SIGSTOP);
        }
        for process in &found {
            send(process.pid, Signal::SIGKILL);
        }
        for process in &found {
            wait_for(process.pid, "die of SIGKILL", || !is_alive(process.pid));
        }
    }
}

/// Sends a signal; a process that has just gone is no error.
pub fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("{signal} to process {pid}: {error}"),
    }
}

fn wait_for(pid: i32, what: &str, done: impl Fn() -> bool) {
    let end = matriarch::clock::boot_ns() + u64::try_from(SIGNAL_DEADLINE.as_nanos()).unwrap();
    while !done() {
        assert!(matriarch::clock::boot_ns() < end, "process {pid} did not {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything; what follows the last one is regular.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Memory and processor time of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Resident memory that belongs to no file, in KiB.
    pub anonymous_kib: u64,
    /// Processor time of all threads so far, in nanoseconds.
    pub cpu_ns: u64,
}

/// What a process uses, zero when it is gone.
pub fn usage(pid: i32) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let cpu_ns = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Usage {
        resident_kib: kib("VmRSS:"),
        anonymous_kib: kib("RssAnon:"),
        cpu_ns,
    }
}
