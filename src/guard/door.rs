//! The guard's side of the socket: one lock, one listening socket, one visitor at a time. The proxy's door is the same.

use super::wire::{Event, Greeting, LINE_LIMIT, PROTOCOL, Request};
use crate::sys::{self, FileId};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};
use nix::sys::stat::Mode;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// What a process that outlives its daemon is found by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// The socket's name in the Raft data directory.
    pub(crate) socket: &'static CStr,
    /// The file beside it that only one such process can have locked.
    pub(crate) lock: &'static str,
}

impl Names {
    /// The socket's name as a path.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.socket.to_bytes()))
    }
}

/// The listening socket, and the lock that makes this process the only one of its kind and Raft data directory.
#[derive(Debug)]
pub(crate) struct Door {
    dir: OwnedFd,
    listener: UnixListener,
    id: FileId,
    names: Names,
    _lock: Flock<File>,
}

impl Door {
    /// Takes the lock and listens. `WouldBlock` when another one lives.
    pub(crate) fn open(dir: &Path, names: Names) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(dir, flags, Mode::empty())?;
        let here = reachable(dir.as_fd());
        let lock = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(here.join(names.lock))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let path = here.join(names.socket());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&path);
        nix::sys::stat::umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        let id = sys::file_id(dir.as_fd(), names.socket)?;
        Ok(Self {
            dir,
            listener,
            id,
            names,
            _lock: lock,
        })
    }

    /// The next visitor, if one waits. Others than root and this process's own user are shown out.
    pub(super) fn visitor(&self) -> Option<Visitor> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        is_ours(getsockopt(&stream, PeerCredentials).ok()?.uid()).then(|| Visitor {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
        })
    }

    /// The socket itself, for who waits at it in another way.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The socket that a daemon would find is still this one.
    pub(crate) fn stands(&self) -> bool {
        sys::file_id(self.dir.as_fd(), self.names.socket).is_ok_and(|found| found.same(&self.id))
    }

    /// Takes the socket away.
    pub(crate) fn close(&self) {
        if self.stands() {
            let _ = std::fs::remove_file(reachable(self.dir.as_fd()).join(self.names.socket()));
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whether the other side of a socket is root or this process's own user.
pub(crate) fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// A short path to an open directory: a socket's path has only 107 bytes, a data directory's may be longer.
pub(crate) fn reachable(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}

/// The connected daemon. Nothing here waits: a stopped daemon only leaves its outbox full.
#[derive(Debug)]
pub(super) struct Visitor {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Visitor {
    /// Sends the greeting and the lease page.
    pub(super) fn greet(&self, page: BorrowedFd<'_>) -> io::Result<()> {
        let greeting = Greeting {
            protocol: PROTOCOL,
            pid: nix::unistd::getpid().as_raw(),
        }
        .encode();
        let fds = [page.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(&greeting)];
        sendmsg::<()>(
            self.stream.as_raw_fd(),
            &parts,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// The next whole request. `Err` when the visitor has gone or talks nonsense.
    pub(super) fn request(&mut self) -> io::Result<Option<Request>> {
        self.fill()?;
        let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') else {
            return if self.inbox.len() > LINE_LIMIT {
                Err(ErrorKind::InvalidData.into())
            } else {
                Ok(None)
            };
        };
        let line: Vec<u8> = self.inbox.drain(..=end).collect();
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        while self.inbox.len() <= LINE_LIMIT {
            match self.stream.read(&mut bytes) {
                Ok(0) if self.inbox.contains(&b'\n') => return Ok(()),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.inbox.extend(bytes.iter().take(length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts an event into the outbox.
    pub(super) fn tell(&mut self, event: &Event) {
        if serde_json::to_writer(&mut self.outbox, event).is_ok() {
            self.outbox.push(b'\n');
        }
    }

    /// Sends what the socket takes. `Err` when the visitor has gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Something waits to be sent.
    pub(super) fn has_mail(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AsFd for Visitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
