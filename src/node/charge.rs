//! Keeps the guard's standing orders current: who speaks for this node when its daemon cannot, and which watchdog to feed.

use super::last_word::Note;
use crate::clock;
use crate::cluster::{Moment, Report, Settings};
use crate::config::{Config, WatchdogMode};
use crate::guard::{Guard, Messenger, WatchdogDriver, WatchdogOrder, WatchdogState};
use matriarch_raft::Group;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Orders follow what they are made of within this time; a guard that was replaced has them at once.
const LOOK_EVERY_MS: u64 = 500;

/// What the orders are made of.
pub struct Charge {
    /// Who obeys.
    pub guard: Guard,
    /// The node file.
    pub config: watch::Receiver<Arc<Config>>,
    /// This program.
    pub exe: PathBuf,
    /// The group whose voters are told.
    pub group: Group,
    /// What this node says of itself.
    pub report: watch::Receiver<Arc<Report>>,
    /// The agreed settings, for the ttl.
    pub settings: watch::Receiver<Arc<Settings>>,
}

impl Charge {
    /// Runs until aborted.
    pub async fn run(self) {
        let (mut watch, mut report) = (self.guard.watch(), self.report.clone());
        let mut given = None;
        let mut told = WatchdogState::Off;
        loop {
            let looked = clock::now();
            let state = watch.borrow_and_update().clone();
            let orders = (self.guard.pid(), self.messenger(), self.watchdog());
            if state.connected && state.takes_orders && given.as_ref() != Some(&orders) {
                match self.guard.order(orders.1.clone(), orders.2.clone()).await {
                    Ok(()) => given = Some(orders),
                    Err(why) => tracing::warn!("the guard did not take its orders: {why}"),
                }
            }
            if let WatchdogState::Unusable(why) = state.watchdog
                && told != state.watchdog
            {
                let device = self.config.borrow().watchdog.device.clone();
                let device = device.display();
                tracing::warn!("the watchdog {device} does not protect this node: {why}");
            }
            told = state.watchdog;
            tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                () = passed(&mut report, looked) => {}
            }
        }
    }

    fn messenger(&self) -> Option<Messenger> {
        let raft_id = self.group.id();
        let config = self.config.borrow().clone();
        let mut peers = config.raft.partner_addrs.clone();
        for voter in &self.group.status().borrow().voters {
            if voter.id != raft_id && !peers.contains(&voter.addr) {
                peers.push(voter.addr.clone());
            }
        }
        let note = Note {
            info: self.report.borrow().info.clone(),
            peers,
        };
        // Without an id this node is no member yet, and holds no epoch that could end.
        if note.info.raft_id == 0 {
            return None;
        }
        Some(Messenger {
            program: self.exe.clone(),
            command: "last-word".to_owned(),
            args: vec![note.to_text()?, config.path.to_str()?.to_owned()],
            env: crate::guard::hidden_variables(),
            dir: std::env::current_dir().unwrap_or_default(),
        })
    }

    fn watchdog(&self) -> Option<WatchdogOrder> {
        let config = self.config.borrow().clone();
        let watchdog = &config.watchdog;
        let driver = if watchdog.testing {
            WatchdogDriver::Testing
        } else {
            WatchdogDriver::Kernel
        };
        (watchdog.mode != WatchdogMode::Off).then(|| WatchdogOrder {
            device: watchdog.device.clone(),
            driver,
            required: watchdog.mode == WatchdogMode::Required,
            ttl_ms: self.settings.borrow().ttl_ms,
            safety_margin_s: watchdog.safety_margin_s,
        })
    }
}

/// Ends with the pass of the node loop that finds the last look old: a timer would wake a node at rest once more.
async fn passed(report: &mut watch::Receiver<Arc<Report>>, looked: Moment) {
    while report.changed().await.is_ok() {
        if clock::now().since(looked) >= LOOK_EVERY_MS {
            return;
        }
    }
    // The node loop is gone, and this task goes with it.
    std::future::pending().await
}
