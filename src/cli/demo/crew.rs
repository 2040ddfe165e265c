//! The three daemons as children, and every other process that comes with them.

use super::DemoError;
use super::ground::{Ground, Place};
use super::screen::complain;
use crate::clock;
use crate::cluster::Moment;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A daemon that died is started again after this time, as systemd would.
const RESTART_AFTER_MS: u64 = 3_000;
/// Daemons that were asked to end get this long to stop their PostgreSQL.
const END_DEADLINE_MS: u64 = 15_000;
/// What is left then dies of SIGKILL within this time, or is named.
const KILL_DEADLINE_MS: u64 = 5_000;

/// One daemon of the demo.
pub(super) struct Hand {
    pub(super) name: String,

    dir: PathBuf,
    data_dir: PathBuf,
    node_file: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    died_at: Option<Moment>,
}

/// The pids of a node that a person may want to kill.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pids {
    pub(super) daemon: Option<i32>,
    pub(super) guard: Option<i32>,
    pub(super) postmaster: Option<i32>,
}

impl Pids {
    /// All three live.
    pub(super) fn is_whole(self) -> bool {
        self.daemon.is_some() && self.guard.is_some() && self.postmaster.is_some()
    }
}

/// All daemons.
pub(super) struct Crew {
    pub(super) hands: Vec<Hand>,
    dir: PathBuf,
}

impl Crew {
    /// Starts one daemon for each place.
    pub(super) fn start(ground: &Ground) -> Result<Self, DemoError> {
        let mut crew = Self {
            hands: ground.places.iter().map(Hand::new).collect(),
            dir: ground.dir.clone(),
        };
        let started = crew.hands.iter_mut().try_for_each(Hand::start);
        if let Err(error) = started {
            crew.kill_rest();
            return Err(error);
        }
        Ok(crew)
    }

    /// Notices daemons that died and starts them again when it is time. Before the cluster has formed a dead daemon is
    /// an error: it would only die again.
    pub(super) fn tend(&mut self, has_formed: bool) -> Result<Vec<String>, DemoError> {
        let mut events = Vec::new();
        for hand in &mut self.hands {
            if let Some(how) = hand.reap() {
                if !has_formed {
                    let words = hand.last_words();
                    return Err(DemoError::Failed(format!(
                        "{} did not start ({how}):\n{words}",
                        hand.name
                    )));
                }
                events.push(format!(
                    "the daemon of {} has died ({how}); restart in 3 s",
                    hand.name
                ));
            }
            if hand
                .died_at
                .is_some_and(|at| clock::now().since(at) >= RESTART_AFTER_MS)
            {
                hand.start()?;
                events.push(format!("the daemon of {} is started again", hand.name));
            }
        }
        Ok(events)
    }

    /// The end of every log.
    pub(super) fn last_words(&self) -> String {
        self.hands
            .iter()
            .map(|hand| format!("{}:\n{}\n", hand.name, hand.last_words()))
            .collect()
    }

    /// Asks every daemon to end, and ends what is left after the deadline.
    pub(super) async fn end(&mut self) {
        for pid in self.hands.iter().filter_map(Hand::daemon_pid) {
            // A daemon that someone stopped with SIGSTOP must wake up to hear it.
            send(pid, Signal::SIGTERM);
            send(pid, Signal::SIGCONT);
        }
        let begun = clock::now();
        while self
            .hands
            .iter_mut()
            .any(|hand| hand.reap().is_none() && hand.child.is_some())
        {
            if clock::now().since(begun) > END_DEADLINE_MS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill_rest();
    }

    /// Kills whatever belongs to the demo, again and again: a killed daemon's guard acts on its own.
    fn kill_rest(&mut self) {
        let begun = clock::now();
        loop {
            let left = processes_of(&self.dir);
            if left.is_empty() {
                break;
            }
            if clock::now().since(begun) > KILL_DEADLINE_MS {
                complain(&format!("these processes do not end: {left:?}"));
                break;
            }
            left.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
            std::thread::sleep(Duration::from_millis(5));
        }
        for hand in &mut self.hands {
            hand.reap();
        }
    }
}

impl Hand {
    fn new(place: &Place) -> Self {
        Self {
            name: place.name.clone(),

            dir: place.dir.clone(),
            data_dir: place.data_dir(),
            node_file: place.node_file(),
            log: place.log(),
            child: None,
            died_at: None,
        }
    }

    fn start(&mut self) -> Result<(), DemoError> {
        let refused = |error: std::io::Error| {
            DemoError::Failed(format!("the daemon of {} cannot be started: {error}", self.name))
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(refused)?;
        let child = Command::new(std::env::current_exe().map_err(refused)?)
            .arg("run")
            .arg(&self.node_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(refused)?)
            .stderr(log)
            // Its own group: Ctrl-C is for the demo, which then ends the daemons in good order.
            .process_group(0)
            .spawn()
            .map_err(refused)?;
        self.child = Some(child);
        self.died_at = None;
        Ok(())
    }

    /// How the daemon ended, once, when it has.
    fn reap(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.died_at = Some(clock::now());
        Some(status.to_string())
    }

    fn daemon_pid(&self) -> Option<i32> {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
    }

    /// Who may be killed here now.
    pub(super) fn pids(&self) -> Pids {
        let is_guard = |pid: &i32| arguments(*pid).get(1).is_some_and(|argument| argument == "guard");
        Pids {
            daemon: self.daemon_pid(),
            guard: processes_of(&self.dir).into_iter().find(is_guard),
            postmaster: postmaster(&self.data_dir),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
        end.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// The postmaster that `postmaster.pid` names, if it lives.
fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (cwd == data_dir).then_some(pid)
}

/// Every process of ours that works in a directory or names something in it in its arguments. A person's shell or
/// pager in that directory is not ours.
fn processes_of(dir: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let inside = format!("{}/", dir.display());
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| is_ours(*pid))
        .filter(|pid| {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd.starts_with(dir))
                || arguments(*pid).iter().any(|argument| argument.contains(&inside))
        })
        .collect()
}

/// Matriarch itself, PostgreSQL, or one of its tools.
fn is_ours(pid: i32) -> bool {
    let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
        return false;
    };
    let name = program
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    std::env::current_exe().is_ok_and(|me| me == program)
        || ["postgres", "initdb"].contains(&name)
        || name.starts_with("pg_")
}

fn arguments(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// A process that has just gone is no error.
fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}
