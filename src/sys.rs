//! The crate's only unsafe code: system calls that have no safe wrapper, each with its proof.

use nix::sys::signal::Signal;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// How many words a [`SharedPage`] has.
pub const PAGE_WORDS: usize = 16;
const PAGE_BYTES: usize = 4096;

/// One page of memory that two processes see, as a row of atomic words.
#[derive(Debug)]
pub struct SharedPage(NonNull<[AtomicU64; PAGE_WORDS]>);

// SAFETY: the page is only reached through atomics, from any thread, and stays mapped until drop.
unsafe impl Send for SharedPage {}
// SAFETY: as above; atomics need no exclusive access.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Maps the first page of `memory`, which must be sealed against shrinking or owned by the caller.
    pub fn map(memory: BorrowedFd<'_>) -> io::Result<Self> {
        let size = nix::sys::stat::fstat(memory)?.st_size;
        if usize::try_from(size).unwrap_or(0) < PAGE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the shared page is too short",
            ));
        }
        // SAFETY: a new mapping chosen by the kernel overlaps nothing; the size was checked just now.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                memory.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(address) {
            Some(at) if address != libc::MAP_FAILED => Ok(Self(at.cast())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64; PAGE_WORDS] {
        // SAFETY: mapped until drop, page-aligned, large enough, and every bit pattern is an AtomicU64.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map`; no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE_BYTES) };
    }
}

/// Receives bytes and at most one descriptor, without waiting longer than the socket does.
pub fn receive_with_fd(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [io::IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, and the new one's pid.
    Parent(i32),
}

/// Forks a process that has one thread only; refused otherwise.
pub fn fork_single_threaded() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    // SAFETY: with one thread no lock can be held by a thread that does not exist in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Forks a process that is no child of this one but of this one's parent: its end is nobody's business here. For a
/// process with one thread only, as [`fork_single_threaded`]; the child does nothing but execute.
pub fn fork_sibling() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given this is fork(2), the memory is copied; with one thread no lock
    // can be held by a thread that does not exist in the child.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(i32::try_from(pid).unwrap_or_default())),
    }
}

mod watchdog_calls {
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
}

/// After how many seconds without food a watchdog device resets the machine.
pub fn watchdog_timeout(device: BorrowedFd<'_>) -> nix::Result<u32> {
    let mut seconds = 0;
    // SAFETY: WDIOC_GETTIMEOUT writes one int, for which there is room.
    unsafe { watchdog_calls::get_timeout(device.as_raw_fd(), &mut seconds) }?;
    u32::try_from(seconds).map_err(|_| nix::errno::Errno::EINVAL)
}

/// Sets that; answers what the device made of it.
pub fn set_watchdog_timeout(device: BorrowedFd<'_>, seconds: u32) -> nix::Result<u32> {
    let mut seconds = i32::try_from(seconds).map_err(|_| nix::errno::Errno::EINVAL)?;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
    unsafe { watchdog_calls::set_timeout(device.as_raw_fd(), &mut seconds) }?;
    u32::try_from(seconds).map_err(|_| nix::errno::Errno::EINVAL)
}

/// Ends this process at once: no destructor, no buffer.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// What [`reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended and is reaped; the status is `waitpid`'s.
    Child(i32, i32),
    /// There are children, none has ended.
    AllRun,
    /// There is no child.
    NoneLeft,
}

/// Reaps one ended child, without waiting.
pub fn reap() -> Reaped {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int for the length of the call.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) } {
        0 => Reaped::AllRun,
        pid if pid > 0 => Reaped::Child(pid, status),
        _ => Reaped::NoneLeft,
    }
}

/// Gives every signal its default action and empties the mask, as a program expects to be started.
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code of ours; numbers that may not be changed are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux; sigprocmask only reads it.
    unsafe {
        let empty = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
    }
}

/// Closes every descriptor from `first` on; nothing may own them (for the first line of a program).
pub fn close_from(first: u32) {
    descriptors_from(first, 0);
}

/// Has every descriptor from `first` on closed by the next exec.
pub fn close_on_exec_from(first: u32) {
    descriptors_from(first, libc::CLOSE_RANGE_CLOEXEC);
}

