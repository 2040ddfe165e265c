//! Which of Patroni's log sentences fit what has become of a node: scripts look for them. Each is said once, when it
//! becomes true; there is no line for every loop, because there is no loop.

use super::view::reach;
use crate::cluster::{Lsn, MemberName, Origin, PostgresReport, Report, Settings, State};

/// What a node does when nothing is to be done; `None` while something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calm<'a> {
    /// It serves.
    Leads,
    /// It streams from this member.
    Follows(&'a MemberName),
    /// There is no database cluster yet, and another node is to make it.
    Awaits,
}

/// The sentence of a node that is calm.
pub fn calm(me: &MemberName, calm: Calm<'_>, paused: bool) -> String {
    let prefix = if paused { "PAUSE: " } else { "" };
    match calm {
        Calm::Leads => format!("{prefix}no action. I am ({me}), the leader with the lock"),
        Calm::Follows(leader) => {
            format!("{prefix}no action. I am ({me}), a secondary, and following a leader ({leader})")
        }
        Calm::Awaits => format!("{prefix}waiting for leader to bootstrap"),
    }
}

/// Why this node, which could have been promoted when `before` was lost, was not: nothing when nobody was.
pub fn not_me<'a>(
    me: &MemberName,
    before: &MemberName,
    state: &State,
    settings: &Settings,
    reports: impl Iterator<Item = &'a Report> + Clone,
) -> Vec<String> {
    let Some((winner, _)) = state.primacy.held().filter(|(winner, _)| *winner != me) else {
        return Vec::new();
    };
    let is_promotion = matches!(state.primacy.origin(), Some((Origin::Promotion, _)));
    let member = |name: &MemberName| state.member(name).filter(|member| !member.is_witness());
    let (Some(mine), Some(theirs)) = (member(me), member(winner)) else {
        return Vec::new();
    };
    if !is_promotion || before == me || before == winner {
        return Vec::new();
    }
    let (mine, theirs) = (&mine.info.tags, &theirs.info.tags);
    if mine.nofailover || mine.failover_priority <= 0 {
        return vec!["following a different leader because I am not allowed to promote".to_owned()];
    }
    let postgres = |name: &MemberName| {
        let report = reports.clone().find(|report| report.member() == name);
        report.and_then(|report| report.postgres.as_ref())
    };
    let place = |postgres: &PostgresReport| postgres.location.max(reach(postgres));
    let at = |name: &MemberName| postgres(name).and_then(place).unwrap_or(Lsn(0));
    let (own, best, last) = (at(me), at(winner), at(before));
    let (priority, other) = (mine.failover_priority, theirs.failover_priority);
    let mut lines = Vec::new();
    if own.behind(last) > settings.maximum_lag_on_failover {
        lines.push("My wal position exceeds maximum replication lag".to_owned());
    } else if own < best {
        lines.push(format!("Wal position of {winner} is ahead of my wal position"));
    } else if own == best && priority < other {
        lines.push(format!(
            "{winner} has equally tolerable WAL position and priority {other}, while this node has priority {priority}"
        ));
    }
    lines.push("following a different leader because i am not the healthiest node".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::super::script::World;
    use super::*;

    fn name(text: &str) -> MemberName {
        MemberName::from(text)
    }

    /// What c says after these lines of a script, in which a was primary.
    fn said(script: &str) -> Vec<String> {
        let mut world = World::herd(&["a", "b", "c"]);
        for line in script.lines() {
            world.hear_line(line.trim());
        }
        let reports = world.heard.values().map(|heard| &heard.report);
        not_me(&name("c"), &name("a"), &world.state, &world.settings, reports)
    }

    #[test]
    fn who_was_not_promoted_says_why() {
        const LAST: &str = "following a different leader because i am not the healthiest node";
        const WON: &str = "primacy: b epoch=2 promotion timeline=2";
        let after = |script: &str| said(&format!("{script}\n{WON}"));
        assert_eq!(after(""), [LAST]);
        assert_eq!(
            after("c: received=0/4FFF000 replayed=0/4FFF000"),
            ["Wal position of b is ahead of my wal position", LAST]
        );
        assert_eq!(
            after("c: received=0/4000000 replayed=0/4000000"),
            ["My wal position exceeds maximum replication lag", LAST]
        );
        assert_eq!(
            after("b: priority=2"),
            [
                "b has equally tolerable WAL position and priority 2, while this node has priority 1",
                LAST
            ]
        );
        assert_eq!(
            after("c: nofailover"),
            ["following a different leader because I am not allowed to promote"]
        );
        for quiet in [
            "",
            "primacy: a epoch=2 restart",
            "primacy: c epoch=2 promotion timeline=2",
            "c: witness\nprimacy: b epoch=2 promotion timeline=2",
        ] {
            assert_eq!(said(quiet), Vec::<String>::new(), "{quiet}");
        }
    }

    #[test]
    fn calm_sentences() {
        let (me, other) = (name("b"), name("a"));
        assert_eq!(
            calm(&me, Calm::Leads, false),
            "no action. I am (b), the leader with the lock"
        );
        assert_eq!(
            calm(&me, Calm::Follows(&other), true),
            "PAUSE: no action. I am (b), a secondary, and following a leader (a)"
        );
        assert_eq!(calm(&me, Calm::Awaits, false), "waiting for leader to bootstrap");
    }
}
