//! What systemd is told: ready, reloading, stopping, and that the node loop lives (`Type=notify`, `WatchdogSec=`).
//!
//! Without systemd there is no socket to tell, which is no fault.

use crate::clock;
use crate::node::tenancy::Tenancy;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;

/// The doors are open.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// The node file is being read again; [`ready`] follows.
pub(crate) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    let states: Vec<_> = std::iter::once(NotifyState::Reloading).chain(now.ok()).collect();
    tell(&states);
}

/// PostgreSQL is being stopped.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds systemd's watchdog, where it asks for that, as long as the node loop runs; never ends.
pub(crate) async fn feed(tenancy: Arc<Tenancy>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    // Two words may be lost or late before the third is missed.
    let pause = (limit / 3).max(Duration::from_millis(10));
    loop {
        if tenancy.may_report(clock::now()) {
            // A manager that does not listen must not hold up a thread that leases are renewed on.
            let _ = tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
        }
        tokio::time::sleep(pause).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
