//! What a pause changes on a node, after `src/node/pause.rs` and `src/node/tenancy.rs`.

use super::world::World;
use matriarch::cluster::{Epoch, Moment, Pause, Revision, State};
use matriarch::decide::lease;

/// No deadline.
const ENDLESS_MS: u64 = 10 * 365 * 86_400_000;

impl World {
    /// Takes the primary's deadline off, or has it put back.
    pub fn bind(&mut self, n: usize, state: &State, now: Moment) {
        let me = self.nodes[n].name.clone();
        let Some(daemon) = self.daemon(n) else { return };
        if daemon.finishing && (!state.pause.is_on() || daemon.streamed_in.is_some()) {
            daemon.finishing = false;
        }
        let held = state.primacy.held().filter(|(holder, _)| **holder == me);
        let Some((_, epoch)) = held.filter(|(_, epoch)| daemon.caught_up && daemon.risen == Some(*epoch))
        else {
            return;
        };
        match state.pause {
            Pause::On => self.loosen(n, epoch, now),
            Pause::Off | Pause::Ending { .. } => self.tighten(n, epoch, now),
        }
    }

    fn loosen(&mut self, n: usize, epoch: Epoch, now: Moment) {
        let Some(daemon) = self.daemon(n) else { return };
        let held = daemon.tenancy;
        let runs = held.epoch == epoch && held.armed == Some(epoch) && now < lease::stop_at(held.until);
        if is_endless(held.until, now) && !held.letting_go || !runs {
            return;
        }
        let until = now.plus(ENDLESS_MS);
        if self.arm(n, epoch, until)
            && let Some(daemon) = self.daemon(n)
        {
            (daemon.tenancy.until, daemon.tenancy.letting_go) = (until, false);
            self.say(|| format!("{n}: its deadline goes, the cluster is paused"));
        }
    }

    fn tighten(&mut self, n: usize, epoch: Epoch, now: Moment) {
        let Some(daemon) = self.daemon(n) else { return };
        let held = &mut daemon.tenancy;
        if held.epoch != epoch || !is_endless(held.until, now) || held.letting_go {
            return;
        }
        held.letting_go = true;
        self.disarm(n);
        if let Some(guard) = &mut self.nodes[n].guard {
            guard.waking = false;
        }
    }

    /// What the report says while a pause ends.
    pub fn rearmed(&self, n: usize, state: &State, now: Moment) -> Option<Revision> {
        let Pause::Ending { since } = state.pause else {
            return None;
        };
        let node = &self.nodes[n];
        let daemon = node.daemon.as_ref()?;
        let is_bound = !daemon.tenancy.letting_go && !is_endless(daemon.tenancy.until, now);
        let armed = node.guard.is_some_and(|guard| guard.armed.is_some());
        let bound = daemon.running.is_none() || armed && is_bound;
        (daemon.caught_up && bound).then_some(since)
    }
}

fn is_endless(until: Moment, now: Moment) -> bool {
    until.since(now) > ENDLESS_MS / 2
}
