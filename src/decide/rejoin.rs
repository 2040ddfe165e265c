//! How a data directory that fell behind, or went its own way, becomes a standby of the present primary.
//!
//! Two servers promoted from the same ancestor give their timelines the same number, and pg_rewind then finds
//! nothing to do over different data. So the number alone proves nothing: only a timeline that the agreed
//! history lists, at a position not beyond the agreed fork, may go on; everything else is rewound or cloned.

use crate::cluster::{Lsn, MemberName, State, Timeline, WalEnd};

/// What has to happen before the data may follow the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// Nothing: its log is a prefix of the cluster's.
    Follow,
    /// It holds records beyond the fork: pg_rewind first.
    Rewind(String),
    /// Its log is unknown to the cluster's history: a new copy.
    Clone(String),
    /// It depends on where the primary's log ends, and the newest word of that is too old.
    Unsure,
    /// The present primary has not reached its timeline yet, so nothing can be said.
    Wait,
}

/// What a node knows of the log it holds.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Whose log it is.
    pub me: &'a MemberName,
    /// Where it ends.
    pub end: WalEnd,
    /// How its timeline began, by its own history file.
    pub fork: Option<crate::cluster::Fork>,
    /// Where the serving primary's log ended when last heard of, and whether that was after `end` was read.
    pub primary: Option<(Lsn, bool)>,
    /// The newest timeline that this copy is known to have reached under an agreed primary.
    pub reached: Option<Timeline>,
}

/// Decides for a log.
pub fn rejoin(state: &State, past: &Past<'_>) -> Rejoin {
    if !state.is_confirmed() {
        return Rejoin::Wait;
    }
    let local = past.end;
    if let Some(why) = strayed(state, past) {
        return Rejoin::Clone(why);
    }
    match fork_of(state, local.timeline) {
        Fork::Current => ahead_or_follow(past),
        Fork::At { next, switch } if local.lsn > switch => Rejoin::Rewind(format!(
            "its log on timeline {} ends at {}, after timeline {next} forked off at {switch}",
            local.timeline, local.lsn
        )),
        Fork::At { .. } => Rejoin::Follow,
        Fork::Unknown => Rejoin::Clone(format!(
            "timeline {} is not in the history of this cluster",
            local.timeline
        )),
    }
}

/// On the primary's own timeline nobody can be ahead of it, unless it was founded from an older copy of this data.
fn ahead_or_follow(past: &Past<'_>) -> Rejoin {
    match past.primary {
        Some((position, true)) if past.end.lsn > position => Rejoin::Clone(format!(
            "its log ends at {}, beyond the primary's at {position} on the same timeline",
            past.end.lsn
        )),
        Some((position, false)) if past.end.lsn > position => Rejoin::Unsure,
        _ => Rejoin::Follow,
    }
}

/// A timeline of an agreed number that began elsewhere, or that this copy cannot have reached by following.
fn strayed(state: &State, past: &Past<'_>) -> Option<String> {
    let timeline = past.end.timeline;
    let agreed = state
        .timelines
        .iter()
        .find(|promotion| promotion.timeline == timeline)?;
    if let Some(fork) = past.fork.filter(|fork| fork.timeline == timeline)
        && (fork.parent, fork.switch) != (agreed.parent, agreed.switch)
    {
        return Some(format!(
            "its timeline {timeline} forked off {} at {}, the cluster's off {} at {}",
            fork.parent, fork.switch, agreed.parent, agreed.switch
        ));
    }
    let unseen = past.reached.is_some_and(|reached| reached < timeline) && agreed.member != *past.me;
    unseen.then(|| format!("it came to timeline {timeline} without following this cluster's primary"))
}

enum Fork {
    Current,
    At { next: Timeline, switch: Lsn },
    Unknown,
}

