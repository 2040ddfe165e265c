//! The daemon's part: it keeps a proxy running as long as the node file has the section, and tells it what is true.

use super::draw;
use super::terms::{self, Event, NAMES, Order, PROTOCOL, Routes, Terms};
use crate::clock;
use crate::cluster::{Facts, Moment, ProxyFacts};
use crate::config::Config;
use crate::guard::link;
use crate::lead::Gate;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

/// Between two attempts to get a proxy.
const RETRY: Duration = Duration::from_millis(500);
/// A proxy that does not take a line within this time is as good as gone.
const SEND: Duration = Duration::from_secs(2);
/// It says its counters twice a second; one that has said nothing for so long hangs.
const SILENT_MS: u64 = 2_500;
/// What sessions get to finish when the daemon ends. Its own PostgreSQL has been stopped by then.
const DRAIN_MS: u64 = 2_000;
/// A proxy that was told to stop has ended by then.
const GONE: Duration = Duration::from_millis(DRAIN_MS + 1_500);

/// What it takes to keep a proxy.
pub struct Keeper {
    /// The Raft data directory; the proxy's socket lies in it.
    pub dir: PathBuf,
    /// The `matriarch` program.
    pub exe: PathBuf,
    /// The node file in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// What this node knows.
    pub facts: watch::Receiver<Option<Arc<Facts>>>,
    /// What a primary said of its gate to this node itself.
    pub gate: watch::Receiver<Option<Gate>>,
    /// Where the proxy's counters go.
    pub tally: watch::Sender<Option<ProxyFacts>>,
    /// Whether the proxy lives and listens.
    pub lives: watch::Sender<bool>,
    /// The daemon ends, and the proxy with it.
    pub stop: watch::Receiver<bool>,
}

/// What the proxy was told last, and what it said.
#[derive(Default)]
struct Told {
    heard_at: Moment,
    listens: bool,
    terms: Option<Terms>,
    routes: Option<Routes>,
    lease: Option<terms::Lease>,
}

struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Keeper {
    /// Runs until told to stop, and until the proxy has gone then.
    pub async fn run(mut self) {
        let mut trouble = String::new();
        loop {
            let outcome = match self.connect().await {
                Ok(Some(line)) => {
                    trouble.clear();
                    self.serve(line).await
                }
                Ok(None) => Ok(()),
                Err(why) => Err(why),
            };
            self.tally.send_replace(None);
            self.lives.send_replace(false);
            if *self.stop.borrow() {
                return;
            }
            if let Err(why) = outcome
                && why != trouble
            {
                tracing::warn!("{why}");
                trouble = why;
            }
            self.pause().await;
        }
    }

    /// Until it is worth trying again; without the section, until the node file is read again.
    async fn pause(&mut self) {
        let wanted = self.config.borrow().proxy.is_some();
        // Nobody reads the file any more where the daemon ends: then only its word to stop is awaited.
        tokio::select! {
            () = tokio::time::sleep(RETRY), if wanted => {}
            Ok(()) = self.config.changed() => {}
            _ = self.stop.changed() => {}
        }
    }

    /// A proxy that lives is found even where none is wanted any more: it is told to go.
    async fn connect(&self) -> Result<Option<Line>, String> {
        let wanted = self.config.borrow().proxy.is_some();
        let found = match link::knock(&self.dir, NAMES).await {
            Ok(stream) => Some(stream),
            Err(_) if !wanted || *self.stop.borrow() => None,
            Err(_) => {
                let arguments = [OsStr::new("proxy"), OsStr::new("--dir"), self.dir.as_os_str()];
                if link::spawn(&self.exe, &arguments).await? {
                    tracing::info!("a proxy was started");
                }
                let stream = link::knock(&self.dir, NAMES).await;
                Some(stream.map_err(|error| format!("the proxy cannot be reached: {error}"))?)
            }
        };
        Ok(found.map(|stream| {
            let (reader, writer) = stream.into_split();
            Line {
                reader: BufReader::new(reader),
                writer,
            }
        }))
    }

    /// Tells and hears until the connection ends.
    async fn serve(&mut self, mut line: Line) -> Result<(), String> {
        let broken = |error: io::Error| format!("the connection to the proxy broke: {error}");
        let mut text = Vec::new();
        match line.hear(&mut text).await.map_err(broken)? {
            Event::Greeting {
                protocol: PROTOCOL,
                pid,
            } => tracing::debug!("connected to the proxy (pid {pid})"),
            _ => {
                return Err(format!(
                    "the proxy that runs here speaks another protocol than {PROTOCOL}: end it, and another is started"
                ));
            }
        }
        let mut told = Told::default();
        loop {
            let stopping = *self.stop.borrow_and_update();
            if stopping || self.config.borrow_and_update().proxy.is_none() {
                return self.dismiss(line).await.map_err(broken);
            }
            for order in self.news(&mut told) {
                line.say(&order).await.map_err(broken)?;
            }
            let Self {
                facts,
                gate,
                config,
                stop,
                lives,
                tally: tally_to,
                ..
            } = self;
            let silence = SILENT_MS.saturating_sub(clock::now().since(told.heard_at));
            let silence = Duration::from_millis(silence);
            tokio::select! {
                Ok(()) = facts.changed() => {}
                Ok(()) = gate.changed() => {}
                Ok(()) = config.changed() => {}
                Ok(()) = stop.changed() => {}
                () = tokio::time::sleep(silence), if *lives.borrow() => {
                    tracing::warn!("the proxy says nothing any more");
                    lives.send_replace(false);
                }
                event = line.hear(&mut text) => {
                    told.heard_at = clock::now();
                    match event.map_err(broken)? {
                        Event::Tally(tally) => drop(tally_to.send_replace(Some(tally))),
                        Event::Note(note) => tracing::warn!("{note}"),
                        Event::Listening => {
                            told.listens = true;
                            tracing::info!("the proxy listens");
                        }
                        Event::Greeting { .. } => {}
                    }
                    lives.send_if_modified(|lives| std::mem::replace(lives, told.listens) != told.listens);
                }
            }
        }
    }

    /// What is true now and was not told yet.
    fn news(&mut self, told: &mut Told) -> Vec<Order> {
        let mut news = Vec::new();
        let config = self.config.borrow().clone();
        let Some(section) = &config.proxy else {
            return news;
        };
        let terms = draw::terms(section, config.postgresql.as_ref());
        if told.terms.as_ref() != Some(&terms) {
            told.terms = Some(terms.clone());
            news.push(Order::Terms(terms));
        }
        let gate = self.gate.borrow_and_update().clone();
        let Some(facts) = self.facts.borrow_and_update().clone() else {
            return news;
        };
        // The lease first: whoever is led to a new primary is answered at once.
        let lease = draw::lease(&facts);
        if told.lease != Some(lease) {
            told.lease = Some(lease);
            news.push(Order::Lease(lease));
        }
        let routes = draw::routes(&facts, gate.as_ref(), section.max_lag);
        if told.routes.as_ref() != Some(&routes) {
            told.routes = Some(routes.clone());
            news.push(Order::Routes(routes));
        }
        news
    }

    /// Tells it to end and waits until it has.
    async fn dismiss(&self, mut line: Line) -> io::Result<()> {
        line.say(&Order::Stop(DRAIN_MS)).await?;
        let mut text = Vec::new();
        let ended = async { while line.hear(&mut text).await.is_ok() {} };
        if tokio::time::timeout(GONE, ended).await.is_err() {
            tracing::warn!("the proxy was told to end and has not");
        }
        Ok(())
    }
}

impl Line {
    async fn say(&mut self, order: &Order) -> io::Result<()> {
        let said = tokio::time::timeout(SEND, self.writer.write_all(&terms::line(order))).await;
        said.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The next event. What was read of a line stays in `text` when this is cancelled.
    async fn hear(&mut self, text: &mut Vec<u8>) -> io::Result<Event> {
        terms::read_line(&mut self.reader, text).await
    }
}
