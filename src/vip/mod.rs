//! The virtual address: clients that know one address only find the primary at it.
//!
//! ```text
//!   Facts (watch) --> keep: is this node to hold it? --> link      the kernel's list of addresses (netlink)
//!                                                    --> announce  gratuitous ARP, unsolicited neighbour advertisement
//! ```
//!
//! It is held exactly while this node serves: from the moment the gate opens until fencing begins. What counts is the
//! list of the kernel, looked at again and again: an address that a dead daemon left behind is found and removed at the
//! start, one that somebody else removed comes back.
//!
//! Two nodes must not hold it at once. The lease gives that as it gives everything else: the address goes when fencing
//! begins, `STOP_MARGIN` before the deadline, and the next primary's gate opens after it. A daemon that hangs cannot
//! remove anything; then the messenger that the guard sends when PostgreSQL has ended (`matriarch last-word`) removes it
//! first. Only where daemon and guard are killed together does it stay, with nobody behind it, until the daemon is back.
//!
//! In a synchronous mode the next primary waits for no lease. A primary that is cut off from the others, but not from
//! its clients, then keeps the address until its lease ends, and clients near it are served stale reads until then.
//!
//! **Where a proxy lives** (`role: proxy`). Then any node may hold it whose built-in proxy lives, and which one is the Raft
//! leader's choice: it lets one node carry it for a ttl, and moves it when that node gives it up, which it does when its
//! proxy has gone, or when the ttl has passed without a word (`decide::address`). A daemon that hangs or is killed cannot
//! remove it here either, and its PostgreSQL need not end with it: so the kernel is told how long the address is valid, and
//! removes it by itself. Two proxies would lead to the same primary all the same; two holders only confuse neighbours.
//!
//! Rights: CAP_NET_ADMIN is enough. With CAP_NET_RAW the new place is announced by a gratuitous ARP packet (RFC 5227
//! section 3) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6); without it the kernel is made to ask
//! for a neighbour on our behalf, from the address, which tells everybody as well (RFC 826, "Packet Reception"). IPv6 has
//! no such way: there neighbours that were not told find out when the old place has not answered for some seconds.

mod announce;
mod link;

use crate::clock;
use crate::cluster::{Facts, Moment, PostgresState, Role};
use crate::config::STOP_MARGIN_MS;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub use crate::config::{Vip, VipRole};
pub use link::{Link, LinkError};

/// How often the kernel's list is compared with what is owed although nothing was heard.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A look at the kernel's list costs a system call or two, so with nothing new it is done this often.
const LIST_EVERY_MS: u64 = 1_000;
/// What the kernel is told of the validity of a proxies' address, it is told so often.
const RENEW_EVERY_MS: u64 = 300;
/// The new place is announced again so long after the first time: a switch that learns late, a packet that is lost.
const ANNOUNCE_AT_MS: [u64; 4] = [0, 100, 1_000, 5_000];

/// How it stands with the address on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Not looked yet.
    #[default]
    Unknown,
    /// The kernel has it.
    Here,
    /// It has not.
    Elsewhere,
    /// It cannot be asked, or refuses.
    Trouble,
}

/// Whether this node is to hold the address of the primary: it serves, and fencing is not about to begin.
pub fn is_owed(facts: &Facts, now: Moment) -> bool {
    facts.gate_open && facts.has_lease(now.plus(STOP_MARGIN_MS))
}

/// For how many milliseconds this node may hold it, if at all: `u64::MAX` where only fencing ends that.
fn owed_ms(role: VipRole, facts: &Facts, now: Moment) -> Option<u64> {
    match role {
        VipRole::Primary => is_owed(facts, now).then_some(u64::MAX),
        VipRole::Proxy => {
            let left = facts.bears_until.since(now);
            // Once more it could not be looked at in time.
            (left > 2 * RENEW_EVERY_MS).then_some(left)
        }
    }
}

/// A daemon that has just started does not know yet: what the last one left may go on under it.
fn is_undecided(role: VipRole, facts: Option<&Facts>, started_at: Moment, now: Moment) -> bool {
    let Some(facts) = facts else { return true };
    if role == VipRole::Proxy {
        return now.since(started_at) < facts.settings.ttl_ms;
    }
    let primary =
        facts.report.postgres.as_ref().is_some_and(|postgres| {
            postgres.role == Role::Primary && postgres.state == PostgresState::Running
        });
    primary && now.since(started_at) < facts.settings.ttl_ms
}

