//! The life of a cluster on real PostgreSQL: each test reads like the incident it stands for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

mod bad_input;
mod bootstrap;
mod callbacks;
mod daemon_fails;
mod disk_full;
mod frozen;
mod half_done;
mod hang;
mod last_word;
mod members;
mod operator;
mod pause;
mod primary_dies;
mod process;
mod proxy;
mod proxy_sessions;
mod quorum;
mod restart;
mod return_home;
mod scripts;
mod settings;
mod slots;
mod storm;
mod switchover;
mod synchronous;
mod take_over;
mod wal_gone;
mod watchdog;

use matriarch_chaos::oracle::{self, Verdict};
use matriarch_chaos::writer::Write;
use matriarch_chaos::{Herd, Pinned, Writer, writer};

/// Rows acknowledged before a fault and after it, so that "writes flow" means something.
const FLOW: usize = 30;
/// Ten times what a failover by an ended lease may take (ttl + 0.3 s, ttl being 6 s at most).
const FAILOVER_S: u64 = 63;
/// Thirty times what a node that returns may take to stream again (3 s): a disk that is busy with other work lets it wait.
const RETURN_S: u64 = 90;

/// The clients of a test.
struct Crowd {
    writer: Writer,
    pinned: Vec<Pinned>,
}

impl Crowd {
    /// Clients whose rows flow already.
    async fn gather(herd: &Herd) -> Self {
        writer::prepare(herd).await;
        let crowd = Self {
            writer: Writer::start(herd),
            pinned: Pinned::start_all(herd),
        };
        crowd.writer.await_flow(herd, FLOW, FAILOVER_S).await;
        crowd
    }

    /// Waits until writes flow again.
    async fn await_flow(&self, herd: &Herd) {
        self.writer.await_flow(herd, FLOW, FAILOVER_S).await;
    }

    /// Sends the clients home and asks the oracle.
    async fn judge(self, herd: &Herd) -> (Verdict, Vec<Write>) {
        let mut writes = self.writer.stop().await;
        let own = writes.clone();
        writes.append(&mut Pinned::stop_all(self.pinned).await);
        let primary = herd.await_primary(FAILOVER_S, |_| true).await;
        (oracle::judge(herd, primary, &writes).await, own)
    }
}
