//! A control group for one node: all its processes stand still at once, as on a machine that is paused.

use matriarch::clock::boot_ns;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long freezing may take.
const DEADLINE_NS: u64 = 10_000_000_000;

/// The group. Dropping it removes it.
pub struct Freezer(PathBuf);

impl Freezer {
    /// A new group, where control groups of version 2 are mounted.
    pub fn new() -> Result<Self, String> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .ok_or("no control groups of version 2 are mounted")?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("matriarch-chaos-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let freezer = Self(path);
        std::fs::read_to_string(freezer.0.join("cgroup.freeze"))
            .map_err(|error| format!("cgroup.freeze: {error}"))?;
        Ok(freezer)
    }

    /// The file that takes process ids.
    pub fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Freezes or thaws, and waits until the kernel says that it is done.
    pub fn set(&self, frozen: bool) -> Result<(), String> {
        let (order, wanted) = if frozen {
            ("1", "frozen 1")
        } else {
            ("0", "frozen 0")
        };
        std::fs::write(self.0.join("cgroup.freeze"), order).map_err(|error| error.to_string())?;
        let end = boot_ns() + DEADLINE_NS;
        loop {
            let events =
                std::fs::read_to_string(self.0.join("cgroup.events")).map_err(|error| error.to_string())?;
            if events.lines().any(|line| line == wanted) {
                return Ok(());
            }
            if boot_ns() > end {
                return Err(format!("the control group does not become '{wanted}'"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.set(false);
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
