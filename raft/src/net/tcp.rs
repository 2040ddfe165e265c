//! A TCP connection whose bytes need not wake anybody when they arrive.
//!
//! With SO_RCVLOWAT above what an answer has (socket(7)), the kernel says nothing of it, and whoever is awake reads without
//! having been told. The end of a connection is still said.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use nix::{setsockopt_impl, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that wake nobody: more than most answers have. What is longer wakes as ever, which costs only that.
const QUIET: i32 = 4 << 10;

sockopt_impl!(
    /// How many bytes have to be there before somebody is woken.
    RcvLowat,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32
);

/// A connection and whether its reader is called for what arrives.
pub(crate) struct Tcp {
    stream: TcpStream,
    /// Whoever reads comes by himself.
    unhurried: Arc<AtomicBool>,
    /// What the kernel was told last.
    quiet: bool,
}

impl Tcp {
    pub(crate) fn new(stream: TcpStream) -> Tcp {
        Tcp {
            stream,
            unhurried: Arc::default(),
            quiet: false,
        }
    }

    /// While this is true a read that finds nothing is not woken: it has to be polled again.
    pub(crate) fn unhurried(&self) -> Arc<AtomicBool> {
        self.unhurried.clone()
    }

    /// Whether nothing can be read, as far as the kernel has said.
    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(bytes)
    }

    /// Tells the kernel when that changed. Answers whether there may be bytes of which nothing was said.
    fn settle(&mut self) -> io::Result<bool> {
        let quiet = self.unhurried.load(Ordering::SeqCst);
        let before = self.quiet;
        if before != quiet {
            let low = if quiet { QUIET } else { 1 };
            setsockopt(&self.stream, RcvLowat, &low)?;
            self.quiet = quiet;
        }
        Ok(before || quiet)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tcp = self.get_mut();
        if tcp.settle()? {
            match recv(
                tcp.stream.as_raw_fd(),
                buf.initialize_unfilled(),
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN | Errno::EINTR) if tcp.quiet => return Poll::Pending,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
        Pin::new(&mut tcp.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
