//! A watchdog device in user space: a pipe whose reader resets its node when it is not fed in time.

use crate::processes;
use matriarch::clock::boot_ns;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the device looks.
const TICK: Duration = Duration::from_millis(2);

/// What the device has seen. Times are nanoseconds of the boot-time clock.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// It runs, with this timeout.
    pub timeout_ns: Option<u64>,
    /// When it was fed.
    pub fed: Vec<u64>,
    /// When it was disarmed.
    pub disarmed: Vec<u64>,
    /// When it reset the node.
    pub resets: Vec<u64>,
}

/// The device of one node.
pub struct Kennel {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Kennel {
    /// Makes `watchdog` in the node's directory. It speaks Patroni's `driver: testing`.
    pub fn open(node_dir: &Path) -> Self {
        let path = node_dir.join("watchdog");
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).expect("a pipe for the watchdog");
        let pipe = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
            .expect("the pipe of the watchdog opens");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let device = Device {
            pipe,
            node_dir: node_dir.to_owned(),
            seen: Arc::clone(&seen),
        };
        let task = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || device.run(&stop)
        });
        Self {
            seen,
            stop,
            task: Some(task),
        }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Kennel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

struct Device {
    pipe: File,
    node_dir: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Device {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            let mut bytes = [0; 4096];
            let length = self.pipe.read(&mut bytes).unwrap_or(0);
            let now = boot_ns();
            let mut seen = self.seen.lock().unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            hear(&mut seen, &text, now);
            if seen.timeout_ns.is_some_and(|timeout| {
                seen.fed
                    .last()
                    .is_some_and(|last| now.saturating_sub(*last) > timeout)
            }) {
                seen.timeout_ns = None;
                drop(seen);
                processes::kill_all_of(&self.node_dir);
                self.seen.lock().unwrap().resets.push(boot_ns());
            } else {
                drop(seen);
            }
            std::thread::sleep(TICK);
        }
    }
}

fn hear(seen: &mut Seen, text: &str, now: u64) {
    let mut rest = text;
    while let Some(word) = rest.chars().next() {
        rest = &rest[word.len_utf8()..];
        match word {
            'C' => {
                let (setting, after) = rest.split_once('\n').unwrap_or((rest, ""));
                let seconds = setting
                    .strip_prefix("timeout=")
                    .and_then(|s| s.parse::<u64>().ok());
                seen.timeout_ns = Some(1_000_000_000 * seconds.expect("Ctimeout=N"));
                seen.fed.push(now);
                rest = after;
            }
            '1' => seen.fed.push(now),
            'V' => {
                seen.timeout_ns = None;
                seen.disarmed.push(now);
            }
            other => panic!("the watchdog was told {other:?}"),
        }
    }
}
