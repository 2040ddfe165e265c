//! Hands off: what a pause changes on this node.
//!
//! ```text
//!  pause agreed, and this node holds the epoch that runs here -> its deadline goes (tenancy: loosen)
//!  resume agreed -> the guard lets the endless deadline go -> the next grant's stands -> said in the report (rearmed)
//! ```
//!
//! The deadline goes only on what is agreed *now*: a daemon that has just started replays the log, in which a pause may
//! be long over, and must not act on it before it has caught up with the leader's word. A pause that it has not heard
//! the end of cannot have ended: the resume is complete only with this node's own report (`cluster/pause.rs`).

use super::agent::Agent;
use crate::cluster::{Moment, Pause, Revision, State};

impl Agent {
    /// Nothing is started or stopped here by itself, except to end what this node began on an operator's order.
    pub(super) fn hands_off(&self, state: &State) -> bool {
        state.pause.is_on() && !self.finishing
    }

    /// An operator has asked for what ends with a standby that runs, paused or not.
    pub(super) fn finish_in_pause(&mut self) {
        self.finishing = true;
        self.streamed_in = None;
    }

    /// Takes the primary's deadline off, or has it put back.
    pub(super) fn bind(&mut self, state: &State, now: Moment) {
        if self.finishing && (!state.pause.is_on() || self.streamed_in.is_some()) {
            self.finishing = false;
        }
        let held = state.primacy.held().filter(|(holder, _)| **holder == self.me);
        let Some((_, epoch)) = held.filter(|(_, epoch)| self.caught_up && self.risen == Some(*epoch)) else {
            return;
        };
        match state.pause {
            Pause::On => self.parts.tenancy.loosen(epoch, now),
            Pause::Off | Pause::Ending { .. } => self.parts.tenancy.tighten(epoch, now),
        }
    }

    /// What the report says while a pause ends.
    pub(super) fn rearmed(&self, state: &State) -> Option<Revision> {
        let Pause::Ending { since } = state.pause else {
            return None;
        };
        let bound = self.running.is_none() || self.guard.armed.is_some() && self.parts.tenancy.is_bound();
        (self.caught_up && bound).then_some(since)
    }
}
