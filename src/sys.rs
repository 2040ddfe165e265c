//! The crate's only unsafe code: system calls that no safe wrapper offers, each with its proof.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many numbers a shared page holds.
const WORDS: usize = 8;

/// A few numbers shared between two processes through one mapped file.
pub struct SharedPage {
    words: *const [AtomicU64; WORDS],
}

// SAFETY: the pointer is to a shared mapping that lives as long as the value and is only accessed through atomics.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Maps the first page of `fd`, which must be at least that long.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let length = std::mem::size_of::<[AtomicU64; WORDS]>();
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; it aliases no Rust object.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            words: address.cast(),
        })
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: the mapping is page aligned, at least as long as the array, and lives until drop; any bytes are
        // valid numbers.
        unsafe { &*self.words }.get(at)
    }

    /// Reads a number.
    pub fn get(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// Writes a number.
    pub fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::SeqCst);
        }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        let length = std::mem::size_of::<[AtomicU64; WORDS]>();
        // SAFETY: the range was mapped by `map` and nobody holds a reference into it after drop.
        unsafe { libc::munmap(self.words.cast_mut().cast(), length) };
    }
}

/// Has this process adopt the orphans of its descendants.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with plain numbers touches no memory of ours.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// Has the kernel send `signal` to this process when its parent dies.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) })
}

/// Keeps what is touched from now on in memory; best effort.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: changes only how pages are kept.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) })
}

/// Real-time priority for this process but not for its children; best effort.
pub fn raise_priority() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call.
    check(unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    })
}

/// Who a child becomes: user, group, and the other groups of that user.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups (`ssl-cert` on Debian lets PostgreSQL read its key).
    pub groups: Vec<u32>,
}

/// What a child does between fork and exec to become PostgreSQL's postmaster: normal out-of-memory score, none of
/// the daemon's capabilities, the owner's identity, and death with its parent. The order matters: the score can be
/// reset only before the identity changes, and a change of identity clears the parent-death signal.
pub fn become_postmaster(identity: Option<&Identity>, parent: u32) -> io::Result<()> {
    // SAFETY: open, write and close of a constant path, with a buffer that outlives the call.
    unsafe {
        let fd = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        if fd >= 0 {
            libc::write(fd, b"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
        // A kernel without ambient capabilities has none to clear.
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    }
    if let Some(Identity { uid, gid, groups }) = identity {
        // SAFETY: the list outlives the call; the rest are plain numbers.
        unsafe {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setgid(*gid))?;
            check(libc::setuid(*uid))?;
        }
    }
    set_parent_death_signal(libc::SIGQUIT)?;
    // SAFETY: no arguments.
    if u32::try_from(unsafe { libc::getppid() }).ok() != Some(parent) {
        return Err(io::Error::other("the guard died meanwhile"));
    }
    Ok(())
}

/// Runs `setup` in the child between fork and exec.
pub fn before_exec(
    command: &mut std::process::Command,
    setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: callers pass closures that only make system calls; they neither allocate nor take locks.
    unsafe { command.pre_exec(setup) };
}

/// Calls `each` with every process id there is. Does not allocate.
pub fn each_process(buffer: &mut [u8], mut each: impl FnMut(i32)) -> io::Result<()> {
    // SAFETY: a constant path.
    let fd = unsafe {
        libc::open(
            c"/proc".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    check(fd)?;
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into the buffer.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
        let Ok(read @ 1..) = usize::try_from(read) else {
            break;
        };
        let mut rest = buffer.get(..read).unwrap_or_default();
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name (zero ended)
        while let Some(length) = rest
            .get(16..18)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_ne_bytes)
        {
            if let Some(pid) = rest.get(19..usize::from(length)).and_then(number) {
                each(pid);
            }
            rest = rest.get(usize::from(length).max(19)..).unwrap_or_default();
        }
    }
    close(fd);
    Ok(())
}

fn number(name: &[u8]) -> Option<i32> {
    let name = CStr::from_bytes_until_nul(name).ok()?.to_str().ok()?;
    name.parse().ok()
}

/// Device and inode of what a path leads to. Does not allocate.
pub fn identity_of(path: &CStr) -> Option<(u64, u64)> {
    // SAFETY: zeroed is a valid `stat`, and the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: path and buffer outlive the call.
    let done = unsafe { libc::stat(path.as_ptr(), &raw mut stat) };
    (done == 0).then_some((stat.st_dev, stat.st_ino))
}

/// Reads the beginning of a file. Does not allocate.
pub fn read_start<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: path and buffer outlive the calls; the kernel writes at most the buffer's length.
    let read = unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let read = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        read
    };
    buffer.get(..usize::try_from(read).ok()?)
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor was opened by the caller and is used no more.
    unsafe { libc::close(fd) };
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Ignores a signal, or gives it its usual effect again.
pub fn handle_signal(signal: i32, ignore: bool) -> io::Result<()> {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither of the two handlers runs code of ours.
    let before = unsafe { libc::signal(signal, handler) };
    if before == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes over a descriptor that was just received.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for us in `recvmsg`; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