/// Walks from the present timeline towards the first one.
fn fork_of(state: &State, timeline: Timeline) -> Fork {
    let Some(mut current) = state.timeline() else {
        return Fork::Unknown;
    };
    if current == timeline {
        return Fork::Current;
    }
    for promotion in state.timelines.iter().rev() {
        if promotion.timeline != current {
            continue;
        }
        if promotion.parent == timeline {
            return Fork::At {
                next: current,
                switch: promotion.switch,
            };
        }
        current = promotion.parent;
    }
    Fork::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Epoch, MemberName, Origin, Primacy, Promotion};

    fn history() -> State {
        let promotion = |timeline, parent, switch| Promotion {
            timeline: Timeline(timeline),
            parent: Timeline(parent),
            switch: Lsn(switch),
            member: MemberName::from("a"),
            incarnation: None,
            epoch: Epoch(u64::from(timeline)),
            rule: String::new(),
            at_ms: 0,
        };
        let member = MemberName::from("a");
        let timeline = Some(Timeline(5));
        State {
            first: Some(Timeline(1)),
            primacy: Primacy::Held {
                member,
                epoch: Epoch(9),
                origin: Origin::Restart,
                timeline,
            },
            timelines: vec![promotion(3, 1, 100), promotion(5, 3, 200)],
            ..State::default()
        }
    }

    fn past(
        me: &MemberName,
        end: WalEnd,
        fork: Option<crate::cluster::Fork>,
        reached: Option<Timeline>,
    ) -> Past<'_> {
        Past {
            me,
            end,
            fork,
            reached,
            primary: None,
        }
    }

    fn judged(local: WalEnd, fork: Option<crate::cluster::Fork>, reached: Option<Timeline>) -> Rejoin {
        rejoin(&history(), &past(&MemberName::from("c"), local, fork, reached))
    }

    #[test]
    fn an_agreed_number_over_another_past_is_cloned() {
        let fork = |parent, switch| {
            Some(crate::cluster::Fork {
                timeline: Timeline(3),
                parent: Timeline(parent),
                switch: Lsn(switch),
            })
        };
        assert!(matches!(judged(end(3, 150), fork(1, 90), None), Rejoin::Clone(_)));
        assert_eq!(judged(end(3, 150), fork(1, 100), None), Rejoin::Follow);
        // Even a fork at the very same place is another timeline, if this copy never followed there.
        assert!(matches!(
            judged(end(3, 150), fork(1, 100), Some(Timeline(1))),
            Rejoin::Clone(_)
        ));
        assert_eq!(
            judged(end(3, 150), fork(1, 100), Some(Timeline(3))),
            Rejoin::Follow
        );
    }

    #[test]
    fn nobody_is_ahead_of_the_primary_on_its_own_timeline() {
        let me = MemberName::from("c");
        let mut mine = past(&me, end(5, 900), None, None);
        for (position, expected) in [(900, Rejoin::Follow), (901, Rejoin::Follow)] {
            mine.primary = Some((Lsn(position), true));
            assert_eq!(rejoin(&history(), &mine), expected);
        }
        mine.primary = Some((Lsn(899), false));
        assert_eq!(
            rejoin(&history(), &mine),
            Rejoin::Unsure,
            "an older sample proves nothing"
        );
        mine.primary = Some((Lsn(899), true));
        assert!(matches!(rejoin(&history(), &mine), Rejoin::Clone(_)));
    }

    fn end(timeline: u32, lsn: u64) -> WalEnd {
        WalEnd {
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn a_prefix_follows() {
        for local in [end(1, 50), end(1, 100), end(3, 150), end(3, 200), end(5, 900)] {
            assert_eq!(judged(local, None, None), Rejoin::Follow, "{local:?}");
        }
    }

    #[test]
    fn a_tail_beyond_the_fork_is_rewound() {
        for local in [end(1, 101), end(3, 201)] {
            assert!(
                matches!(judged(local, None, None), Rejoin::Rewind(_)),
                "{local:?}"
            );
        }
    }

    #[test]
    fn a_timeline_that_nobody_agreed_on_is_cloned() {
        for local in [end(2, 50), end(4, 150), end(6, 1)] {
            assert!(matches!(judged(local, None, None), Rejoin::Clone(_)), "{local:?}");
        }
    }

    #[test]
    fn nothing_is_said_while_a_promotion_is_under_way() {
        let member = MemberName::from("b");
        let timeline = Some(Timeline(6));
        let primacy = Primacy::Held {
            member,
            epoch: Epoch(10),
            origin: Origin::Promotion,
            timeline,
        };
        let state = State { primacy, ..history() };
        assert_eq!(
            rejoin(&state, &past(&MemberName::from("c"), end(5, 900), None, None)),
            Rejoin::Wait
        );
    }
}
