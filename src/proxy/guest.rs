//! A connection's life: what it wants, which server it is led to, the relay, its end.
//!
//! ```text
//!  accepted -> [PROXY protocol] -> opening --- cancel -------------> the backend that the key belongs to
//!                                     |--- encryption? -> server answers; yes -> relay of what nobody can read
//!                                     |                                   no  -> opening again
//!                                     '--- start-up -> server's first answer -> relay
//! ```
//!
//! Until the server's first answer has been forwarded, nothing is lost when that server turns out to be no use: it is
//! gone, or it says that it starts or stops (57P03). Then another one is looked for, as long as a client may wait, and the
//! client notices nothing but the time.

use super::ending::End;
use super::house::{Counts, House};
use super::opening::{self, Look, Opening};
use super::preface::{self, Preface};
use super::relay::{self, Relay};
use super::seek::{Found, Seeker};
use super::session::Follower;
use super::words::Refusal;
use super::{ask, cancel, terms::Terms};
use crate::clock;
use crate::cluster::Moment;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Which port a client came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Writers.
    Rw,
    /// Readers.
    Ro,
}

/// A connection that was accepted.
pub(crate) struct Guest {
    pub(crate) stream: TcpStream,
    pub(crate) from: SocketAddr,
    pub(crate) port: Port,
    pub(crate) house: Arc<House>,
    pub(crate) counts: Arc<Counts>,
}

/// What a guest has said so far.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Bytes that have arrived and were not looked at yet.
    pub(crate) inbox: Vec<u8>,
}

impl Guest {
    /// From the first byte to the last.
    pub(crate) async fn serve(self) {
        let counts = self.counts.clone();
        let port = self.port;
        // What the beginning needs is given back before the relay begins: most of a session's life is spent there.
        let Some((mut relay, _places)) = Box::pin(self.receive()).await else {
            return;
        };
        counts.led.add(1);
        let here = match port {
            Port::Rw => counts.rw.hold(),
            Port::Ro => counts.ro.hold(),
        };
        let end = (&mut relay).await;
        drop(here);
        match end {
            End::Deposed | End::Lost => counts.cut.add(1),
            End::Garbled => counts.garbage.add(1),
            End::Gone | End::SentAway | End::Stopping | End::InDoubt => {}
        }
        relay.close(end);
    }

    async fn receive(self) -> Option<(Relay, Places)> {
        let terms = self.house.terms.borrow().clone();
        let mut client = Client {
            stream: self.stream,
            inbox: Vec::new(),
        };
        let Self {
            house, counts, port, ..
        } = self;
        let patience = Patience::new(&terms);
        let mut from = self.from.ip();
        if terms.proxy_protocol {
            let shaking = counts.handshakes.hold();
            match patience.with(client.preface()).await {
                Some(said) => from = said.unwrap_or(from),
                None => return garbage(&counts),
            }
            drop(shaking);
        }
        let mut declined = None;
        let mut places = None;
        let mut refusal = None;
        loop {
            let shaking = counts.handshakes.hold();
            let opening = patience.with(client.opening()).await.flatten();
            drop(shaking);
            let Some((opening, packet)) = opening else {
                // One that connects and goes is a monitor, and no harm.
                if !client.inbox.is_empty() {
                    counts.garbage.add(1);
                }
                return None;
            };
            if let Opening::Cancel(key) = opening {
                counts.cancels.add(1);
                cancel::pass_on(&house, &key).await;
                return None;
            }
            if let Opening::PassedOn(key) = opening {
                cancel::deliver_here(&house, &key).await;
                return None;
            }
            if opening == Opening::Ask {
                ask::answer(&house, client.stream).await;
                return None;
            }
            if opening == Opening::Version {
                return client.send_away(Refusal::Version).await;
            }
            if places.is_none() && refusal.is_none() {
                match Places::take(&house, &terms, from) {
                    Ok(taken) => places = Some(taken),
                    Err(crowded) => {
                        counts.crowded.add(1);
                        refusal = Some(crowded);
                    }
                }
            }
            let encrypted = match opening {
                Opening::Encryption => {
                    if refusal.is_some() {
                        // Why is said when the client asks in the clear; encrypted it could not be said.
                        client.stream.write_all(b"N").await.ok()?;
                        continue;
                    }
                    true
                }
                Opening::DirectTls => true,
                _ => false,
            };
            if let Some(refusal) = refusal {
                return client.send_away(refusal).await;
            }
            let mut seeker = Seeker {
                house: &house,
                terms: &terms,
                port,
                client: &mut client,
                begun: clock::now(),
            };
            let waiting = counts.waiting.hold();
            let found = seeker.seek(&opening, &packet, declined.take()).await;
            drop(waiting);
            let found = match found {
                Ok(found) => found,
                Err(None) => return None,
                Err(Some(why)) => {
                    counts.unserved.add(1);
                    if opening == Opening::Encryption {
                        client.stream.write_all(b"N").await.ok()?;
                        refusal = Some(why);
                        continue;
                    }
                    return client.send_away(why).await;
                }
            };
            if opening == Opening::Encryption {
                client.stream.write_all(&found.answer).await.ok()?;
                if found.answer == b"N" {
                    declined = Some(found);
                    continue;
                }
            }
            let follower = (!encrypted).then(|| follower(&packet, terms.auth_file.is_some()));
            return enter(client, found, follower, &house, &counts).zip(places);
        }
    }
}

