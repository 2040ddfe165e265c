//! A herd in a network of its own, each node on a disk and in a control group of its own.

use crate::chaos::cable::Cable;
use crate::chaos::disk::{self, Disk};
use crate::chaos::failing_syncs::FailingSyncs;
use crate::chaos::freezer::Freezer;
use crate::chaos::hurt_members::{self, Outcast};
use crate::chaos::netns::Netns;
use crate::chaos::network::{self, CLIENTS, NETWORK, Network};
use crate::herd::{FORM_S, Herd};
use crate::node::Home;
use crate::node_file::Options;
use matriarch::clock::boot_ns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Nodes of an arena.
pub const NODES: usize = 3;

/// A cluster grows from empty directories within this time.
const GROWN_NS: u64 = FORM_S * 1_000_000_000;

/// What a fault may need of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// nft in the switch.
    Nft,
    /// Control groups of version 2.
    Freezer,
    /// ext4 on loop devices.
    Disk,
    /// libfaketime.
    Faketime,
    /// A C compiler, for a library that is loaded before libc.
    Preload,
}

/// The arena. Dropping it ends and removes everything.
pub struct Arena {
    /// The cluster.
    pub herd: Herd,
    /// What connects it.
    pub network: Network,
    /// Why a tool cannot be used on this machine.
    pub missing: BTreeMap<Tool, String>,
    /// Nodes whose processes a fault holds down.
    pub held: [bool; NODES],
    /// Daemons that ended by themselves: when, which, how.
    pub gave_up: Vec<(u64, usize, String)>,
    /// Members that were taken out and are to come back.
    pub outcasts: Vec<Outcast>,
    /// Numbers the cuts.
    pub cuts: u32,
    /// The nodes' cables, while they are slow.
    pub cables: Vec<Cable>,
    syncs: Vec<Option<Arc<FailingSyncs>>>,
    disks: Vec<Option<Weak<Disk>>>,
    freezers: Vec<Option<Arc<Freezer>>>,
}

/// Where one daemon is started.
struct Place {
    netns: Arc<Netns>,
    freezer: Option<Arc<Freezer>>,
    clock: Option<String>,
    syncs: Option<Arc<FailingSyncs>>,
    prefix: Vec<String>,
    _disk: Option<Arc<Disk>>,
}

impl Home for Place {
    fn prefix(&self) -> Vec<String> {
        let Some(freezer) = &self.freezer else {
            return self.prefix.clone();
        };
        // A process can join a control group only by its own id, before it has children.
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        let joined = ["/bin/sh", "-c", script, &freezer.members().display().to_string()];
        joined
            .map(str::to_owned)
            .into_iter()
            .chain(self.prefix.clone())
            .collect()
    }

