//! Finds every process of the data directory and signals it, without allocating and without any file system.

use crate::sys::{self, FileId};
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek, read};
use std::ffi::{CStr, CString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BUFFER_BYTES: usize = 32 * 1024;

/// Who is to be found.
#[derive(Debug, Default)]
pub(super) struct Quarry {
    /// The data directory; the second is the one before, if it was replaced.
    pub(super) dirs: [Option<FileId>; 2],
    /// The `postgres` program that was started last.
    pub(super) program: Option<FileId>,
    /// The guard has children: they belong to PostgreSQL, whatever their name and place.
    pub(super) own_children: bool,
    /// PostgreSQL's log collector is left alone: it ends by itself when it has written the last words down.
    pub(super) spare_logger: bool,
}

/// The open process table with room to read it.
#[derive(Debug)]
pub(super) struct Hunter {
    proc: OwnedFd,
    buffer: Box<[u8; BUFFER_BYTES]>,
    me: i32,
}

impl Hunter {
    /// Opens the process table.
    pub(super) fn new() -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = nix::fcntl::open(c"/proc", flags, Mode::empty())?;
        Ok(Self {
            proc,
            buffer: Box::new([0; BUFFER_BYTES]),
            me: nix::unistd::getpid().as_raw(),
        })
    }

    /// Reads who the children of a process are, for [`Self::strike_listed`]; the number of bytes that say so.
    ///
    /// A client's commit may be a millisecond away when a machine wakes up after its deadline, and looking at every
    /// process of the machine takes longer. The hunt finds whom this misses; a kernel without that file lists nobody.
    pub(super) fn list_children(&mut self, of: i32) -> usize {
        let mut path = [0; 64];
        let mut rest = path.as_mut_slice();
        let named = write!(rest, "{of}/task/{of}/children").is_ok();
        let file = CStr::from_bytes_until_nul(&path)
            .ok()
            .filter(|_| named)
            .and_then(|path| {
                openat(
                    &self.proc,
                    path,
                    OFlag::O_RDONLY | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )
                .ok()
            });
        file.and_then(|file| read(&file, self.buffer.as_mut_slice()).ok())
            .unwrap_or(0)
    }

    /// Signals those of a list who are still children of that process, or were until it ended and are this one's now.
    pub(super) fn strike_listed(&mut self, length: usize, of: i32, signal: Signal) {
        let listed = self.buffer.get_mut(..length).unwrap_or_default();
        for name in listed.split_inclusive_mut(|byte| *byte == b' ') {
            let Some((end, digits)) = name.split_last_mut() else {
                continue;
            };
            let Some(pid) = number(digits) else { continue };
            *end = 0;
            if let Ok(name) = CStr::from_bytes_until_nul(name)
                && let Some(process) = Process::open(self.proc.as_fd(), name, pid)
                && process
                    .parent()
                    .is_some_and(|parent| parent == of || parent == self.me)
            {
                let _ = sys::signal_process(process.dir.as_fd(), pid, signal);
            }
        }
    }

    /// Whether a hunt would find this process.
    pub(super) fn would_find(&self, pid: i32, quarry: &Quarry) -> bool {
        let name = CString::new(pid.to_string()).unwrap_or_default();
        Process::open(self.proc.as_fd(), &name, pid).is_some_and(|process| process.is_quarry(quarry, self.me))
    }

    /// Sends a signal to all that are found, or only counts them. The count includes those spared.
    pub(super) fn hunt(&mut self, quarry: &Quarry, signal: Option<Signal>) -> io::Result<usize> {
        let mut found = 0;
        lseek(&self.proc, 0, Whence::SeekSet)?;
        loop {
            let length = sys::directory_entries(self.proc.as_fd(), self.buffer.as_mut_slice())?;
            if length == 0 {
                return Ok(found);
            }
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((name, next)) = first_entry(rest) {
                rest = next;
                if let Some(pid) = number(name.to_bytes()).filter(|pid| *pid != self.me)
                    && let Some(process) = Process::open(self.proc.as_fd(), name, pid)
                    && process.is_quarry(quarry, self.me)
                {
                    found += 1;
                    process.strike(quarry, signal);
                }
            }
        }
    }
}

/// Splits the first name off raw directory entries: inode 8, offset 8, length 2, type 1, name with NUL.
fn first_entry(entries: &[u8]) -> Option<(&CStr, &[u8])> {
    let length = usize::from(u16::from_le_bytes(*entries.get(16..)?.first_chunk::<2>()?));
    let name = CStr::from_bytes_until_nul(entries.get(19..length)?).ok()?;
    Some((name, entries.get(length..)?))
}

fn number(digits: &[u8]) -> Option<i32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// One process, held by its open `/proc` directory: what is read and what is signalled is the same process.
struct Process {
    dir: OwnedFd,
    pid: i32,
}

impl Process {
    fn open(proc: BorrowedFd<'_>, name: &CStr, pid: i32) -> Option<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(proc, name, flags, Mode::empty())
            .ok()
            .map(|dir| Self { dir, pid })
    }

    fn is_quarry(&self, quarry: &Quarry, me: i32) -> bool {
        (quarry.own_children && self.parent() == Some(me))
            || quarry
                .dirs
                .iter()
                .flatten()
                .any(|dir| self.stands_in(dir) && self.is_postgres(quarry, dir))
    }

