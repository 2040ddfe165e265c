//! Finds a server for a client, and waits for one as long as a client may wait.

use super::guest::{Client, Port};
use super::house::{Entry, House};
use super::opening::Opening;
use super::relay;
use super::terms::{Routes, Terms};
use super::words::{self, Refusal};
use crate::clock;
use crate::cluster::{Endpoint, Epoch, Moment};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A server that has not taken a connection by then is tried again, or another one is.
const CONNECT: Duration = Duration::from_millis(1_500);
/// Between two attempts at servers of which none is any use, where no news come meanwhile; it doubles up to the second.
const PAUSE_MS: u64 = 20;
const LONGEST_PAUSE_MS: u64 = 320;
/// An error that a server begins with is no longer than this.
const ERROR_BYTES: usize = 8_192;
/// "Cannot connect now": it starts, or stops, or recovers.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";

/// A server that has answered.
pub(crate) struct Found {
    pub(crate) stream: TcpStream,
    pub(crate) endpoint: Endpoint,
    /// The epoch whose primary it is, for writers.
    pub(crate) epoch: Option<Epoch>,
    /// What it has said first.
    pub(crate) answer: Vec<u8>,
    pub(crate) load: Entry<Endpoint>,
}

/// A client that looks for a server.
pub(crate) struct Seeker<'a> {
    pub(crate) house: &'a Arc<House>,
    pub(crate) terms: &'a Terms,
    pub(crate) port: Port,
    pub(crate) client: &'a mut Client,
    pub(crate) begun: Moment,
}

/// Which server a client is led to: those that were tried in vain come last.
pub(crate) fn choose(
    routes: &Routes,
    terms: &Terms,
    port: Port,
    tried: &[Endpoint],
    load: impl Fn(&Endpoint) -> usize,
) -> Option<(Endpoint, Option<Epoch>)> {
    let primary = || routes.rw.clone().map(|server| (server, Some(routes.epoch)));
    if port == Port::Rw {
        return primary();
    }
    let replica = routes
        .ro
        .iter()
        .filter(|server| !tried.contains(server))
        .min_by_key(|server| load(server));
    let replica = replica.cloned().map(|server| (server, None));
    // A reader at the primary is promised no more than one at a replica.
    replica.or_else(|| {
        primary()
            .filter(|_| terms.ro_on_primary)
            .map(|(server, _)| (server, None))
    })
}

impl Seeker<'_> {
    /// Leads the client on, and shows the server this packet. `Err(None)`: the client has gone meanwhile.
    pub(crate) async fn seek(
        &mut self,
        opening: &Opening,
        packet: &[u8],
        declined: Option<Found>,
    ) -> Result<Found, Option<Refusal>> {
        let mut routes = self.house.routes.subscribe();
        let mut tried = Vec::new();
        let mut pause_ms = PAUSE_MS;
        // A server that declines encryption is asked on in the same connection.
        let mut known = declined;
        loop {
            let now = routes.borrow_and_update().clone();
            let candidate = choose(&now, self.terms, self.port, &tried, |server| {
                self.house.loads.count(server)
            });
            let fresh = match (known.take(), &candidate) {
                (Some(found), Some((endpoint, epoch)))
                    if found.endpoint == *endpoint && found.epoch == *epoch =>
                {
                    Some(found)
                }
                (_, Some((endpoint, epoch))) => self.connect(endpoint, *epoch, &routes).await,
                _ => None,
            };
            if let Some(mut found) = fresh {
                match ask(&mut found, opening, packet).await {
                    Ok(answer) => {
                        found.answer = answer;
                        return Ok(found);
                    }
                    Err(_) => tried.push(found.endpoint),
                }
            } else if let Some((endpoint, _)) = candidate.clone() {
                tried.push(endpoint);
            }
            let left = self.terms.hold_ms.saturating_sub(clock::now().since(self.begun));
            if left == 0 {
                return Err(Some(match self.port {
                    Port::Rw => Refusal::NoPrimary,
                    Port::Ro => Refusal::NoReplica,
                }));
            }
            let untried = self.port == Port::Ro && now.ro.iter().any(|server| !tried.contains(server));
            if !untried {
                tried.clear();
                let again = candidate.map(|_| pause_ms);
                self.wait(&mut routes, again.unwrap_or(left).min(left)).await?;
                pause_ms = (2 * pause_ms).min(LONGEST_PAUSE_MS);
            }
        }
    }

    /// Until there is news, or it is time to try again.
    async fn wait(
        &mut self,
        routes: &mut watch::Receiver<Arc<Routes>>,
        pause_ms: u64,
    ) -> Result<(), Option<Refusal>> {
        let pause = Duration::from_millis(pause_ms);
        tokio::select! {
            _ = tokio::time::timeout(pause, routes.changed()) => Ok(()),
            () = gone(self.client) => Err(None),
        }
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        epoch: Option<Epoch>,
        routes: &watch::Receiver<Arc<Routes>>,
    ) -> Option<Found> {
        let load = self.house.loads.enter(endpoint.clone(), 0)?;
        // What is new stays new for whoever looks at the routes next.
        let mut news = routes.clone();
        let connected = tokio::select! {
            connected = connect(endpoint) => connected.ok(),
            // It may be somewhere else now.
            _ = news.changed() => None,
        };
        Some(Found {
            stream: connected?,
            endpoint: endpoint.clone(),
            epoch,
            answer: Vec::new(),
            load,
        })
    }
}

