//! A peer connection, plain or TLS, and its frames: a length of four bytes, then so many bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio_rustls::TlsStream;

use crate::net::tcp::Tcp;

/// The transport under the frames.
pub(crate) enum Socket {
    Plain(Tcp),
    Tls(Box<TlsStream<Tcp>>),
}

impl Socket {
    fn tcp(&self) -> &Tcp {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A connection that reads and writes whole frames.
pub(crate) struct Frames {
    socket: BufReader<Socket>,
    limit: usize,
}

impl Frames {
    pub(crate) fn new(socket: Socket, limit: usize) -> Frames {
        Frames {
            socket: BufReader::new(socket),
            limit,
        }
    }

    /// From now on frames may be as large as this.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Sends one frame.
    pub(crate) async fn write(&mut self, body: &[u8]) -> io::Result<()> {
        if body.len() > self.limit {
            return Err(too_large(body.len(), self.limit));
        }
        let mut frame = Vec::with_capacity(body.len() + 4);
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(body);
        self.socket.write_all(&frame).await?;
        self.socket.flush().await
    }

    /// Waits for the head of a frame; `None` when the other side closed between two frames.
    pub(crate) async fn head(&mut self) -> io::Result<Option<usize>> {
        let mut head = [0u8; 4];
        match self.socket.read_exact(&mut head).await {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        let length = u32::from_be_bytes(head) as usize;
        if length > self.limit {
            return Err(too_large(length, self.limit));
        }
        Ok(Some(length))
    }

    /// Reads the body that belongs to a head.
    pub(crate) async fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        // Grows as bytes arrive: a head alone does not make us reserve what it promises.
        let mut body = Vec::with_capacity(length.min(64 << 10));
        (&mut self.socket)
            .take(length as u64)
            .read_to_end(&mut body)
            .await?;
        if body.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    /// Reads one whole frame.
    pub(crate) async fn read(&mut self) -> io::Result<Vec<u8>> {
        let length = self.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.body(length).await
    }

    /// Sends one frame and waits for the one that answers it.
    pub(crate) async fn exchange(&mut self, body: &[u8]) -> io::Result<Vec<u8>> {
        self.write(body).await?;
        self.read().await
    }

    /// While this is true nobody is woken by what arrives: whoever reads polls again by himself.
    pub(crate) fn unhurried(&self) -> Arc<AtomicBool> {
        self.socket.get_ref().tcp().unhurried()
    }

    /// An idle connection from which anything can be read was closed by the other side (or is confused).
    pub(crate) fn is_quiet(&self) -> bool {
        let unread = self.socket.buffer().is_empty();
        let mut byte = [0u8; 1];
        let pending = self.socket.get_ref().tcp().try_read(&mut byte);
        unread && matches!(pending, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

fn too_large(length: usize, limit: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a frame of {length} bytes exceeds the limit of {limit}"),
    )
}
