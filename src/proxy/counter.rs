//! The proxy's end of the socket: it takes the daemon's orders, and says what it has seen.

use super::ask;
use super::doors::{Doors, Hands};
use super::house::House;
use super::proof;
use super::terms::{self, Event, Order, PROTOCOL};
use super::users::Users;
use crate::clock;
use crate::cluster::Moment;
use crate::guard::door::{Door, is_ours};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// How often counters are told, the socket's file is looked at, and a port that could not be opened is tried again.
const TICK: Duration = Duration::from_millis(500);
/// A daemon that takes nothing for so long is let go; it comes back when it goes on.
const SEND: Duration = Duration::from_millis(500);

/// What the last sessions get to say that they end.
const LAST_WORDS_MS: u64 = 500;

/// The loop that hears the daemon.
pub(crate) struct Counter {
    house: Arc<House>,
    hands: Arc<Hands>,
    doors: Doors,
    users: Users,
    line: Option<Line>,
    /// What was said of the ports last; each news is said once.
    said: Result<(), String>,
    /// When the last sessions are ended, once it is to stop.
    stop_at: Option<Moment>,
}

struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    text: Vec<u8>,
}

impl Counter {
    pub(crate) fn new(house: Arc<House>, hands: Arc<Hands>) -> Self {
        Self {
            house,
            hands,
            doors: Doors::default(),
            users: Users::default(),
            line: None,
            said: Err(String::new()),
            stop_at: None,
        }
    }

    /// Runs until it was told to stop and everybody has gone, or nobody can ever find it again.
    pub(crate) async fn run(mut self, door: Door) -> io::Result<()> {
        let listener = UnixListener::from_std(door.listener()?)?;
        let mut tick = tokio::time::interval(TICK);
        tokio::spawn(ask::run(self.house.clone()));
        tokio::spawn(proof::run(self.house.clone()));
        let mut notes = self.house.note.subscribe();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    if stream.peer_cred().is_ok_and(|peer| is_ours(peer.uid())) {
                        self.welcome(stream).await;
                    }
                }
                order = hear(&mut self.line) => match order {
                    Ok(order) => self.obey(order).await,
                    Err(_) => self.line = None,
                },
                Ok(()) = notes.changed() => {
                    let note = notes.borrow_and_update().clone();
                    self.say(&Event::Note(note)).await;
                }
                _ = tick.tick() => {
                    self.look().await;
                    self.open().await;
                    self.tell().await;
                }
            }
            if self.is_over(&door) {
                door.close();
                return Ok(());
            }
        }
    }

    /// The newest daemon is the one that is heard.
    async fn welcome(&mut self, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        self.line = Some(Line {
            reader: BufReader::new(reader),
            writer,
            text: Vec::new(),
        });
        self.said = Err(String::new());
        self.say(&Event::Greeting {
            protocol: PROTOCOL,
            pid: nix::unistd::getpid().as_raw(),
        })
        .await;
    }

    async fn obey(&mut self, order: Order) {
        self.house.note_heard();
        match order {
            Order::Terms(terms) => {
                self.house.terms.send_replace(Arc::new(terms));
                self.look().await;
                self.open().await;
            }
            Order::Routes(routes) => self.house.lead(routes),
            Order::Lease(lease) => self.house.extend(lease),
            Order::Stop(drain_ms) => {
                self.doors = Doors::default();
                self.stop_at = Some(clock::now().plus(drain_ms));
                self.house.stop(false);
            }
        }
    }

    /// Looks whether there are new passwords.
    async fn look(&mut self) {
        if let Some(note) = self.users.look(&self.house) {
            self.say(&Event::Note(note)).await;
        }
    }

    /// Opens the ports of the terms, as soon as there are any.
    async fn open(&mut self) {
        let terms = self.house.terms.borrow().clone();
        if terms.rw.is_empty() || self.stop_at.is_some() {
            return;
        }
        let outcome = self.doors.open(&terms, &self.hands);
        if outcome != self.said {
            self.said.clone_from(&outcome);
            self.say(&outcome.map_or_else(Event::Note, |()| Event::Listening))
                .await;
        }
    }

    /// Also where nothing has changed: a proxy that says nothing counts as hung.
    async fn tell(&mut self) {
        let tally = self.house.tally();
        self.say(&Event::Tally(tally)).await;
    }

    async fn say(&mut self, event: &Event) {
        let Some(line) = &mut self.line else { return };
        let said = tokio::time::timeout(SEND, line.writer.write_all(&terms::line(event))).await;
        if !matches!(said, Ok(Ok(()))) {
            self.line = None;
        }
    }

    fn is_over(&self, door: &Door) -> bool {
        if let Some(stop_at) = self.stop_at {
            let late = clock::now() >= stop_at;
            if late && *self.house.stopping.borrow() == Some(false) {
                self.house.stop(true);
                return false;
            }
            let tally = self.house.tally();
            let last = stop_at.plus(LAST_WORDS_MS);
            return clock::now() >= last || tally.rw + tally.ro == 0;
        }
        // The Raft directory was wiped: no daemon will ever come.
        self.line.is_none() && !door.stands()
    }
}

/// The daemon's next order; never without a daemon. What was read of a line stays when this is cancelled.
async fn hear(line: &mut Option<Line>) -> io::Result<Order> {
    let Some(line) = line else {
        return std::future::pending().await;
    };
    terms::read_line(&mut line.reader, &mut line.text).await
}
