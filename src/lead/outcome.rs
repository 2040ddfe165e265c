//! What became of a handover, as the node that was asked finds it in what is agreed.

use super::handover::title;
use super::orders::Orders;
use crate::cluster::{Done, HandoverOrder, MemberName, Primacy, Revision, State};
use std::time::Duration;

/// Patroni's patience is twice as many seconds, and no fewer.
const LEAST_S: u64 = 10;

impl Orders {
    /// Waits until the handover that was recorded at `asked` is over; `before` was primary then.
    pub(super) async fn outcome(
        &self,
        order: &HandoverOrder,
        before: Option<MemberName>,
        asked: Revision,
    ) -> Done {
        let patience = 2 * self.settings.borrow().loop_wait_s.max(LEAST_S);
        let mut state = self.state.clone();
        let over = state.wait_for(|state| state.revision >= asked && is_over(state, asked));
        let over = tokio::time::timeout(Duration::from_secs(patience), over).await;
        let settled = match over {
            Ok(Ok(state)) => Some((**state).clone()),
            _ => None,
        };
        said(order, before.as_ref(), settled.as_ref())
    }
}

/// Nothing of it is left, and somebody is known to be primary.
fn is_over(state: &State, asked: Revision) -> bool {
    let left = state
        .handover
        .as_ref()
        .is_some_and(|present| present.asked == asked);
    !left && matches!(state.primacy, Primacy::Held { .. }) && state.is_confirmed()
}

/// In Patroni's words.
fn said(order: &HandoverOrder, before: Option<&MemberName>, settled: Option<&State>) -> Done {
    let (verb, word) = if order.failover && order.leader.is_none() {
        ("failed", "failover")
    } else {
        ("switched", "switchover")
    };
    let Some(state) = settled else {
        return Done::text(503, format!("{} status unknown", title(word)));
    };
    let now = state
        .primacy
        .held()
        .map(|(holder, _)| holder)
        .filter(|now| before != Some(*now));
    match (now, order.candidate.as_deref()) {
        (None, _) => Done::text(503, format!("{} failed", title(word))),
        (Some(now), Some(wanted)) if wanted != now.as_str() => Done::text(
            200,
            format!("{} over to \"{now}\" instead of \"{wanted}\"", title(verb)),
        ),
        (Some(now), _) => Done::text(200, format!("Successfully {verb} over to \"{now}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::script::World;

    #[test]
    fn patronis_words() {
        let world = World::herd(&["b", "a", "c"]);
        let order = |failover, candidate: Option<&str>| HandoverOrder {
            failover,
            leader: (!failover).then(|| "a".to_owned()),
            candidate: candidate.map(str::to_owned),
            ..HandoverOrder::default()
        };
        let (a, b) = (MemberName::from("a"), MemberName::from("b"));
        let now = Some(&world.state);
        for (failover, candidate, before, state, status, text) in [
            (
                false,
                Some("b"),
                &a,
                now,
                200,
                "Successfully switched over to \"b\"",
            ),
            (false, None, &a, now, 200, "Successfully switched over to \"b\""),
            (true, Some("b"), &a, now, 200, "Successfully failed over to \"b\""),
            (
                false,
                Some("c"),
                &a,
                now,
                200,
                "Switched over to \"b\" instead of \"c\"",
            ),
            (false, Some("c"), &b, now, 503, "Switchover failed"),
            (true, Some("c"), &b, now, 503, "Failover failed"),
            (false, Some("b"), &a, None, 503, "Switchover status unknown"),
        ] {
            let done = said(&order(failover, candidate), Some(before), state);
            assert_eq!((done.status, done.text.as_str()), (status, text));
        }
    }
}
