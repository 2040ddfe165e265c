//! The faults by name, what each needs, and what is left to undo after one.

use crate::chaos::arena::{Arena, Tool};
use crate::chaos::hurt_members::{self, Outcast};
use crate::chaos::{hurt_disk, hurt_moment, hurt_network, hurt_process, hurt_sync};
use matriarch::clock::boot_ns;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as `--only` takes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

faults! {
    /// The primary's postmaster is killed alone.
    KillPostmaster = "kill-postmaster",
    /// One backend of the primary that serves a client is killed.
    KillBackend = "kill-backend",
    /// A daemon is killed; guard and PostgreSQL stay.
    KillDaemon = "kill-daemon",
    /// A guard is killed.
    KillGuard = "kill-guard",
    /// Every process of the primary's node is killed.
    KillPrimary = "kill-primary",
    /// Every process of any node is killed.
    KillNode = "kill-node",
    /// Every process of two nodes is killed.
    KillMajority = "kill-majority",
    /// SIGSTOP of a daemon, later SIGCONT.
    StopDaemon = "stop-daemon",
    /// SIGSTOP of a guard.
    StopGuard = "stop-guard",
    /// SIGSTOP of the primary's postmaster.
    StopPostmaster = "stop-postmaster",
    /// A whole node stands still, as a paused machine does, and wakes up.
    FreezeNode = "freeze-node",
    /// The same with the primary's node.
    FreezePrimary = "freeze-primary",
    /// The primary cannot reach the other nodes; clients still reach it.
    CutPrimary = "cut-primary",
    /// The primary can reach nobody.
    IsolatePrimary = "isolate-primary",
    /// The Raft leader cannot reach the other nodes.
    CutLeader = "cut-leader",
    /// A standby cannot reach the other nodes.
    CutStandby = "cut-standby",
    /// Nothing the primary sends reaches the other nodes.
    OneWayOut = "one-way-out",
    /// Nothing the other nodes send reaches the primary.
    OneWayIn = "one-way-in",
    /// Only what the primary's PostgreSQL sends to one standby is lost.
    HalfOpen = "half-open",
    /// Each node hears only its left neighbour.
    Ring = "ring",
    /// Two nodes do not reach each other; both reach the third.
    CutLink = "cut-link",
    /// One in four packets between the nodes is lost.
    Lossy = "lossy",
    /// The nodes reach each other through a link that carries 40 kB a second.
    SlowLink = "slow-link",
    /// Every frame to and from the nodes is late by 3 to 25 ms, some overtake others, some come twice.
    Delay = "delay",
    /// No node reaches another.
    CutMajority = "cut-majority",
    /// Every daemon is killed and started again, one after the other.
    RollingRestart = "rolling-restart",
    /// Every node is stopped in order and started again, one after the other.
    RollingStop = "rolling-stop",
    /// The primary's disk is full.
    DiskFull = "disk-full",
    /// The primary's disk dies: every write fails from now on, and everything goes on running.
    DiskDead = "disk-dead",
    /// A node loses power: what was not synced is gone.
    PowerOne = "power-one",
    /// Two nodes lose power at once.
    PowerTwo = "power-two",
    /// All nodes lose power at once.
    PowerAll = "power-all",
    /// A node loses its Raft directory.
    RaftLost = "raft-lost",
    /// A file of a node's Raft store is truncated while the node is down.
    RaftTruncated = "raft-truncated",
    /// A bit of a node's Raft store flips while the node is down.
    RaftFlipped = "raft-flipped",
    /// The primary dies, and the node that is promoted dies in its promotion.
    KillInPromote = "kill-in-promote",
    /// A node dies in its base backup.
    KillInBackup = "kill-in-backup",
    /// The former primary dies in its pg_rewind.
    KillInRewind = "kill-in-rewind",
    /// An operator moves the primary to another node, and back, as often as it is answered in time.
    Switchover = "switchover",
    /// An operator moves the primary, and the node that it is moved to dies meanwhile.
    KillInSwitchover = "kill-in-switchover",
    /// A standby is taken out while a node dies, and let in again while a node dies.
    KillInMembership = "kill-in-membership",
    /// Every sync of a node's PostgreSQL fails.
    SyncPostgres = "sync-postgres",
    /// Every sync of a node's daemon fails.
    SyncDaemon = "sync-daemon",
    /// A node's wall clock jumps by hours.
    ClockJump = "clock-jump",
    /// A node's wall clock runs at half, four fifths, six fifths or twice its pace.
    ClockDrift = "clock-drift",
}

