//! What is agreed once one survivor goes on alone: it becomes primary in an epoch of its own, and nobody waits for the rest.

use super::history::Event;
use super::ids::MemberName;
use super::member::Fitness;
use super::pause::Pause;
use super::primacy::{Origin, Primacy};
use super::state::State;
use super::wal::Timeline;

/// The name of the rule in the history.
const RULE: &str = "recovered";

impl State {
    /// Why what was acknowledged to clients may be missing on this survivor, as far as the agreed state tells.
    pub fn lost_with_others(&self, me: &MemberName) -> Option<String> {
        let member = self.member(me)?;
        let copy = member.info.incarnation;
        member.info.postgres.as_ref()?;
        if self.sync.is_on() && !self.sync.met_by(|name, of| name == me && of == copy) {
            return Some(format!(
                "commits waited for standbys, and {me} alone does not prove to have every one that was acknowledged"
            ));
        }
        let holds = self.primacy.last().is_some_and(|(holder, _)| holder == me);
        match &member.fitness {
            _ if holds || self.sync.is_on() => None,
            Fitness::Fit => None,
            Fitness::Unfit(why) => Some(format!("{me} was not fit to be promoted: {why}")),
        }
    }

    /// Goes on with `me` alone. Every lease of an earlier epoch has to be over by then.
    pub fn survive(&mut self, me: &MemberName, at_ms: u64) {
        self.revision = self.revision.next();
        self.sync.quorums.clear();
        self.sync.serial += 1;
        self.handover = None;
        self.pause = Pause::Off;
        let Some(member) = self.members.get_mut(me) else {
            return;
        };
        // One without data, or before the database cluster exists, has nothing to be primary of.
        if member.info.incarnation.is_none() || self.system_id.is_none() {
            return;
        }
        member.fitness = Fitness::Fit;
        let kept = self.primacy.last().is_some_and(|(holder, _)| holder == me) && self.is_confirmed();
        self.epoch = self.epoch.next();
        let (origin, timeline) = match kept {
            true => (Origin::Restart, self.timeline()),
            false => {
                self.reserved = Timeline(self.reserved.0.saturating_add(1));
                (Origin::Promotion, Some(self.reserved))
            }
        };
        self.primacy = Primacy::Held {
            member: me.clone(),
            epoch: self.epoch,
            origin,
            timeline,
        };
        self.events.push(Event {
            revision: self.revision.0,
            epoch: self.epoch,
            member: Some(me.clone()),
            rule: RULE.to_owned(),
            reason: format!("an operator gave the other members up and went on with {me} alone"),
            at_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Quorum, Revision};
    use crate::decide::script::World;

    #[test]
    fn a_replica_becomes_primary_on_a_new_timeline_and_the_primary_stays_on_its_own() {
        for (name, origin) in [("a", Origin::Restart), ("b", Origin::Promotion)] {
            let before = World::herd(&["a", "b", "c"]).state;
            let mut state = before.clone();
            state.survive(&name.into(), 7);
            assert_eq!(state.primacy.held(), Some((&name.into(), before.epoch.next())));
            assert_eq!(state.primacy.origin().map(|(origin, _)| origin), Some(origin));
            assert_eq!(state.revision, Revision(before.revision.0 + 1));
            assert_eq!(state.members.len(), 3, "the others may come back");
        }
    }

    #[test]
    fn synchronous_sets_that_the_survivor_does_not_meet_are_a_loss() {
        let mut state = World::herd(&["a", "b", "c"]).state;
        let me = MemberName::from("b");
        assert_eq!(state.lost_with_others(&me), None);
        let copy = |name: &str| state.members[&MemberName::from(name)].info.incarnation;
        let members = ["b", "c"].map(|name| (MemberName::from(name), copy(name).unwrap()));
        let quorum = Quorum {
            primary: "a".into(),
            copy: copy("a"),
            members: members.into_iter().collect(),
            count: 1,
        };
        state.sync.quorums.push(quorum);
        assert!(state.lost_with_others(&me).is_some());
        assert_eq!(
            state.lost_with_others(&"a".into()),
            None,
            "the primary is in every set"
        );
        state.survive(&me, 7);
        assert!(!state.sync.is_on());
    }
}
