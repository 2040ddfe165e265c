//! What can be said to others of who serves writers, as this node knows it.

use crate::cluster::{Endpoint, Facts, MemberName, Moment, Revision, Tenure};
use crate::vip;
use std::collections::BTreeSet;

/// A primary whose gate is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Serving {
    pub(super) member: MemberName,
    /// Where its PostgreSQL is.
    pub(super) at: Option<Endpoint>,
}

/// The picture. Whoever is neither serving nor shut is on the way to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    /// Where writers may go.
    pub(super) serving: Option<Serving>,
    /// Where they certainly may not.
    pub(super) shut: BTreeSet<MemberName>,
    /// The switchover or failover by name that is under way, known by the revision that recorded it.
    pub(super) moving: Option<Revision>,
}

impl Picture {
    pub(super) fn of(facts: &Facts, now: Moment) -> Self {
        let mut picture = Self::default();
        let state = &facts.state;
        let is_fresh = facts.is_fresh(now);
        let holder = state.primacy.held();
        for (name, member) in &state.members {
            let Some(at) = &member.info.postgres else { continue };
            let holds = holder.filter(|(holder, _)| *holder == name);
            let serves = match (*name == facts.me, holds) {
                (true, _) => Some(vip::is_owed(facts, now)),
                (false, _) if !is_fresh => None,
                (false, None) => Some(false),
                // Its gate shuts without our hearing of it at once, so only the good news counts.
                (false, Some((_, epoch))) => facts
                    .members
                    .iter()
                    .any(|seen| {
                        let report = &seen.report;
                        *report.member() == *name
                            && report.serves
                            && report.tenure == Tenure::Holding { epoch }
                    })
                    .then_some(true),
            };
            match serves {
                Some(true) => {
                    picture.serving = Some(Serving {
                        member: name.clone(),
                        at: Some(at.clone()),
                    });
                }
                Some(false) => {
                    picture.shut.insert(name.clone());
                }
                None => {}
            }
        }
        let begun = state.handover.as_ref().filter(|asked| asked.under_way.is_some());
        picture.moving = begun.filter(|_| is_fresh).map(|asked| asked.asked);
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::{NOW, facts, name};
    use crate::cluster::{Epoch, Handover, Primacy, Report, UnderWay};
    use std::sync::Arc;

    fn shown(facts: &Facts, now: Moment) -> String {
        let picture = Picture::of(facts, now);
        let shut: Vec<&str> = picture.shut.iter().map(|name| name.0.as_str()).collect();
        let serving = picture.serving.map(|serving| serving.member.0);
        let moving = if picture.moving.is_some() { ", moving" } else { "" };
        format!(
            "{} serves; shut: {}{moving}",
            serving.as_deref().unwrap_or("nobody"),
            shut.join(" ")
        )
    }

    fn report(facts: &mut Facts, node: usize, change: impl FnOnce(&mut Report)) {
        change(&mut Arc::make_mut(&mut facts.members)[node].report);
    }

    #[test]
    fn the_primary_knows_itself_and_others_by_agreement() {
        let mut facts = facts(0);
        assert_eq!(shown(&facts, NOW), "node0 serves; shut: node1 node2");
        // The lease is over, and nothing was heard of the group for as long.
        assert_eq!(shown(&facts, NOW.plus(20_000)), "nobody serves; shut: node0");
        facts.gate_open = false;
        assert_eq!(shown(&facts, NOW), "nobody serves; shut: node0 node1 node2");
    }

    #[test]
    fn another_is_believed_in_its_epoch_only() {
        let mut facts = facts(1);
        assert_eq!(shown(&facts, NOW), "node0 serves; shut: node1 node2");
        report(&mut facts, 0, |report| {
            report.tenure = Tenure::Holding { epoch: Epoch(0) }
        });
        assert_eq!(shown(&facts, NOW), "nobody serves; shut: node1 node2");
        assert_eq!(shown(&facts, NOW.plus(20_000)), "nobody serves; shut: node1");
        report(&mut facts, 0, |report| {
            report.tenure = Tenure::Holding { epoch: Epoch(1) };
            report.serves = false;
        });
        assert_eq!(shown(&facts, NOW), "nobody serves; shut: node1 node2");
    }

    #[test]
    fn a_switchover_counts_once_it_has_begun() {
        let mut facts = facts(0);
        let state = Arc::make_mut(&mut facts.state);
        state.handover = Some(Handover {
            failover: false,
            from: None,
            to: None,
            at: None,
            accept_loss: false,
            under_way: None,
            asked: Revision(9),
        });
        assert_eq!(shown(&facts, NOW), "node0 serves; shut: node1 node2");
        let state = Arc::make_mut(&mut facts.state);
        state.handover.as_mut().unwrap().under_way = Some(UnderWay {
            epoch: Epoch(1),
            to: name(1),
        });
        assert_eq!(shown(&facts, NOW), "node0 serves; shut: node1 node2, moving");
    }

    #[test]
    fn while_an_epoch_is_fenced_nobody_is_sent_anywhere() {
        let mut facts = facts(2);
        let state = Arc::make_mut(&mut facts.state);
        let Some((origin, timeline)) = state.primacy.origin() else {
            panic!("the fixture has a primary");
        };
        state.primacy = Primacy::Fencing {
            member: name(0),
            last: Epoch(1),
            epoch: Epoch(2),
            origin,
            timeline,
        };
        assert_eq!(shown(&facts, NOW), "nobody serves; shut: node0 node1 node2");
    }
}