    fn strike(&self, quarry: &Quarry, signal: Option<Signal>) {
        let Some(signal) = signal else { return };
        if !(quarry.spare_logger && self.is_logger()) {
            // A process that is gone already needs no signal, and the next hunt shows whether it is.
            let _ = sys::signal_process(self.dir.as_fd(), self.pid, signal);
        }
    }

    /// Its working directory is this one. A process that is ending has none any more, and no connection either.
    fn stands_in(&self, dir: &FileId) -> bool {
        self.link(c"cwd", dir).is_some_and(|cwd| cwd.same(dir))
    }

    /// An operator's shell in the directory is not: by the program's file, or by name where that is not known.
    fn is_postgres(&self, quarry: &Quarry, dir: &FileId) -> bool {
        let mut buffer = [0; 32];
        let name = self.text(c"comm", &mut buffer);
        name.starts_with(b"postgres")
            || name.starts_with(b"postmaster")
            || quarry
                .program
                .is_some_and(|program| self.link(c"exe", dir).is_some_and(|exe| exe.same(&program)))
    }

    /// Where a link of the process leads. Root without CAP_SYS_PTRACE may not look at another user's process:
    /// then it looks as the owner of the data directory, as whom PostgreSQL insists to run.
    fn link(&self, name: &CStr, dir: &FileId) -> Option<FileId> {
        match sys::file_id(self.dir.as_fd(), name) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                sys::as_file_user(dir.uid, dir.gid, || sys::file_id(self.dir.as_fd(), name)).ok()
            }
            other => other.ok(),
        }
    }

    /// The parent of a process that has not ended yet: a zombie is for `waitpid`, not for a signal.
    fn parent(&self) -> Option<i32> {
        let mut buffer = [0; 512];
        let stat = self.text(c"stat", &mut buffer);
        let after_name = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = stat.get(after_name + 1..)?.split(|byte| *byte == b' ').skip(1);
        let state = fields.next()?;
        let parent = number(fields.next()?)?;
        (state != b"Z" && state != b"X").then_some(parent)
    }

    fn is_logger(&self) -> bool {
        let mut buffer = [0; 256];
        let title = self.text(c"cmdline", &mut buffer);
        let end = title
            .iter()
            .rposition(|byte| !matches!(byte, 0 | b' '))
            .map_or(0, |last| last + 1);
        let title = title.get(..end).unwrap_or_default();
        title.starts_with(b"postgres: ") && title.ends_with(b"logger")
    }

    fn text<'b>(&self, name: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
        let length = openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|file| read(&file, buffer))
            .unwrap_or(0);
        buffer.get(..length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn place(path: &std::path::Path) -> FileId {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        sys::file_id(std::fs::File::open("/").unwrap().as_fd(), &name).unwrap()
    }

    /// `sleep` under another name, standing in a directory.
    fn sleeper(dir: &std::path::Path, name: &str) -> Child {
        let program = dir.join(name);
        std::fs::copy("/bin/sleep", &program).unwrap();
        Command::new(&program).arg("60").current_dir(dir).spawn().unwrap()
    }

    #[test]
    fn postgres_in_the_directory_is_found_and_an_operators_program_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let mut hunter = Hunter::new().unwrap();
        let quarry = Quarry {
            dirs: [Some(place(dir.path())), None],
            ..Quarry::default()
        };
        assert_eq!(hunter.hunt(&quarry, None).unwrap(), 0);

        let mut operator = sleeper(dir.path(), "sleep");
        let mut elsewhere = sleeper(other.path(), "postgres");
        let mut orphan = sleeper(dir.path(), "postgres");
        assert_eq!(hunter.hunt(&quarry, Some(Signal::SIGKILL)).unwrap(), 1);
        assert!(!orphan.wait().unwrap().success());
        assert_eq!(hunter.hunt(&quarry, None).unwrap(), 0);
        for innocent in [&mut operator, &mut elsewhere] {
            assert!(innocent.try_wait().unwrap().is_none());
            innocent.kill().unwrap();
            innocent.wait().unwrap();
        }
    }

    #[test]
    fn children_are_struck_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let mut hunter = Hunter::new().unwrap();
        let mut child = sleeper(dir.path(), "child");
        let list = format!("{} ", child.id());
        hunter.buffer[..list.len()].copy_from_slice(list.as_bytes());
        hunter.strike_listed(list.len(), 1, Signal::SIGCONT);
        assert!(child.try_wait().unwrap().is_none());
        hunter.buffer[..list.len()].copy_from_slice(list.as_bytes());
        hunter.strike_listed(list.len(), hunter.me, Signal::SIGKILL);
        assert!(!child.wait().unwrap().success());
        assert_eq!(hunter.list_children(0), 0, "no such process");
        // A shell whose child is listed, struck, and waited for.
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let length = loop {
            match hunter.list_children(pid) {
                0 => std::thread::yield_now(),
                length => break length,
            }
        };
        hunter.strike_listed(length, pid, Signal::SIGKILL);
        shell.wait().unwrap();
    }

    #[test]
    fn a_renamed_postgres_is_known_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut renamed = sleeper(dir.path(), "pg15");
        let mut hunter = Hunter::new().unwrap();
        let mut quarry = Quarry {
            dirs: [Some(place(dir.path())), None],
            ..Quarry::default()
        };
        assert_eq!(hunter.hunt(&quarry, None).unwrap(), 0);
        quarry.program = Some(place(&dir.path().join("pg15")));
        assert_eq!(hunter.hunt(&quarry, Some(Signal::SIGKILL)).unwrap(), 1);
        renamed.wait().unwrap();
    }
}
