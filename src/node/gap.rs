//! How long nobody served before this node did: from the former primary's last sign to the opening of the gate here.

use crate::cluster::{Epoch, Facts, Moment, PostgresState, Role, Tenure};

/// Watches who serves. Both ends are read off this node's own clock, so no clocks are compared; the beginning is known
/// to one report of the former primary, which is why a gap is never said too short by more than `report_interval`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gap {
    /// The newest epoch that was seen served, and when last.
    served: Option<(Epoch, Moment)>,
    /// The epoch this node opened its gate in, and the gap before it.
    measured: Option<(Epoch, u64)>,
}

impl Gap {
    /// Takes in one picture; answers the gap before the epoch in which this node serves.
    pub(super) fn observe(&mut self, facts: &Facts, now: Moment) -> Option<u64> {
        let mine = facts.lease.epoch;
        if facts.gate_open && facts.has_lease(now) {
            if let Some((before, at)) = self.served
                && before < mine
            {
                self.measured = Some((mine, now.since(at)));
            }
            self.served = Some((mine, now));
        } else {
            self.served = self.served.max(elsewhere(facts));
        }
        let (holder, epoch) = facts.state.primacy.held()?;
        let (measured, gap_ms) = self.measured?;
        (*holder == facts.me && epoch == measured).then_some(gap_ms)
    }
}

/// The newest epoch that another node says it serves, and when it said so.
fn elsewhere(facts: &Facts) -> Option<(Epoch, Moment)> {
    let others = facts
        .members
        .iter()
        .filter(|seen| *seen.report.member() != facts.me);
    let serving = others.filter_map(|seen| {
        let postgres = seen.report.postgres.as_ref()?;
        let serves = postgres.role == Role::Primary && postgres.state == PostgresState::Running;
        match seen.report.tenure {
            Tenure::Holding { epoch } if serves => {
                let at = Moment(facts.members_at.0.saturating_sub(seen.age_ms));
                Some((epoch, at))
            }
            _ => None,
        }
    });
    serving.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixtures::{NOW, facts};
    use crate::cluster::{LeaseFacts, Origin, Primacy, Timeline};
    use std::sync::Arc;

    /// node1 sees node0 serve epoch 1 until 150 ms before `NOW`, then serves epoch 2 itself.
    fn taken_over(at: Moment) -> Facts {
        let mut facts = facts(1);
        Arc::make_mut(&mut facts.state).primacy = Primacy::Held {
            member: facts.me.clone(),
            epoch: Epoch(2),
            origin: Origin::Promotion,
            timeline: Some(Timeline(2)),
        };
        facts.gate_open = true;
        facts.lease = LeaseFacts {
            epoch: Epoch(2),
            until: at.plus(2_000),
        };
        facts
    }

    #[test]
    fn from_the_last_sign_of_the_former_to_the_gate() {
        let mut gap = Gap::default();
        assert_eq!(gap.observe(&facts(1), NOW), None);
        let opened = NOW.plus(1_000);
        assert_eq!(gap.observe(&taken_over(opened), opened), Some(1_150));
        let later = NOW.plus(9_000);
        assert_eq!(gap.observe(&taken_over(later), later), Some(1_150));
        // Somebody else is primary: this node has nothing to say of that failover.
        assert_eq!(gap.observe(&facts(1), later), None);
    }

    #[test]
    fn unknown_to_a_node_that_saw_nobody_before() {
        let mut gap = Gap::default();
        assert_eq!(gap.observe(&taken_over(NOW), NOW), None);
    }
}
