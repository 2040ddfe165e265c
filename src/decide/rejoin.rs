//! How a data directory that fell behind, or went its own way, becomes a standby of the present primary.
//!
//! Two servers promoted from the same ancestor give their timelines the same number, and pg_rewind then finds
//! nothing to do over different data. So the number alone proves nothing: only a timeline that the agreed
//! history lists, at a position not beyond the agreed fork, may go on; everything else is rewound or cloned.

use crate::cluster::{Lsn, State, Timeline, WalEnd};

/// What has to happen before the data may follow the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// Nothing: its log is a prefix of the cluster's.
    Follow,
    /// It holds records beyond the fork: pg_rewind first.
    Rewind(String),
    /// Its log is unknown to the cluster's history: a new copy.
    Clone(String),
    /// The present primary has not reached its timeline yet, so nothing can be said.
    Wait,
}

/// Decides for a log that ends at `local`.
pub fn rejoin(state: &State, local: WalEnd) -> Rejoin {
    if !state.is_confirmed() {
        return Rejoin::Wait;
    }
    match fork_of(state, local.timeline) {
        Fork::Current => Rejoin::Follow,
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

    fn end(timeline: u32, lsn: u64) -> WalEnd {
        WalEnd {
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn a_prefix_follows() {
        for local in [end(1, 50), end(1, 100), end(3, 150), end(3, 200), end(5, 900)] {
            assert_eq!(rejoin(&history(), local), Rejoin::Follow, "{local:?}");
        }
    }

    #[test]
    fn a_tail_beyond_the_fork_is_rewound() {
        for local in [end(1, 101), end(3, 201)] {
            assert!(
                matches!(rejoin(&history(), local), Rejoin::Rewind(_)),
                "{local:?}"
            );
        }
    }

    #[test]
    fn a_timeline_that_nobody_agreed_on_is_cloned() {
        for local in [end(2, 50), end(4, 150), end(6, 1)] {
            assert!(matches!(rejoin(&history(), local), Rejoin::Clone(_)), "{local:?}");
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
        assert_eq!(rejoin(&state, end(5, 900)), Rejoin::Wait);
    }
}
