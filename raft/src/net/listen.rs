//! The listening side: accepts, authenticates, serves one request after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::machine::Peer;
use crate::net::auth;
use crate::net::leisure;
use crate::net::pool::HANDSHAKE;
use crate::node::Node;
use crate::serve::Session;
use crate::wire::envelope::{open, seal};
use crate::wire::message::{Lane, Request};

/// Connections that may be in their handshake at once.
const STRANGERS: usize = 32;
/// Authenticated connections; five lanes of a few members with room for many concurrent messages.
const CONNECTIONS: usize = 512;
/// A connection on which nothing is asked for so long is closed; the caller opens another when it needs one.
const IDLE: Duration = Duration::from_secs(60);
/// From a frame's head to its end.
const FRAME: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever; ends with its task, and every connection with it.
pub(crate) async fn listen(node: Arc<Node>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                if let Some(unsaid) = node.throttle.admit("accept") {
                    tracing::warn!(unsaid, "the peer port cannot accept: {e}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = strangers.clone().try_acquire_owned();
        let (Ok(permit), true) = (permit, connections.len() < CONNECTIONS) else {
            if let Some(unsaid) = node.throttle.admit("too many") {
                tracing::warn!(%from, unsaid, "too many connections on the peer port, closing this one");
            }
            continue;
        };
        let node = node.clone();
        connections.spawn(async move {
            let shaken = timeout(HANDSHAKE, shake(&node, tcp)).await;
            drop(permit);
            match shaken {
                Ok(Ok((mut session, mut frames, lane))) => {
                    serve(&node, &mut session, &mut frames, lane).await;
                }
                Ok(Err(refusal)) => tell(&node, from.ip(), &refusal.to_string()),
                Err(_) => tell(&node, from.ip(), &format!("no handshake within {HANDSHAKE:?}")),
            }
        });
    }
}

fn tell(node: &Node, from: std::net::IpAddr, why: &str) {
    // The reason may quote the stranger; the cause is its address, so that it cannot flood the log with new ones.
    if let Some(unsaid) = node.throttle.admit(&format!("refused {from}")) {
        tracing::warn!(%from, unsaid, "refused a connection to the peer port: {why}");
    }
}

async fn shake(node: &Arc<Node>, tcp: TcpStream) -> Result<(Session, auth::Frames, Lane), auth::Refusal> {
    tcp.set_nodelay(true)?;
    let (frames, hello) = auth::answer(&node.credentials, node.identity(), tcp, |h| node.accept(h)).await?;
    let peer = Peer {
        id: hello.id,
        name: hello.name,
        addr: hello.addr,
    };
    node.introduce(peer.clone());
    node.pools.hurry(&peer.addr);
    Ok((Session::new(peer), frames, hello.lane))
}

/// Whoever waits for a frame is woken by it: it has not lain there.
fn awaited<T>(head: io::Result<T>) -> io::Result<(T, Duration)> {
    head.map(|head| (head, Duration::ZERO))
}

async fn serve(node: &Arc<Node>, session: &mut Session, frames: &mut auth::Frames, lane: Lane) {
    loop {
        let head = match lane {
            Lane::Leisure => leisure::head(&node.beats, frames, Instant::now() + IDLE).await,
            _ => timeout(IDLE, frames.head()).await.ok().map(awaited),
        };
        let Some(Ok((Some(length), lain))) = head else {
            return;
        };
        let Ok(Ok(body)) = timeout(FRAME, frames.body(length)).await else {
            return;
        };
        let request = match open(&body) {
            Ok(request) => request,
            Err(e) => {
                if let Some(unsaid) = node.throttle.admit(&format!("request {}", session.peer.addr)) {
                    tracing::warn!(peer = session.peer.addr, unsaid, "unreadable request: {e}");
                }
                return;
            }
        };
        if let Request::Tell(message) = request {
            session.told(node, message, lain).await;
            continue;
        }
        let response = session.serve(node, request, lain).await;
        let Ok(bytes) = seal(&response) else {
            return;
        };
        if !matches!(timeout(FRAME, frames.write(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
}
