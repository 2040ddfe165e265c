//! Many connections to one port: sessions that rest, sessions that come and go, and strangers that are no clients at all.

use crate::sink::log_in;
use matriarch::clock::boot_ns;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Two for each client in the program in between, and two here.
const DESCRIPTORS: u64 = 65_536;
/// Connections that are opened side by side.
const ABREAST: usize = 64;
/// Queries of which the median is taken.
const QUERIES: usize = 500;
const QUERY: &[u8] = b"Q\0\0\0\x0bSELECT\0";
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// As many descriptors as are permitted; programs that are started inherit it.
pub fn raise_limit() {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS.max(hard))
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

/// As many clients as descriptors allow, at most so many.
pub fn room(wanted: usize) -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    wanted.min((usize::try_from(soft).unwrap_or(usize::MAX) - 500) / 2)
}

/// So many sessions that rest.
///
/// # Errors
/// One could not log in.
pub async fn open(at: Ipv4Addr, port: u16, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut there = Vec::with_capacity(count);
    while there.len() < count {
        let some = ABREAST.min(count - there.len());
        let opening: Vec<_> = (0..some).map(|_| tokio::spawn(log_in(at, port))).collect();
        for session in opening {
            there.push(session.await??);
        }
    }
    Ok(there)
}

/// At least so many sessions that come, ask one thing and go; some side by side. How many there were.
///
/// # Errors
/// One was not served.
pub async fn come_and_go(at: Ipv4Addr, port: u16, count: usize) -> io::Result<usize> {
    let each = count.div_ceil(ABREAST);
    let rows: Vec<_> = (0..ABREAST)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..each {
                    visit(at, port).await?;
                }
                Ok::<_, io::Error>(())
            })
        })
        .collect();
    for row in rows {
        row.await??;
    }
    Ok(each * ABREAST)
}

async fn visit(at: Ipv4Addr, port: u16) -> io::Result<()> {
    let mut session = log_in(at, port).await?;
    ask(&mut session).await?;
    session.write_all(TERMINATE).await?;
    while session.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

/// So many that are no clients: every other one begins to shake hands and says no more, the others talk about something else.
///
/// # Errors
/// One could not even connect.
pub async fn strangers(at: Ipv4Addr, port: u16, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut there = Vec::with_capacity(count);
    for n in 0..count {
        let mut stranger = TcpStream::connect((at, port)).await?;
        let words: &[u8] = if n % 2 == 0 {
            &[0, 0, 0]
        } else {
            b"GET / HTTP/1.1\r\n\r\n"
        };
        stranger.write_all(words).await?;
        there.push(stranger);
    }
    Ok(there)
}

/// The median time of a query, in microseconds.
///
/// # Errors
/// The session has ended.
pub async fn answers_in_us(session: &mut TcpStream) -> io::Result<u64> {
    let mut times = Vec::with_capacity(QUERIES);
    for _ in 0..QUERIES {
        let begun = boot_ns();
        ask(session).await?;
        times.push((boot_ns() - begun) / 1_000);
    }
    times.sort_unstable();
    Ok(times[QUERIES / 2])
}

async fn ask(session: &mut TcpStream) -> io::Result<()> {
    session.write_all(QUERY).await?;
    match session.read(&mut [0; 64]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
