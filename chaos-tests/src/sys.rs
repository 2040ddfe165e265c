//! The crate's only unsafe code: the system call that takes a file system's power away.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `FS_IOC_SHUTDOWN`, and its flag for "do not even write the journal".
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
static NO_LOG_FLUSH: u32 = 2;

/// From now on this file system writes nothing more: what was synced stays, the rest is gone.
pub fn cut_power(root: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call and the argument is a valid pointer to the u32 it reads.
    let answer = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const NO_LOG_FLUSH) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
