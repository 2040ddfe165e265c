//! Word to the load balancers and poolers that people run beside us: HAProxy and pgBouncer hear of a change at once.
//!
//! ```text
//!   Facts (watch) --> picture: who serves, who certainly does not, is a switchover under way
//!                        |-- haproxy    `set server BACKEND/MEMBER health up|down` on the runtime socket, one task each
//!                        `-- pgbouncer  PAUSE, RESUME, RELOAD on the admin console, one task each
//! ```
//!
//! Both go on finding out by themselves what they always found out: HAProxy by its checks, pgBouncer by its host. Word
//! only comes sooner, and where it is lost, or was wrong, their own checks correct it. So nothing here decides anything,
//! and a server's administrative state (`maint`, `drain`) is the operator's and never touched.
//!
//! - Nothing waits for these tasks. Each looks at the newest facts only, every exchange has a deadline, and what could not
//!   be said is tried again a second later as it is true by then.
//! - "Down" is said of this node as soon as its gate shuts, and of others when it is agreed that they are not primary.
//!   "Up" is said of the primary once its gate is open, by itself and by all who have heard its report of that.
//! - A node that has not heard of the group within one `ttl` speaks of itself only.
//! - A pooler that was paused is resumed when the primary serves again, when the switchover is called off, or after
//!   `HOLD_MS`. A mark beside the Raft log makes a daemon that was killed in between do it at its next start.

mod console;
mod haproxy;
mod pgbouncer;
mod picture;

use crate::clock;
use crate::cluster::Facts;
use crate::config::Notify;
use haproxy::Balancer;
use pgbouncer::Pooler;
use picture::Picture;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the picture is looked at although nothing was heard: a lease ends without an event.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Pause after something could not be said.
const TRY_AGAIN: Duration = Duration::from_secs(1);

type News = watch::Receiver<Option<Arc<Facts>>>;

/// Starts a task for each that is to be told; they end soon after `stopped` says so. `dir` is the Raft directory.
pub fn start(
    notify: &Notify,
    dir: &Path,
    facts: &News,
    stopped: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let balancers = notify.haproxy.iter().flat_map(Balancer::all);
    let poolers = notify
        .pgbouncer
        .iter()
        .flat_map(|section| Pooler::all(section, dir));
    let balancers = balancers.map(|balancer| tokio::spawn(balancer.keep(facts.clone(), stopped.clone())));
    let poolers = poolers.map(|pooler| tokio::spawn(pooler.keep(facts.clone(), stopped.clone())));
    balancers.chain(poolers).collect()
}

/// What is known now, if anything is.
fn look(facts: &mut News) -> Option<Picture> {
    let known = facts.borrow_and_update().clone();
    known.map(|facts| Picture::of(&facts, clock::now()))
}

/// Waits for news, or for a moment. Returns whether the daemon ends.
async fn rest(facts: &mut News, stopped: &mut watch::Receiver<bool>) -> bool {
    let news = async {
        if facts.changed().await.is_err() {
            // The daemon is about to end; what it knew last is as old as its lease says.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // Timing out is the normal case.
        _ = tokio::time::timeout(LOOK_AGAIN, news) => false,
        gone = stopped.changed() => gone.is_err() || *stopped.borrow(),
    }
}

/// Each new trouble once.
#[derive(Default)]
struct Trouble(String);

impl Trouble {
    fn note(&mut self, trouble: String) {
        if trouble != self.0 {
            tracing::warn!("{trouble}");
            self.0 = trouble;
        }
    }

    fn is_over(&mut self) {
        self.0.clear();
    }
}
