//! `matriarch demo`: three nodes on this machine, a live table, and the pids to kill.
//!
//! ```text
//!   Ground   a temporary directory, three node files, free ports
//!   Crew     three `matriarch run` as children; a daemon that dies is started again after 3 s, as systemd would
//!   Pulse    a client that commits row after row and knows how long writes have stood still
//!   Screen   instructions once, then a block that is rewritten in place (plain lines without a terminal)
//! ```
//!
//! The demo decides nothing and repairs nothing beside that restart: what heals is Matriarch. Ctrl-C (or SIGTERM, or a
//! closed terminal) ends the daemons, which stop their PostgreSQL, then whatever is left, and removes the directory.
//!
//! Caveat: a demo that is itself killed with SIGKILL leaves its nodes running and its directory behind.

mod ask;
mod crew;
mod ground;
mod pulse;
mod screen;

use super::{CliError, block_on};
use crate::clock;
use crate::cluster::Moment;
use clap::Args;
use crew::Crew;
use ground::Ground;
use pulse::Pulse;
use screen::{Scene, Screen, say};
use std::net::Ipv4Addr;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the screen is looked after.
const TICK: Duration = Duration::from_millis(250);
/// Three empty nodes that are not whole after this time will not become so.
const FORMING_DEADLINE_MS: u64 = 120_000;

/// Start three nodes on this machine and watch them heal
#[derive(Args, Debug)]
pub struct Demo {
    /// Loopback address on which the three nodes listen
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    address: Ipv4Addr,
}

impl Demo {
    pub(super) fn execute(self) -> Result<(), CliError> {
        block_on(async { Ok(run(self.address).await?) })
    }
}

/// Why there was no demo; each is a sentence for the person who typed it.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Nothing was started: something on this machine must change first.
    #[error("{0}")]
    Refused(String),
    /// It was started and has failed; everything has been stopped and removed again.
    #[error("{0}")]
    Failed(String),
}

/// Runs the demo until a person ends it.
async fn run(address: Ipv4Addr) -> Result<(), DemoError> {
    let mut ends = Ends::listen()?;
    let ground = Ground::lay(address)?;
    let outcome = match Crew::start(&ground) {
        Ok(mut crew) => {
            let outcome = show(&ground, &mut crew, &mut ends).await;
            say("\nStopping everything ...");
            crew.end().await;
            outcome
        }
        Err(error) => Err(error),
    };
    ground.remove();
    if outcome.is_ok() {
        say(&format!(
            "All processes have ended and {} is removed.",
            ground.dir.display()
        ));
    }
    outcome
}

/// Keeps the screen true until it is asked to end, or the nodes cannot form a cluster.
async fn show(ground: &Ground, crew: &mut Crew, ends: &mut Ends) -> Result<(), DemoError> {
    let mut screen = Screen::new();
    say(&format!("Starting three nodes in {} ...", ground.dir.display()));
    let pulse = Pulse::start(ground);
    let begun = clock::now();
    let mut has_formed = false;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ends.asked() => return Ok(()),
            _ = tick.tick() => {}
        }
        for event in crew.tend(has_formed)? {
            screen.event(event);
        }
        let sight = ask::look(ground).await;
        if !has_formed && sight.is_whole() {
            has_formed = true;
            screen.introduce(ground);
        }
        if has_formed {
            screen.draw(&Scene {
                sight: &sight,
                crew,
                pulse: pulse.beat(),
            });
        } else {
            demand_progress(begun, crew)?;
        }
    }
}

fn demand_progress(begun: Moment, crew: &Crew) -> Result<(), DemoError> {
    if clock::now().since(begun) < FORMING_DEADLINE_MS {
        return Ok(());
    }
    Err(DemoError::Failed(format!(
        "the three nodes have not become a cluster within {} s; their last words:\n{}",
        FORMING_DEADLINE_MS / 1000,
        crew.last_words()
    )))
}

/// The ways in which a person ends it. Listening from the start, so that no early Ctrl-C leaves anything behind.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    fn listen() -> Result<Self, DemoError> {
        let listen = |kind| {
            signal(kind).map_err(|error| DemoError::Refused(format!("signals cannot be received: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
