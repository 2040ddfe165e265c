//! The two ports: opened as the terms say, and every connection served by the thread that has the fewest.
//!
//! The first thread takes connections for all of them: one that it serves itself is never passed between threads.

use super::guest::{Guest, Port};
use super::house::{Counts, House};
use super::terms::Terms;
use nix::sys::socket::{setsockopt, sockopt};
use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Connections that may wait to be taken by a thread.
const QUEUE: usize = 256;
/// Where no connection can be taken (no descriptor is left), this long is waited.
const OUT_OF_BREATH: Duration = Duration::from_millis(100);
/// A peer that has gone without a word is noticed after a minute and a half of silence, a server sooner.
const IDLE_S: u32 = 60;
const PROBE_S: u32 = 10;
const PROBES: u32 = 3;
/// Sooner than any deadline of a connection that begins.
const PULSE: Duration = Duration::from_millis(250);

/// A connection on its way to a thread.
pub(crate) struct Arrival {
    stream: std::net::TcpStream,
    from: SocketAddr,
    port: Port,
}

/// A thread that serves connections.
struct Hand {
    arrivals: mpsc::Sender<Arrival>,
    counts: Arc<Counts>,
    runtime: Handle,
}

/// The threads.
pub(crate) struct Hands {
    house: Arc<House>,
    first: Hand,
    others: Vec<Hand>,
}

impl Hands {
    /// Starts one for each set of counters.
    pub(crate) fn start(house: &Arc<House>) -> io::Result<Self> {
        let start = |counts: &Arc<Counts>| {
            let (arrivals, taken) = mpsc::channel(QUEUE);
            let (house, own) = (house.clone(), counts.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("matriarch-proxy".to_owned())
                .spawn(move || runtime.block_on(serve(taken, &house, &own)))?;
            Ok(Hand {
                arrivals,
                counts: counts.clone(),
                runtime: handle,
            })
        };
        let mut all = house.counts().iter().map(start);
        let first = all.next().unwrap_or(Err(io::ErrorKind::InvalidInput.into()))?;
        Ok(Self {
            house: house.clone(),
            first,
            others: all.collect::<io::Result<_>>()?,
        })
    }

    /// On the first thread.
    async fn take(&self, stream: TcpStream, from: SocketAddr, port: Port) {
        let least = self.others.iter().min_by_key(|hand| hand.counts.there());
        let other = least.filter(|hand| hand.counts.there() < self.first.counts.there());
        other.unwrap_or(&self.first).counts.accepted.add(1);
        let Some(hand) = other else {
            return host(stream, from, port, &self.house, &self.first.counts);
        };
        // Registered with this thread's reactor no longer: another thread's takes it.
        if let Ok(stream) = stream.into_std() {
            // A full queue keeps the others waiting in the kernel's, which is bounded too.
            let _ = hand.arrivals.send(Arrival { stream, from, port }).await;
        }
    }
}

async fn serve(mut arrivals: mpsc::Receiver<Arrival>, house: &Arc<House>, counts: &Arc<Counts>) {
    while let Some(Arrival { stream, from, port }) = arrivals.recv().await {
        if let Ok(stream) = TcpStream::from_std(stream) {
            host(stream, from, port, house, counts);
        }
    }
}

/// Serves a connection on this thread.
fn host(stream: TcpStream, from: SocketAddr, port: Port, house: &Arc<House>, counts: &Arc<Counts>) {
    beat();
    let guest = Guest {
        stream,
        from,
        port,
        house: house.clone(),
        counts: counts.clone(),
    };
    let counts = counts.clone();
    tokio::spawn(async move {
        let _there = counts.all.hold();
        guest.serve().await;
    });
}

/// A deadline that is the next one of its thread costs a wake of this very thread, by way of the kernel; any other costs
/// nothing. So there is always a sooner one while connections begin.
fn beat() {
    thread_local! {
        static BEATS: Cell<bool> = const { Cell::new(false) };
    }
    if !BEATS.replace(true) {
        tokio::spawn(async {
            tokio::time::sleep(PULSE).await;
            BEATS.set(false);
        });
    }
}

/// An open port, until it is dropped.
pub(crate) struct Door {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Both ports.
#[derive(Default)]
pub(crate) struct Doors {
    rw: Option<Door>,
    ro: Option<Door>,
}

impl Doors {
    /// Opens what is to be open and is not yet; says what could not be.
    pub(crate) fn open(&mut self, terms: &Terms, hands: &Arc<Hands>) -> Result<(), String> {
        for (door, address, port) in [
            (&mut self.rw, &terms.rw, Port::Rw),
            (&mut self.ro, &terms.ro, Port::Ro),
        ] {
            if door.as_ref().is_some_and(|door| door.address == *address) {
                continue;
            }
            *door = None;
            let listener =
                listen(address).map_err(|error| format!("the proxy cannot listen on {address}: {error}"))?;
            let task = hands.first.runtime.spawn(accept(listener, port, hands.clone()));
            *door = Some(Door {
                address: address.clone(),
                task,
            });
        }
        Ok(())
    }
}

fn listen(address: &str) -> io::Result<std::net::TcpListener> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    let listener = std::net::TcpListener::bind(addresses.as_slice())?;
    listener.set_nonblocking(true)?;
    // Every connection that is accepted begins with what its listener has.
    prepare(&listener)?;
    // Many may come at once after a failover; the kernel cuts this to what it allows.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4_096)?)?;
    Ok(listener)
}

async fn accept(listener: std::net::TcpListener, port: Port, hands: Arc<Hands>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, from)) => hands.take(stream, from, port).await,
            Err(error) if is_of_one(&error) => {}
            Err(_) => tokio::time::sleep(OUT_OF_BREATH).await,
        }
    }
}

/// One that went before it was taken is no trouble of ours.
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Small packets go at once, and a peer that is silent is asked whether it is still there.
pub(crate) fn prepare(stream: &impl std::os::fd::AsFd) -> io::Result<()> {
    setsockopt(stream, sockopt::TcpNoDelay, &true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    Ok(())
}
