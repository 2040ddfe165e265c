//! Which members' replication slots a node keeps: on the primary those of who streams from it, on a standby those of who
//! will, should it be promoted.
//!
//! A slot keeps log until its member has it. That of a member which nobody has heard of for `ttl` and then for
//! `member_slots_ttl` goes, or it would fill the disk; once the member is heard of again it is made anew, and what it
//! lacks by then is copied. Silence counts only while this node hears the leader: one that is alone knows of nobody.
//! A slot in use is never dropped, whatever is decided here, and in a pause none is.

use crate::cluster::{Lsn, Member, MemberName, Moment, PostgresReport, Report, Settings, State, Timeline};
use std::collections::BTreeMap;

/// The leader's word of longer ago is none.
const DEAF_MS: u64 = 5_000;

/// When each member was last heard of, as far as this node knows.
#[derive(Clone, Debug, Default)]
pub struct Attendance(BTreeMap<MemberName, Moment>);

impl Attendance {
    /// Takes in whom the leader has heard of, and how long before `word_at`. Who is new is taken to be there.
    pub fn look<'a>(
        &mut self,
        state: &State,
        heard: impl Iterator<Item = (&'a MemberName, u64)>,
        word_at: Moment,
        now: Moment,
    ) {
        self.0.retain(|name, _| state.members.contains_key(name));
        if now.since(word_at) > DEAF_MS {
            self.0.clear();
        } else {
            for (name, age_ms) in heard.filter(|(name, _)| state.members.contains_key(*name)) {
                let at = Moment(word_at.0.saturating_sub(age_ms));
                let known = self.0.entry(name.clone()).or_insert(at);
                *known = at.max(*known);
            }
        }
        for name in state.members.keys() {
            self.0.entry(name.clone()).or_insert(now);
        }
    }

    fn is_gone(&self, name: &MemberName, settings: &Settings, now: Moment) -> bool {
        let patience_ms = settings.ttl_ms.saturating_add(settings.member_slots_ttl_ms);
        self.0.get(name).is_some_and(|at| now.since(*at) > patience_ms)
    }
}

/// What is to become of the members' slots on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Whose are there, or are made.
    pub keep: Vec<MemberName>,
    /// Whose are dropped once nobody uses them.
    pub drop: Vec<MemberName>,
}

/// The slots of this node, as primary or as a standby.
pub fn slots(
    me: &MemberName,
    is_primary: bool,
    state: &State,
    settings: &Settings,
    attendance: &Attendance,
    now: Moment,
) -> Slots {
    let promotable = |member: &Member| !member.info.tags.nofailover && member.info.tags.failover_priority > 0;
    let has_slots = settings.postgresql.use_slots && (is_primary || state.member(me).is_some_and(promotable));
    let others = state
        .members
        .values()
        .filter(|member| member.info.name != *me && !member.is_witness());
    let mut slots = Slots::default();
    for member in others {
        let name = member.info.name.clone();
        if has_slots && !attendance.is_gone(&name, settings, now) {
            slots.keep.push(name);
        } else {
            slots.drop.push(name);
        }
    }
    if !is_primary {
        // A primary ends who was taken out, too; here it is only that nothing is kept.
        let gone = state.removed.keys().filter(|name| state.member(name).is_none());
        slots.drop.extend(gone.cloned());
    }
    if state.pause.is_on() {
        slots.drop.clear();
    }
    slots
}

/// How far the log of these members reaches on their disks, of those on this node's timeline: a slot on a standby is
/// taken so far, because whoever it is for needs nothing older.
pub fn reached<'a>(
    keep: &[MemberName],
    timeline: Option<Timeline>,
    reports: impl Iterator<Item = &'a Report>,
) -> Vec<(MemberName, Lsn)> {
    let on_disk = |postgres: &PostgresReport| postgres.location.or(postgres.received).or(postgres.replayed);
    let place = |report: &'a Report| {
        let postgres = report.postgres.as_ref()?;
        let comparable =
            timeline.is_some() && postgres.timeline == timeline && keep.contains(report.member());
        comparable.then(|| Some((report.member().clone(), on_disk(postgres)?)))?
    };
    reports.filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::golden::run_all;
    use super::super::script::World;
    use super::*;

    #[test]
    fn situations() {
        run_all("slots");
    }

    #[test]
    fn silence_counts_only_while_the_leader_is_heard() {
        let world = World::herd(&["a", "b", "c"]);
        let name = |text: &str| MemberName::from(text);
        let mut settings = world.settings.clone();
        settings.member_slots_ttl_ms = 60_000;
        let mut attendance = Attendance::default();
        let mut dropped = |heard: &[(&str, u64)], word_at: u64, now: u64| {
            let heard: Vec<(MemberName, u64)> = heard.iter().map(|(who, age)| (name(who), *age)).collect();
            let heard = heard.iter().map(|(who, age)| (who, *age));
            attendance.look(&world.state, heard, Moment(word_at), Moment(now));
            let slots = slots(
                &name("a"),
                true,
                &world.state,
                &settings,
                &attendance,
                Moment(now),
            );
            slots.drop
        };
        const START: u64 = 10_000_000;
        assert_eq!(dropped(&[("b", 0), ("c", 0)], START, START), []);
        // Another leader has not heard of c at all; what is known of it stays.
        assert_eq!(dropped(&[("b", 0)], START + 62_000, START + 62_000), []);
        assert_eq!(dropped(&[("b", 0)], START + 62_001, START + 62_001), [name("c")]);
        // Of an hour alone nothing is known.
        assert_eq!(dropped(&[("b", 0)], START + 62_001, START + 3_600_000), []);
        let back = START + 3_600_001;
        assert_eq!(dropped(&[("b", 0)], back, back), []);
        assert_eq!(dropped(&[("b", 0)], back + 62_000, back + 62_000), [name("c")]);
        // The leader's own memory is older than this node's.
        assert_eq!(
            dropped(&[("b", 70_000), ("c", 100)], back + 62_000, back + 62_000),
            []
        );
        let mut anew = Attendance::default();
        let b = name("b");
        anew.look(
            &world.state,
            [(&b, 70_000)].into_iter(),
            Moment(START),
            Moment(START),
        );
        assert!(anew.is_gone(&b, &settings, Moment(START)));
    }
}
