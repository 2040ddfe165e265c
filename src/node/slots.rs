//! When the members' slots on the local server are looked after: as soon as other ones are to be there, and at a pace while
//! there is something to take along, to drop, or to mend.

use super::agent::Agent;
use crate::cluster::{Lsn, MemberName, Moment, State};
use crate::decide::slots::{Attendance, Slots, reached, slots};

/// How far apart looks are while nothing else is to be there.
const PACE_MS: u64 = 10_000;

/// What this node knows of its slots.
#[derive(Default)]
pub struct SlotKeeper {
    attendance: Attendance,
    /// What was asked of the server last.
    known: Option<SlotWork>,
    /// The standby's postmaster that was asked: another one may have other data.
    asked: Option<i32>,
    next: Moment,
}

impl SlotKeeper {
    /// Nothing is known of the server's slots any more.
    pub fn forget(&mut self) {
        self.known = None;
    }
}

/// One look after the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotWork {
    /// Whose are kept, whose are dropped.
    pub slots: Slots,
    /// Standby: how far the others' slots may be taken.
    pub reached: Vec<(MemberName, Lsn)>,
    /// Primary: who was taken out, whose stream ends with its slot.
    pub taken_out: Vec<MemberName>,
}

impl Agent {
    /// Whose slots are to be on this node.
    pub(super) fn slots_for(&mut self, state: &State, is_primary: bool, now: Moment) -> Slots {
        let word = self.parts.word.borrow();
        let heard = word.digest.iter().map(|seen| (seen.report.member(), seen.age_ms));
        self.slots.attendance.look(state, heard, word.at, now);
        let settings = self.parts.settings.borrow();
        slots(
            &self.me,
            is_primary,
            state,
            &settings,
            &self.slots.attendance,
            now,
        )
    }

    /// What a serving primary owes its slots at this moment.
    pub(super) fn primary_slots(&mut self, state: &State, now: Moment) -> Option<SlotWork> {
        let slots = self.slots_for(state, true, now);
        let gone = |name: &&MemberName| state.member(name).is_none();
        let taken_out = state.removed.keys().filter(gone).cloned().collect();
        let senders = self.probed.probe.as_ref().map(|probe| &probe.walsenders);
        let streams = |name: &MemberName| {
            senders.is_some_and(|all| all.iter().any(|sender| sender.application_name == name.as_str()))
        };
        let uneasy = !slots.drop.is_empty() || !slots.keep.iter().all(streams);
        let work = SlotWork {
            slots,
            reached: Vec::new(),
            taken_out,
        };
        self.due(work, uneasy, now)
    }

    /// The same for a standby.
    pub(super) fn standby_slots(&mut self, state: &State, now: Moment) -> Option<SlotWork> {
        if self.slots.asked != self.guard.postmaster {
            self.slots.asked = self.guard.postmaster;
            self.slots.forget();
        }
        let slots = self.slots_for(state, false, now);
        let timeline = self.probed.probe.as_ref().and_then(|probe| probe.timeline);
        let reached = {
            let word = self.parts.word.borrow();
            reached(&slots.keep, timeline, word.digest.iter().map(|seen| &seen.report))
        };
        let moved = self
            .slots
            .known
            .as_ref()
            .is_some_and(|known| known.reached != reached);
        let uneasy = moved || !slots.drop.is_empty();
        let work = SlotWork {
            slots,
            reached,
            taken_out: Vec::new(),
        };
        self.due(work, uneasy, now)
    }

    /// Other slots at once, the rest at its pace.
    fn due(&mut self, work: SlotWork, uneasy: bool, now: Moment) -> Option<SlotWork> {
        let keeper = &mut self.slots;
        let same = |known: &SlotWork| known.slots == work.slots && known.taken_out == work.taken_out;
        if keeper.known.as_ref().is_some_and(same) && !(uneasy && now >= keeper.next) {
            return None;
        }
        keeper.next = now.plus(PACE_MS);
        keeper.known = Some(work.clone());
        Some(work)
    }
}