impl Fault {
    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// What it needs of the machine.
    pub fn needs(self) -> Option<Tool> {
        match self {
            Self::FreezeNode | Self::FreezePrimary => Some(Tool::Freezer),
            Self::CutPrimary
            | Self::IsolatePrimary
            | Self::CutLeader
            | Self::CutStandby
            | Self::OneWayOut
            | Self::OneWayIn
            | Self::HalfOpen
            | Self::Ring
            | Self::CutLink
            | Self::Lossy
            | Self::SlowLink
            | Self::CutMajority => Some(Tool::Nft),
            Self::DiskFull | Self::DiskDead | Self::PowerOne | Self::PowerTwo | Self::PowerAll => {
                Some(Tool::Disk)
            }
            Self::ClockJump | Self::ClockDrift => Some(Tool::Faketime),
            Self::SyncPostgres | Self::SyncDaemon => Some(Tool::Preload),
            _ => None,
        }
    }

    /// Makes it happen and returns when there is proof; the error says why it hit nothing. `pick` chooses where
    /// the name leaves a choice.
    pub async fn inject(self, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
        match self {
            Self::KillPostmaster
            | Self::KillBackend
            | Self::KillDaemon
            | Self::KillGuard
            | Self::KillPrimary
            | Self::KillNode
            | Self::KillMajority
            | Self::StopDaemon
            | Self::StopGuard
            | Self::StopPostmaster
            | Self::FreezeNode
            | Self::FreezePrimary => hurt_process::inject(self, arena, pick).await,
            Self::CutPrimary
            | Self::IsolatePrimary
            | Self::CutLeader
            | Self::CutStandby
            | Self::OneWayOut
            | Self::OneWayIn
            | Self::HalfOpen
            | Self::Ring
            | Self::CutLink
            | Self::Lossy
            | Self::SlowLink
            | Self::CutMajority => hurt_network::inject(self, arena, pick).await,
            Self::DiskFull
            | Self::DiskDead
            | Self::PowerOne
            | Self::PowerTwo
            | Self::PowerAll
            | Self::RaftLost
            | Self::RaftTruncated
            | Self::RaftFlipped => hurt_disk::inject(self, arena, pick).await,
            Self::Delay => hurt_network::delay(arena, pick).await,
            Self::SyncPostgres | Self::SyncDaemon => hurt_sync::inject(self, arena, pick).await,
            Self::KillInMembership => hurt_members::inject(arena, pick).await,
            Self::RollingRestart
            | Self::RollingStop
            | Self::KillInPromote
            | Self::KillInBackup
            | Self::KillInRewind
            | Self::Switchover
            | Self::KillInSwitchover
            | Self::ClockJump => hurt_moment::inject(self, arena, pick).await,
            Self::ClockDrift => hurt_moment::drift(arena, pick).await,
        }
    }
}

/// One thing to undo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Start the node's daemon.
    Start(usize),
    /// SIGCONT.
    Continue(usize, i32),
    /// Thaw the node.
    Thaw(usize),
    /// End a cut.
    Reconnect(String),
    /// Short cables again.
    Hasten,
    /// Make room on the node's disk.
    Empty(usize),
    /// Start a node whose Raft store is damaged; if it refuses, do what an operator does: remove the store.
    StartDamaged(usize),
    /// Whatever still runs on the node's dead disk is killed, the disk comes back as it was, the node starts.
    Repair(usize),
    /// Set the node's wall clock right.
    SetClock(usize),
    /// Let a member in again that was taken out, as soon as the cluster can decide, and start it.
    LetIn(Outcast),
    /// The syncs of this program of the node are syncs again.
    Sync(usize, &'static str),
}

