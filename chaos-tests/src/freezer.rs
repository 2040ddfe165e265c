//! A whole machine that stands still: every process of a node in one control group, frozen and thawed at once.

use crate::processes;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the kernel may take to freeze or thaw.
const DEADLINE_S: u64 = 10;

/// A control group; dropping it lets everything go.
pub struct Freezer {
    dir: PathBuf,
    root: PathBuf,
}

impl Freezer {
    /// Puts every process of a node into a group of its own. `None` where control groups cannot be made.
    pub fn around(node_dir: &Path) -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(PathBuf::from)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())?;
        let label = node_dir.display().to_string().replace('/', "-");
        let dir = root.join(format!("matriarch{label}"));
        std::fs::create_dir(&dir).ok()?;
        let freezer = Self { dir, root };
        freezer.take(node_dir);
        freezer.dir.join("cgroup.freeze").exists().then_some(freezer)
    }

    /// Takes in what has been started meanwhile by a process outside.
    pub fn take(&self, node_dir: &Path) {
        let inside = self.pids();
        for process in processes::of(node_dir) {
            if !inside.contains(&process.pid) {
                // It may have ended just now.
                let _ = std::fs::write(self.dir.join("cgroup.procs"), process.pid.to_string());
            }
        }
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Everything stands still when this returns.
    pub fn freeze(&self) {
        assert!(!self.pids().is_empty(), "nothing was to be frozen");
        self.set("1");
    }

    /// Everything goes on when this returns; the moment before it did.
    pub fn thaw(&self) -> u64 {
        let at = matriarch::clock::boot_ns();
        self.set("0");
        at
    }

    fn set(&self, value: &str) {
        std::fs::write(self.dir.join("cgroup.freeze"), value).expect("the group can be frozen");
        let wanted = format!("frozen {value}");
        let end = matriarch::clock::boot_ns() + DEADLINE_S * 1_000_000_000;
        let events = || std::fs::read_to_string(self.dir.join("cgroup.events")).unwrap_or_default();
        while !events().lines().any(|line| line == wanted) {
            assert!(matriarch::clock::boot_ns() < end, "not seen: {wanted}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.dir.join("cgroup.freeze"), "0");
        let end = matriarch::clock::boot_ns() + DEADLINE_S * 1_000_000_000;
        while std::fs::remove_dir(&self.dir).is_err() && matriarch::clock::boot_ns() < end {
            for pid in self.pids() {
                let _ = std::fs::write(self.root.join("cgroup.procs"), pid.to_string());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
