//! What the daemon does about a guard that stands still.

use super::agent::Agent;
use crate::cluster::Moment;
use crate::guard::Signal;

/// The guard passes at least every 100 ms while anything is armed.
const GUARD_STILL_MS: u64 = 600;
/// PostgreSQL gets this long to end its children when it is stopped past its guard.
const BYPASS_KILL_MS: u64 = 150;

impl Agent {
    /// A guard that stands still enforces nothing, so nothing may be writable: PostgreSQL is stopped past it, and
    /// the lease is not renewed until the guard goes on.
    pub(super) fn guard_beats(&mut self, now: Moment) -> bool {
        let Some(hands) = &self.parts.hands else {
            return true;
        };
        let beats = hands.guard.heartbeat();
        let paused = self.parts.state.borrow().pause.is_on();
        if self.beat.0 != beats || self.running.is_none() || paused {
            self.beat = (beats, now);
            self.bypass = None;
            return true;
        }
        if now.since(self.beat.1) <= GUARD_STILL_MS {
            return true;
        }
        if let Some(pid) = self.guard.postmaster {
            let since = self
                .bypass
                .filter(|(of, _)| *of == pid)
                .map_or(now, |(_, since)| since);
            if self.bypass.is_none() {
                tracing::error!("the guard stands still: stopping PostgreSQL without it");
            }
            self.bypass = Some((pid, since));
            let late = now.since(since) > BYPASS_KILL_MS;
            let signal = if late { Signal::SIGKILL } else { Signal::SIGQUIT };
            // It may have ended already, or the guard may have gone on meanwhile: both are well.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
        }
        false
    }
}