/// Connects to a server within a bounded time.
pub(crate) async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let stream = tokio::time::timeout(CONNECT, connecting).await??;
    super::doors::prepare(&stream)?;
    Ok(stream)
}

/// The client has gone before anybody served it. What it says early is kept for its server, within bounds.
async fn gone(client: &mut Client) {
    while client.inbox.len() < ERROR_BYTES {
        if client.more().await.is_none() {
            return;
        }
    }
    std::future::pending().await
}

/// Shows the server what the client said; answers what it says first, or fails if it is no use now.
async fn ask(found: &mut Found, opening: &Opening, packet: &[u8]) -> io::Result<Vec<u8>> {
    found.stream.write_all(packet).await?;
    let mut answer = Vec::new();
    match opening {
        // The client's own hello is in the inbox and goes first.
        Opening::DirectTls => return Ok(answer),
        Opening::Encryption => {
            relay::more(&mut found.stream, &mut answer).await?;
            return match answer.as_slice() {
                [_] if answer != b"E" => Ok(answer),
                // It has an error to tell instead: in the clear it can be understood.
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            };
        }
        _ => {}
    }
    loop {
        relay::more(&mut found.stream, &mut answer).await?;
        match (answer.first(), words::sqlstate(&answer)) {
            (Some(b'E'), Some(CANNOT_CONNECT_NOW)) => return Err(io::ErrorKind::ConnectionRefused.into()),
            (Some(b'E'), None) if answer.len() < ERROR_BYTES => {}
            _ => return Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint {
            host: "h".to_owned(),
            port,
        }
    }

    #[test]
    fn readers_go_where_fewest_are_and_to_the_primary_last() {
        let mut routes = Routes {
            epoch: Epoch(3),
            rw: Some(at(1)),
            ro: vec![at(2), at(3)],
            ..Routes::default()
        };
        let mut terms = Terms {
            ro_on_primary: true,
            ..Terms::default()
        };
        let load = |server: &Endpoint| usize::from(server.port == 2) * 5;
        let ro = |routes: &Routes, terms: &Terms, tried: &[Endpoint]| {
            choose(routes, terms, Port::Ro, tried, load).map(|(server, _)| server.port)
        };
        assert_eq!(ro(&routes, &terms, &[]), Some(3));
        assert_eq!(ro(&routes, &terms, &[at(3)]), Some(2));
        assert_eq!(ro(&routes, &terms, &[at(3), at(2)]), Some(1));
        terms.ro_on_primary = false;
        assert_eq!(ro(&routes, &terms, &[at(3), at(2)]), None);
        let rw = |routes: &Routes| choose(routes, &Terms::default(), Port::Rw, &[at(1)], load);
        assert_eq!(rw(&routes), Some((at(1), Some(Epoch(3)))));
        routes.rw = None;
        assert_eq!(rw(&routes), None);
    }
}
