//! Finds and signals the processes of a data directory, without allocating: this is the path that must always work.

use crate::sys;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whom the guard is responsible for.
pub struct Kin {
    data_dir: Option<CString>,
    /// The directory under which the last postmaster was started, should it have been renamed since.
    started_in: Option<(u64, u64)>,
    me: i32,
    buffer: Box<[u8; 32 * 1024]>,
}

impl Kin {
    /// Of the processes of `data_dir`, and of this process's children.
    pub fn of(data_dir: Option<&Path>) -> Self {
        let data_dir = data_dir.and_then(|dir| CString::new(dir.as_os_str().as_bytes()).ok());
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        Self {
            data_dir,
            started_in: None,
            me,
            buffer: Box::new([0; 32 * 1024]),
        }
    }

    /// A postmaster is about to be started in `dir`.
    pub fn starts_in(&mut self, dir: &Path) {
        self.data_dir = CString::new(dir.as_os_str().as_bytes()).ok();
        self.started_in = self.data_dir.as_deref().and_then(sys::identity_of);
    }

    /// Sends `signal` (none: nothing) to all of them; answers how many there are.
    pub fn signal_all(&mut self, signal: Option<i32>) -> usize {
        let homes = [
            self.data_dir.as_deref().and_then(sys::identity_of),
            self.started_in,
        ];
        let me = self.me;
        let mut count = 0;
        let scanned = sys::each_process(self.buffer.as_mut_slice(), |pid| {
            if pid != me && belongs(pid, me, &homes) {
                count += 1;
                if let Some(signal) =
                    signal.and_then(|signal| nix::sys::signal::Signal::try_from(signal).ok())
                {
                    // It may have ended since; then there is nothing to signal.
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
                }
            }
        });
        // A /proc that cannot be read must not look like a clean machine.
        if scanned.is_err() { usize::MAX } else { count }
    }
}

fn belongs(pid: i32, me: i32, homes: &[Option<(u64, u64)>]) -> bool {
    let mut start = [0_u8; 512];
    let mut path = [0_u8; 40];
    let Some(stat) = join(&mut path, pid, "stat").and_then(|path| sys::read_start(path, &mut start)) else {
        return false;
    };
    let Some((name, parent)) = name_and_parent(stat) else {
        return false;
    };
    if parent == me {
        return true;
    }
    if name != b"postgres" && name != b"postmaster" {
        return false;
    }
    let home = join(&mut path, pid, "cwd").and_then(sys::identity_of);
    home.is_some() && homes.contains(&home)
}

/// `/proc/PID/WHAT` in a buffer on the stack.
fn join<'a>(buffer: &'a mut [u8; 40], pid: i32, what: &str) -> Option<&'a CStr> {
    use std::io::Write;
    let mut rest = buffer.as_mut_slice();
    write!(rest, "/proc/{pid}/{what}\0").ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

/// `PID (NAME) STATE PPID ...`; the name may hold anything, so it ends at the last parenthesis.
fn name_and_parent(stat: &[u8]) -> Option<(&[u8], i32)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open.checked_add(1)?..close)?;
    let rest = std::str::from_utf8(stat.get(close.checked_add(2)?..)?).ok()?;
    let parent = rest.split(' ').nth(1)?.parse().ok()?;
    Some((name, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_with_parentheses() {
        assert_eq!(
            name_and_parent(b"7 (a) b) S 42 1"),
            Some((b"a) b".as_slice(), 42))
        );
        assert_eq!(
            name_and_parent(b"7 (postgres) S 1 1"),
            Some((b"postgres".as_slice(), 1))
        );
        assert_eq!(name_and_parent(b"7 postgres"), None);
    }

    #[test]
    fn an_operators_process_in_the_directory_is_none_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let homes = [sys::identity_of(
            &CString::new(dir.path().as_os_str().as_bytes()).unwrap(),
        )];
        assert!(!belongs(pid, 1, &homes), "not by its directory");
        assert!(
            belongs(pid, i32::try_from(std::process::id()).unwrap(), &[]),
            "a child is"
        );
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
