//! A server that speaks enough of PostgreSQL's protocol to be connected to by thousands, and does nothing.

use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
/// AuthenticationOk.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
/// EmptyQueryResponse.
const EMPTY: &[u8] = b"I\0\0\0\x04";
/// What a server says of itself at the start, as far as poolers want to know it.
const PARAMETERS: [(&str, &str); 8] = [
    ("server_version", "15.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "Etc/UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
];

/// A sink that runs until it is dropped.
pub struct Sink {
    task: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    /// Listens here.
    pub async fn open(at: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((at, port))
            .await
            .expect("the sink's port is free");
        let task = tokio::spawn(async move {
            let mut pid = 0_u32;
            while let Ok((stream, _)) = listener.accept().await {
                pid += 1;
                tokio::spawn(async move {
                    // A client that goes ends its session.
                    let _ = serve(stream, pid).await;
                });
            }
        });
        Self { task }
    }
}

async fn serve(mut stream: TcpStream, pid: u32) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 1024];
    let mut length = stream.read(&mut bytes).await?;
    if bytes[..length] == SSL_REQUEST {
        stream.write_all(b"N").await?;
        length = stream.read(&mut bytes).await?;
    }
    if length == 0 {
        return Ok(());
    }
    stream.write_all(&greeting(pid)).await?;
    loop {
        let length = stream.read(&mut bytes).await?;
        match bytes[..length].first() {
            None | Some(b'X') => return Ok(()),
            _ => stream.write_all(&[EMPTY, READY].concat()).await?,
        }
    }
}

fn greeting(pid: u32) -> Vec<u8> {
    let mut text = WELCOME.to_vec();
    for (name, value) in PARAMETERS {
        let body = format!("{name}\0{value}\0");
        text.push(b'S');
        text.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        text.extend(body.as_bytes());
    }
    text.extend(b"K\0\0\0\x0c");
    text.extend(pid.to_be_bytes());
    text.extend([1, 2, 3, 4]);
    text.extend(READY);
    text
}

/// A session as bytes: connects, logs in, and waits until the server is ready.
pub async fn log_in(at: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((at, port)).await?;
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend(body);
    stream.write_all(&packet).await?;
    let (mut said, mut bytes) = (Vec::new(), [0; 1024]);
    while !said.ends_with(READY) {
        match stream.read(&mut bytes).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => said.extend(&bytes[..length]),
        }
    }
    Ok(stream)
}