/// A fault that has happened.
#[derive(Clone, Debug)]
pub struct Hurt {
    /// Which.
    pub fault: Fault,
    /// When it was proven, and when it was undone.
    pub since: u64,
    /// The proof.
    pub witness: String,
    /// Nodes it hit.
    pub nodes: Vec<usize>,
    /// Nodes that must not acknowledge a write one ttl later, for as long as it lasts: without a majority.
    pub silent: Vec<usize>,
    /// What undoes it.
    pub remedies: Vec<Remedy>,
}

impl Hurt {
    /// A fault that has just been proven.
    pub fn new(fault: Fault, nodes: Vec<usize>, witness: String, remedies: Vec<Remedy>) -> Self {
        Self {
            fault,
            since: boot_ns(),
            witness,
            nodes,
            silent: Vec::new(),
            remedies,
        }
    }

    /// Undoes it. What it says is worth showing.
    pub async fn heal(&self, arena: &mut Arena) -> Vec<String> {
        let mut said = Vec::new();
        for remedy in &self.remedies {
            match remedy {
                Remedy::Start(node) => {
                    arena.held[*node] = false;
                    arena.supervise();
                }
                Remedy::Continue(node, pid) => {
                    crate::processes::thaw(*pid);
                    arena.held[*node] = false;
                }
                Remedy::Thaw(node) => {
                    if let Err(error) = arena.freezer(*node).and_then(|freezer| freezer.set(false)) {
                        said.push(error);
                    }
                    arena.held[*node] = false;
                }
                Remedy::Reconnect(name) => said.extend(arena.network.heal(name).err()),
                Remedy::Hasten => said.extend(hurt_network::hasten(arena)),
                Remedy::Empty(node) => {
                    if let Ok(disk) = arena.disk(*node) {
                        disk.empty();
                    }
                }
                Remedy::Repair(node) => said.extend(hurt_disk::repair(arena, *node).err()),
                Remedy::StartDamaged(node) => said.push(hurt_disk::start_damaged(arena, *node).await),
                Remedy::LetIn(outcast) => arena.outcasts.push(*outcast),
                Remedy::Sync(node, program) => {
                    arena
                        .syncs(*node)
                        .map_or_else(|why| said.push(why), |syncs| syncs.end(program));
                    // Only the daemon's fault held it down.
                    if *program == "matriarch" {
                        arena.held[*node] = false;
                    }
                    arena.supervise();
                }
                Remedy::SetClock(node) => said.extend(arena.set_clock(*node, 0).err()),
            }
        }
        said
    }
}

/// The primary as the clients see it, if no fault holds its processes down.
pub async fn primary(arena: &Arena) -> Result<usize, String> {
    let node = arena.herd.primary().await.ok_or("no primary was to be seen")?;
    free(arena, node)
}

/// A node of the choice's, if no fault holds its processes down.
pub fn any(arena: &Arena, pick: u64) -> Result<usize, String> {
    free(
        arena,
        usize::try_from(pick % u64::try_from(arena.held.len()).unwrap()).unwrap(),
    )
}

/// A standby of the choice's.
pub async fn standby(arena: &Arena, pick: u64) -> Result<usize, String> {
    let primary = arena.herd.primary().await.ok_or("no primary was to be seen")?;
    let others = arena.herd.others(primary);
    free(arena, others[usize::try_from(pick % 2).unwrap()])
}

/// This node, if no fault holds its processes down.
pub fn free(arena: &Arena, node: usize) -> Result<usize, String> {
    if arena.held[node] || !arena.herd.nodes[node].has_daemon() {
        return Err(format!("{} is down already", arena.herd.nodes[node].name));
    }
    Ok(node)
}