fn descriptors_from(first: u32, flags: u32) {
    // SAFETY: takes numbers only. What happens to owned descriptors is the callers' documented contract.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if done == 0 {
        return;
    }
    for fd in first.cast_signed()..1024 {
        // SAFETY: as above; a kernel without close_range gets the usual range.
        unsafe {
            if flags == 0 {
                libc::close(fd);
            } else {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Which file a path leads to, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Device, as major and minor.
    pub device: (u32, u32),
    /// Inode.
    pub inode: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl FileId {
    /// The same file, whoever owned it when.
    pub fn same(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

/// Looks a file up from what the kernel has in memory: never waits for a file server.
pub fn file_id(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<FileId> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends with a NUL and `answer` is a valid statx for the length of the call.
    let code = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            path.as_ptr(),
            libc::AT_STATX_DONT_SYNC,
            libc::STATX_INO | libc::STATX_UID | libc::STATX_GID,
            answer.as_mut_ptr(),
        )
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statx is plain numbers, zeroed before and filled in by the kernel.
    let found = unsafe { answer.assume_init() };
    Ok(FileId {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        uid: found.stx_uid,
        gid: found.stx_gid,
    })
}

/// Reads raw directory entries into `buffer`; zero bytes is the end.
pub fn directory_entries(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let read = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Signals the process whose `/proc/PID` directory is open: a reused pid can never be hit. A kernel that cannot
/// do that (before 5.1) gets the pid.
pub fn signal_process(process: BorrowedFd<'_>, pid: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: takes numbers and a null siginfo only.
    let code = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match io::Error::last_os_error() {
        _ if code == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ENOSYS) => {
            Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?)
        }
        error => Err(error),
    }
}

/// Opens a process by its number: the descriptor stays with this very process, and turns readable when it ends.
pub fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; a descriptor that is returned is new and belongs to nobody else.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Looks at files and processes as this user for the time of `act`; root's way to see what only they may.
pub fn as_file_user<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> T {
    // SAFETY: both calls take and return numbers; they change only this thread's file system identity.
    let old = unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
    let result = act();
    // SAFETY: as above, back to the former identity.
    unsafe {
        libc::setfsuid(old.1.cast_unsigned());
        libc::setfsgid(old.0.cast_unsigned());
    }
    result
}

/// Keeps what is mapped now in memory from its first use on.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: takes flags only.
    let code = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs before ordinary processes; children start as ordinary ones.
pub fn real_time() -> io::Result<()> {
    // SAFETY: a zeroed sched_param is valid, and the kernel only reads it.
    let code = unsafe {
        let mut param = MaybeUninit::<libc::sched_param>::zeroed().assume_init();
        param.sched_priority = 1;
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param)
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Frees a System V shared memory segment that nobody uses, if its number still is the one with this key.
pub fn free_shared_memory(key: i32, id: i32) {
    // SAFETY: a zeroed shmid_ds is valid, and the kernel fills it in; the other call takes numbers.
    unsafe {
        let mut found = MaybeUninit::<libc::shmid_ds>::zeroed().assume_init();
        let known = libc::shmctl(id, libc::IPC_STAT, &mut found) == 0;
        if known && found.shm_perm.__key == key && found.shm_nattch == 0 {
            libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

/// Lets others run first; how much is the kernel's scale from 0 to 19.
pub fn be_nice(by: i32) {
    // SAFETY: takes a number. Its answer says nothing that anybody needs.
    unsafe { libc::nice(by) };
}

/// Lets this thread run before ordinary ones, as `nice -n -10` does; what it forks, threads too, begins as an ordinary one.
pub fn hurry() -> io::Result<()> {
    const NICE: libc::c_int = -10;
    // SAFETY: a zeroed sched_param is valid, and the kernel only reads it; the other calls take and give numbers.
    let code = unsafe {
        let param = MaybeUninit::<libc::sched_param>::zeroed().assume_init();
        if libc::getpriority(libc::PRIO_PROCESS, 0) <= NICE {
            return Ok(());
        }
        // First, so that nothing ordinary is ever started with it.
        match libc::sched_setscheduler(0, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, &param) {
            0 => libc::setpriority(libc::PRIO_PROCESS, 0, NICE),
            failed => failed,
        }
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends one whole Ethernet frame through the interface with this number. Needs CAP_NET_RAW.
pub fn send_frame(interface: u32, frame: &[u8]) -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let index = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a zeroed sockaddr_ll is valid; the kernel reads it and the frame for the lengths given, and writes neither.
    let sent = unsafe {
        let mut to = MaybeUninit::<libc::sockaddr_ll>::zeroed().assume_init();
        to.sll_family = libc::AF_PACKET as libc::sa_family_t;
        to.sll_ifindex = index;
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
