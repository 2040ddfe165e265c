//! What this node owes by what it knows, before anything is done about it.

use super::agent::Agent;
use super::hands::Hands;
use crate::cluster::{Moment, Role, State};
use crate::decide::duty::{self, Duty, Local, Process};

impl Agent {
    /// The process as far as a duty depends on it.
    pub(super) fn process(&self) -> Process {
        match (self.guard.postmaster, self.guard.clean) {
            (Some(pid), _) => {
                let role = self
                    .probed
                    .probe
                    .as_ref()
                    .filter(|_| self.probed.postmaster == Some(pid));
                Process::Up(role.map(|probe| {
                    if probe.in_recovery {
                        Role::Replica
                    } else {
                        Role::Primary
                    }
                }))
            }
            (None, true) => Process::Down,
            (None, false) => Process::Ending,
        }
    }

    /// The duty of this moment.
    pub(super) fn judge(&self, state: &State, now: Moment) -> Duty {
        if self.parts.hands.is_none() {
            return Duty::Rest("a witness only votes".to_owned());
        }
        let (lease_epoch, lease_until) = self.parts.tenancy.lease();
        let local = Local {
            me: &self.me,
            data: &self.holdings.data,
            fork: self.holdings.fork,
            reached: self.parts.ledger.facts().reached,
            primary: self.primary_position(state),
            unconfirmed_ms: self.unconfirmed_since.map_or(0, |since| now.since(since)),
            process: self.process(),
            promised: (
                self.parts.ledger.facts().promised,
                self.promise
                    .is_some_and(|promise| promise.epoch == self.parts.ledger.facts().promised),
            ),
            used: self.parts.ledger.facts().used,
            running: self.running,
            lease_epoch,
            lease_until,
            guest: self.hosts_guest(),
            leaving: self.leaving,
            hands_off: self.hands_off(state),
        };
        if let Some(owed) = (self.expelled.as_ref()).and_then(|why| duty::out_of_place(&local, why)) {
            return owed;
        }
        if !self.caught_up {
            // Without the group's word only the lease counts: an adopted primary may run on until it ends.
            let over = self.running.is_some() && now >= crate::decide::lease::stop_at(lease_until);
            let stray = self.running.is_none()
                && self.process() == Process::Up(Some(Role::Primary))
                && !self.hosts_guest();
            return match (over, stray) {
                (true, _) => Duty::Fence("its lease is running out and the group was not heard".to_owned()),
                (_, true) => Duty::Fence("it is a primary of no epoch".to_owned()),
                _ => Duty::Rest("waiting to hear from the group".to_owned()),
            };
        }
        if state.pause.is_on() {
            return duty::duty(state, &local, now);
        }
        if let Some(since) = self.hung_since(now) {
            return Duty::Fence(format!(
                "PostgreSQL has not answered for {} s",
                now.since(since) / 1_000
            ));
        }
        if let Some(why) = self.must_give_way() {
            return Duty::Fence(why);
        }
        if self.risen.is_some()
            && let Some(why) = self.parts.hands.as_ref().and_then(Hands::watchdog_lost)
        {
            return Duty::Fence(why);
        }
        duty::duty(state, &local, now)
    }
}
