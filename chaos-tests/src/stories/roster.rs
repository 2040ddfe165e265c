//! Members that leave and come back, and the tag that bars one from primacy: what operators do, and what must follow.
//!
//! Raft's own membership is not modelled (`raft/src/model` has it): whoever was taken out keeps its vote here, hears of
//! it by the log, and comes back under another id with what it had on its disk.

use super::bend::Bend;
use super::faults::Fault;
use super::postgres::Proc;
use super::world::{Event, World};
use matriarch::cluster::{Act, State};

/// An operator tries again so soon.
const AGAIN_MS: u64 = 200;

impl World {
    pub fn tag(&mut self, n: usize, tagged: bool) {
        self.nodes[n].nofailover = tagged && self.bend != Bend::TagUnheard;
        let since = &mut self.oracle.tagged_since[n];
        *since = tagged.then(|| since.unwrap_or(self.now));
        self.wake(n);
    }

    /// With force, and where it is the primary it is refused.
    pub fn take_out(&mut self, n: usize) {
        let member = self.nodes[n].name.clone();
        self.order(|_, _, state| {
            let may = !state.is_removed(&member) && state.primacy.last()?.0 != &member;
            may.then_some(Act::Dismiss { member })
        });
    }

    /// Asked for until it is agreed; one that is still being taken out stays.
    pub fn let_in(&mut self, n: usize) {
        let member = self.nodes[n].name.clone();
        let leaves = |act: &Act| matches!(act, Act::Dismiss { member: of } if *of == member);
        if !self.agreed().is_removed(&member) && !self.is_under_way(leaves) {
            return;
        }
        self.order(|_, _, state| state.is_removed(&member).then_some(Act::Readmit { member }));
        self.soon(AGAIN_MS, AGAIN_MS + 1, Event::Fault(Fault::LetIn(n)));
    }

    /// It was let in again: it joins under another Raft id.
    pub fn join_anew(&mut self, n: usize, state: &State) {
        let node = &mut self.nodes[n];
        if state.is_removed(&node.name) || !state.is_retired(node.info().raft_id) {
            return;
        }
        node.joined += 1;
        self.say(|| format!("{n}: joins anew"));
    }

    /// P3: whoever was taken out is no member any more and shows nobody its old rows.
    pub fn check_left(&mut self) {
        let agreed = self.agreed().clone();
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if !agreed.is_removed(&node.name) {
                continue;
            }
            self.oracle.taken_out += 1;
            if agreed.member(&node.name).is_some() || node.pg.proc != Proc::Down {
                let (pg, member) = (node.pg.proc, agreed.member(&node.name).is_some());
                self.break_promise(format!(
                    "P3: {n} was taken out in calm, and is a member: {member}, its server: {pg:?}"
                ));
            }
        }
    }

    /// P5: whoever was let in again follows.
    pub fn check_joined(&mut self) {
        let agreed = self.agreed().clone();
        let away = |n: &usize| agreed.member(&self.nodes[*n].name).is_none();
        if let Some(n) = (0..self.nodes.len()).find(away) {
            self.break_promise(format!("P5: {n} was let in in calm and is no member"));
        } else if !self.is_well(0, true) {
            self.break_promise("P5: not everybody follows after a member was let in in calm".to_owned());
        }
    }
}
