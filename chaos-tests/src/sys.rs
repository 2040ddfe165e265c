//! The crate's only unsafe code: a file system without power, and a socket that carries whole frames.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

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

/// Socket options of linux/if_packet.h.
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A socket that reads and writes whole frames at a device of the calling thread's network, without waiting. Each frame
/// has the 10 bytes before it that say which checksum and which cut into segments the sender left to its device, so
/// that they can be left to the next one.
pub fn frames(device: &str) -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
        let on: libc::c_int = 1;
        let size = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for the whole call, and the pointer and size are those of a living integer.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size,
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let index = nix::net::if_::if_nametoindex(device)?;
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, and the pointer and size are those of a living address.
    let answer = unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), size) };
    if answer == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}