/// Keeps the kernel's list as it is owed until `stopped` says so. What is owed then stays: PostgreSQL goes on without a
/// daemon in maintenance mode, and otherwise the gate was shut before.
pub async fn keep(
    vip: Vip,
    mut facts: watch::Receiver<Option<Arc<Facts>>>,
    mut stopped: watch::Receiver<bool>,
    hold: watch::Sender<Hold>,
) {
    let role = vip.role;
    let mut holder = Holder::new(vip);
    hold.send_replace(holder.look().await);
    let started_at = clock::now();
    loop {
        let now = clock::now();
        let known = facts.borrow_and_update().clone();
        let stop = *stopped.borrow_and_update();
        let mut owed = known.as_deref().and_then(|facts| owed_ms(role, facts, now));
        if stop && role == VipRole::Proxy {
            // A node without its daemon asks for no more time, so another one gets it soon.
            owed = None;
        }
        let first = holder.held.is_none() && owed.is_none();
        if stop && known.is_none() || first && !stop && is_undecided(role, known.as_deref(), started_at, now)
        {
            // Neither taken nor removed.
        } else {
            holder.bring_about(owed, now).await;
            hold.send_if_modified(|known| std::mem::replace(known, holder.hold()) != holder.hold());
        }
        if stop {
            return;
        }
        let news = async {
            if facts.changed().await.is_err() {
                // The daemon is about to end; what it knew last is as old as its lease says.
                std::future::pending::<()>().await;
            }
        };
        // Timing out is the normal case.
        tokio::select! {
            _ = tokio::time::timeout(LOOK_AGAIN, news) => {}
            gone = stopped.changed() => if gone.is_err() { return },
        }
    }
}

/// Removes the address now, for a daemon that cannot. Returns whether it was there.
pub async fn drop_now(vip: &Vip) -> Result<bool, LinkError> {
    Link::open(&vip.interface).await?.remove(vip).await
}

struct Holder {
    vip: Vip,
    link: Option<Link>,
    held: Option<bool>,
    listed_at: Moment,
    taken_at: Moment,
    announced: usize,
    trouble: String,
}

impl Holder {
    fn new(vip: Vip) -> Self {
        Self {
            vip,
            link: None,
            held: None,
            listed_at: Moment(0),
            taken_at: Moment(0),
            announced: 0,
            trouble: String::new(),
        }
    }

    /// What is here before anything was done.
    async fn look(&self) -> Hold {
        let listed = async { Link::open(&self.vip.interface).await?.has(&self.vip).await };
        match listed.await {
            Ok(true) => Hold::Here,
            Ok(false) => Hold::Elsewhere,
            Err(_) => Hold::Trouble,
        }
    }

    fn hold(&self) -> Hold {
        match self.held {
            Some(true) => Hold::Here,
            Some(false) => Hold::Elsewhere,
            None => Hold::Trouble,
        }
    }

    /// `owed_ms`: for how long it is owed, if it is.
    async fn bring_about(&mut self, owed_ms: Option<u64>, now: Moment) {
        let every_ms = match owed_ms {
            Some(u64::MAX) | None => LIST_EVERY_MS,
            Some(_) => RENEW_EVERY_MS,
        };
        if self.held != Some(owed_ms.is_some()) || now.since(self.listed_at) >= every_ms {
            match self.settle(owed_ms, now).await {
                Ok(()) => self.trouble.clear(),
                Err(error) => self.complain(error.to_string()),
            }
        }
        if self.held == Some(true) {
            self.announce(now).await;
        }
    }

    async fn settle(&mut self, owed_ms: Option<u64>, now: Moment) -> Result<(), LinkError> {
        let owed = owed_ms.is_some();
        let fresh = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.vip.interface).await?,
        };
        let link = self.link.insert(fresh);
        let vip = &self.vip;
        let changed = match owed_ms {
            Some(owed_ms) => link.add(vip, owed_ms).await,
            None => link.remove(vip).await,
        };
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                // The interface may have been made anew under another number.
                self.link = None;
                self.held = None;
                return Err(error);
            }
        };
        let (address, interface) = (vip.address, &vip.interface);
        match (owed, changed, self.held) {
            (true, true, _) => tracing::info!("{address} is here now, on {interface}"),
            (false, true, None) => tracing::warn!("{address} was left on {interface}: removed"),
            (false, true, _) => tracing::info!("{address} is no longer here"),
            (_, false, _) => {}
        }
        if owed && (changed || self.held != Some(true)) {
            (self.taken_at, self.announced) = (now, 0);
        }
        self.held = Some(owed);
        self.listed_at = now;
        Ok(())
    }

    async fn announce(&mut self, now: Moment) {
        let due = ANNOUNCE_AT_MS
            .get(self.announced)
            .is_some_and(|after| now.since(self.taken_at) >= *after);
        if !due {
            return;
        }
        self.announced = self.announced.saturating_add(1);
        if let Some(link) = &self.link
            && let Err(error) = announce::announce(&self.vip, link).await
        {
            self.complain(format!(
                "vip: {} could not be announced: {error}",
                self.vip.address
            ));
        }
    }

    /// Each new trouble once.
    fn complain(&mut self, trouble: String) {
        if trouble != self.trouble {
            tracing::warn!("{trouble}");
            self.trouble = trouble;
        }
    }
}