    fn spawn(&self, mut command: Command) -> std::io::Result<Child> {
        let mut preload = Vec::new();
        if let Some(syncs) = &self.syncs {
            preload.push(syncs.library().display().to_string());
            command.env("EIO_DIR", syncs.marks());
        }
        if let Some(clock) = &self.clock {
            preload.push(FAKETIME.to_owned());
            command
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        if !preload.is_empty() {
            command.env("LD_PRELOAD", preload.join(":"));
        }
        self.netns.spawn(command)
    }
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

impl Arena {
    /// Builds it and moves the calling thread among the clients: a runtime made by this thread afterwards lives there.
    /// The error says what this machine lacks; then everything is as before, but for the thread.
    ///
    /// `wanted`: what is loaded into every process is so only where a fault needs it.
    pub fn enter(options: Options, wanted: &[Tool]) -> Result<Self, String> {
        if !Uid::effective().is_root() {
            return Err("needs root".into());
        }
        // Mounts are this thread's and its children's alone, so that they end with them however they end.
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("unshare of the mounts: {error}"))?;
        disk::run("mount", &["--make-rprivate", "/"])?;
        let network = Network::new(NODES)?;
        network.join_clients()?;
        let mut missing = BTreeMap::new();
        if let Err(why) = network.can_cut() {
            missing.insert(Tool::Nft, why);
        }
        if !std::path::Path::new(FAKETIME).exists() {
            missing.insert(Tool::Faketime, "libfaketime is not installed".into());
        } else if !wanted.contains(&Tool::Faketime) {
            missing.insert(Tool::Faketime, "wall clocks were not asked for".into());
        }
        let has_clocks = !missing.contains_key(&Tool::Faketime);
        let missing = RefCell::new(missing);
        let (mut disks, mut freezers, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
        let ips: Vec<_> = (0..NODES).map(network::ip).collect();
        let options = Options {
            network: NETWORK,
            trusted: Some(CLIENTS),
            parameters: vec![
                "max_wal_size: 128MB",
                "min_wal_size: 32MB",
                "log_min_messages: log",
            ],
            ..options
        };
        let prefix: Vec<String> = options.prefix.iter().map(|word| (*word).to_owned()).collect();
        let herd = Herd::housed("chaos", &ips, options, |i, dir| {
            let note = |tool, why| {
                missing.borrow_mut().insert(tool, why);
            };
            let disk = Disk::new(dir)
                .map_err(|why| note(Tool::Disk, why))
                .ok()
                .map(Arc::new);
            let freezer = Freezer::new()
                .map_err(|why| note(Tool::Freezer, why))
                .ok()
                .map(Arc::new);
            let failing = wanted.contains(&Tool::Preload).then(|| failing_syncs(dir));
            let failing = failing.and_then(|made| made.map_err(|why| note(Tool::Preload, why)).ok());
            syncs.push(failing.clone());
            disks.push(disk.as_ref().map(Arc::downgrade));
            freezers.push(freezer.clone());
            let clock = has_clocks.then(|| {
                let path = dir.with_extension("clock").display().to_string();
                std::fs::write(&path, "+0\n").expect("the clock's file is written");
                path
            });
            Some(Box::new(Place {
                netns: network.node(i),
                freezer,
                clock,
                syncs: failing,
                prefix: prefix.clone(),
                _disk: disk,
            }))
        });
        let arena = Self {
            herd,
            network,
            missing: missing.into_inner(),
            held: [false; NODES],
            gave_up: Vec::new(),
            outcasts: Vec::new(),
            cuts: 0,
            cables: Vec::new(),
            syncs,
            disks,
            freezers,
        };
        for disk in (0..NODES).filter_map(|i| arena.disk(i).ok()) {
            disk.sync()?;
        }
        Ok(arena)
    }

    /// Starts every node and waits until all are there; the error is what a daemon said that gave up, or a portrait.
    pub async fn grow(&mut self) -> Result<(), String> {
        for node in &mut self.herd.nodes {
            node.start();
        }
        let begun = boot_ns();
        while !self.herd.is_whole().await {
            for node in &mut self.herd.nodes {
                if let Some(status) = node.exit() {
                    return Err(format!("{} gave up ({status}): {}", node.name, node.log_tail(2)));
                }
            }
            if boot_ns() - begun > GROWN_NS {
                return Err(self.herd.portrait().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The disk of a node.
    pub fn disk(&self, node: usize) -> Result<Arc<Disk>, String> {
        let disk = self.disks[node].as_ref().and_then(Weak::upgrade);
        disk.ok_or_else(|| "no disk of its own".into())
    }

    /// The control group of a node.
    pub fn freezer(&self, node: usize) -> Result<Arc<Freezer>, String> {
        self.freezers[node]
            .clone()
            .ok_or_else(|| "no control group of its own".into())
    }

    /// What makes a node's syncs fail.
    pub fn syncs(&self, node: usize) -> Result<Arc<FailingSyncs>, String> {
        self.syncs[node]
            .clone()
            .ok_or_else(|| "no library was built".into())
    }

    /// Has a node's wall clock differ from this machine's by so many seconds.
    pub fn set_clock(&self, node: usize, offset_s: i64) -> Result<(), String> {
        let path = self.herd.nodes[node].dir.with_extension("clock");
        std::fs::write(path, format!("{offset_s:+}\n")).map_err(|error| error.to_string())
    }

    /// Has a node's wall clock run at so many percent of its pace from now on; `set_clock` sets it right.
    pub fn set_pace(&self, node: usize, percent: u32) -> Result<(), String> {
        let path = self.herd.nodes[node].dir.with_extension("clock");
        let pace = f64::from(percent) / 100.0;
        std::fs::write(path, format!("+0 x{pace}\n")).map_err(|error| error.to_string())
    }

    /// What a service manager does: a daemon that ended by itself is noted and started again.
    pub fn supervise(&mut self) {
        for i in 0..NODES {
            let node = &mut self.herd.nodes[i];
            if let Some(status) = node.exit() {
                let why = format!("{status}; its log ends: {}", node.log_tail(3));
                self.gave_up.push((boot_ns(), i, why));
            }
            if !self.herd.nodes[i].has_daemon() && !self.held[i] {
                self.herd.nodes[i].start();
            }
        }
    }

    /// Waits until there is one primary, everybody streams and votes; how long that took, in seconds.
    pub async fn await_health(&mut self, deadline_s: u64) -> Result<f64, String> {
        let begun = boot_ns();
        loop {
            self.supervise();
            hurt_members::let_in(self).await;
            if self.outcasts.is_empty() && self.herd.is_whole().await {
                return Ok(seconds(boot_ns() - begun));
            }
            if boot_ns() - begun > deadline_s * 1_000_000_000 {
                return Err(self.herd.portrait().await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Beside the node's directory, which is its disk.
fn failing_syncs(dir: &std::path::Path) -> Result<Arc<FailingSyncs>, String> {
    let home = dir.parent().ok_or("a directory without a parent")?;
    let library = FailingSyncs::build(home)?;
    FailingSyncs::new(library, dir.with_extension("eio")).map(Arc::new)
}

/// Nanoseconds as seconds, for people.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Runs a test in an arena, on a thread of its own: entering moves the thread into other namespaces. What this machine
/// lacks for it is said, and the test is skipped.
pub fn in_arena(options: Options, name: &str, tool: Option<Tool>, work: impl AsyncFnOnce(&mut Arena) + Send) {
    let body = || {
        let mut arena = match Arena::enter(options, &[]) {
            Ok(arena) => arena,
            Err(why) => {
                eprintln!("skipped: {name}: {why}");
                return;
            }
        };
        if let Some(why) = tool.and_then(|tool| arena.missing.get(&tool)) {
            eprintln!("skipped: {name}: {why}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(work(&mut arena));
    };
    // One at a time: each has three nodes and twenty clients.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let outcome = scope.spawn(body).join();
        assert!(outcome.is_ok(), "{name} failed");
    });
}