/// Both sides are known: what the server has said already is followed and forwarded first.
fn enter(
    client: Client,
    found: Found,
    follower: Option<Box<Follower>>,
    house: &Arc<House>,
    counts: &Arc<Counts>,
) -> Option<Relay> {
    let mut relay = Relay {
        client: client.stream,
        server: found.stream,
        endpoint: found.endpoint,
        epoch: found.epoch,
        follower,
        to_client: Vec::new(),
        to_server: Vec::new(),
        house: house.clone(),
        counts: counts.clone(),
        hung: house.hang(),
        load: found.load,
        pause: None,
        cut: false,
        withheld: false,
        stranded: None,
        dismissed: false,
    };
    relay.begin(found.answer, client.inbox).ok()?;
    Some(relay)
}

/// A session that is understood; `moves` if it may be taken to another server.
fn follower(packet: &[u8], moves: bool) -> Box<Follower> {
    let mut follower = Box::new(Follower::new(packet, secret()));
    if moves {
        follower.follow_text();
    }
    follower
}

/// The secret that a client gets to know in place of the server's.
fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    // Without random numbers the key is one that is guessed more easily; that costs a statement at worst.
    let _ = getrandom::fill(&mut secret);
    secret
}

fn garbage<T>(counts: &Counts) -> Option<T> {
    counts.garbage.add(1);
    None
}

/// The places that a client takes, until they are dropped.
struct Places {
    _of_its_address: super::house::Entry<IpAddr>,
    _of_all: super::house::Entry<IpAddr>,
}

impl Places {
    fn take(house: &Arc<House>, terms: &Terms, from: IpAddr) -> Result<Self, Refusal> {
        let everybody = IpAddr::from([0, 0, 0, 0]);
        Ok(Self {
            _of_all: house
                .clients
                .enter(everybody, terms.most)
                .ok_or(Refusal::TooMany)?,
            _of_its_address: house
                .clients
                .enter(from, terms.most_of_one)
                .ok_or(Refusal::TooManyOfOne)?,
        })
    }
}

/// How long a client may take to say what it wants.
struct Patience {
    until: Moment,
}

impl Patience {
    fn new(terms: &Terms) -> Self {
        Self {
            until: clock::now().plus(terms.handshake_ms),
        }
    }

    async fn with<T>(&self, said: impl Future<Output = Option<T>>) -> Option<T> {
        let left = Duration::from_millis(self.until.since(clock::now()));
        tokio::time::timeout(left, said).await.ok().flatten()
    }
}

impl Client {
    /// Whose connection this is, if the balancer in front says so.
    async fn preface(&mut self) -> Option<Option<IpAddr>> {
        loop {
            match preface::look(&self.inbox) {
                Preface::Found(from, length) => {
                    self.inbox.drain(..length);
                    return Some(from);
                }
                Preface::Garbage => return None,
                Preface::More => self.more().await?,
            }
        }
    }

    /// What it asks for, and the packet that says so. `None` inside: garbage, or it has gone.
    async fn opening(&mut self) -> Option<Option<(Opening, Vec<u8>)>> {
        loop {
            match opening::look(&self.inbox) {
                Look::Found(opening, length) => {
                    let packet = self.inbox.drain(..length).collect();
                    return Some(Some((opening, packet)));
                }
                Look::Garbage => return Some(None),
                Look::More => {
                    if self.more().await.is_none() {
                        return Some(None);
                    }
                }
            }
        }
    }

    /// Waits for more bytes; `None` when it has gone.
    pub(crate) async fn more(&mut self) -> Option<()> {
        relay::more(&mut self.stream, &mut self.inbox).await.ok()
    }

    async fn send_away<T>(mut self, refusal: Refusal) -> Option<T> {
        let _ = self.stream.write_all(&refusal.spoken()).await;
        let _ = self.stream.shutdown().await;
        None
    }
}
