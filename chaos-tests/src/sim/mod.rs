//! The judge's own world: the product's judgement over a model of everything else, a whole life in milliseconds.
//!
//! ```text
//!  real    apply, Desk (hear, grant, plan), duty, lease arithmetic, fence, synchronous set
//!  model   network (loss, delay, duplication, reordering, cuts), clocks, crashes, freezes, guard, Raft as a register,
//!          PostgreSQL (logs, timelines, streams, names that walsenders read late, slow promotions, torn tails)
//! ```
//!
//! A run is a seed: it rolls the faults, the delays and the clocks, and the same seed rolls the same run. After every
//! event the judge looks at the true state of the world (`judge.rs`). An inversion is a run with one protection
//! switched off, here in the model and never in the product, by bending what goes into or comes out of the real code;
//! the judge must be seen to notice.
//!
//! Not modelled: the bytes on the wire, disks that lie, and what several cores do at once. Those are for the real thing.

mod agent;
pub mod dice;
mod judge;
mod node;
mod raft;
mod server;
mod world;

pub use world::World;

use matriarch::cluster::{State, SyncMode};

/// A protection that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A new leader does not wait until leases of the last one are over.
    NewLeaderDoesNotWait,
    /// The leader grants leases without asking a majority.
    AnswersWithoutQuorum,
    /// The lease counts from when the answer arrived.
    DeadlineFromReceipt,
    /// The wait is shorter than the lease.
    WaitIsShortened,
    /// An epoch is used again after a stop.
    EpochIsReused,
    /// A command is applied whoever decided it.
    NoReignCheck,
    /// Nobody ends PostgreSQL when the lease ends, but the daemon.
    NoGuard,
    /// The guard acts only some time after the deadline.
    GuardIsLate,
    /// Names change before that is agreed.
    NamesBeforeTheRecord,
    /// A change is settled without proof.
    SettledWithoutProof,
    /// The gate opens without the barrier.
    BarrierIsSkipped,
    /// A promise does not survive a crash.
    PromiseIsForgotten,
    /// One standby's word is enough.
    OneStandbyIsHeard,
    /// The replay position is reported for the end of the log.
    ReplayPositionReported,
    /// The end of an epoch is said while a backend lives.
    OrphansAreNotReaped,
    /// A promotion takes the next number that PostgreSQL knows of.
    TimelinesCollide,
    /// A diverged log is followed as it is, where the numbers of timelines do not tell.
    RewindIsSkipped,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that chance decides.
    pub seed: u64,
    /// `synchronous_mode`.
    pub mode: SyncMode,
    /// Until when things break, milliseconds.
    pub faults_ms: u64,
    /// Within which time acknowledgements must flow again.
    pub calm_ms: u64,
    /// One cut never heals.
    pub one_way_for_ever: bool,
    /// What is switched off.
    pub flaw: Option<Flaw>,
    /// Keep a line for everything that matters.
    pub trace: bool,
}

impl Plan {
    /// A short run with nothing switched off; the seed also chooses the mode.
    pub fn short(seed: u64) -> Self {
        Self {
            seed,
            mode: match seed % 3 {
                0 => SyncMode::Off,
                1 => SyncMode::On,
                _ => SyncMode::Quorum,
            },
            faults_ms: 40_000,
            calm_ms: 60_000,
            one_way_for_ever: seed.is_multiple_of(7),
            flaw: None,
            trace: false,
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Bends what the leader judges by.
    fn bend(&self, state: &mut State) {
        if self.has(Flaw::WaitIsShortened) {
            state.wait_ttl_ms = 200;
        }
        if self.has(Flaw::OneStandbyIsHeard) {
            for quorum in &mut state.sync.quorums {
                if quorum.count > 0 {
                    quorum.count = u32::try_from(quorum.members.len()).unwrap_or(1);
                }
            }
        }
    }
}
