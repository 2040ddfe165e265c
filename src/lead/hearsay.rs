//! A leader that does not hear the primary asks who does, and gives Raft's lead to that one.
//!
//! Two of three nodes may be cut from each other while both reach the third: one bad cable, one rule too many in a
//! firewall. If the two are the leader and the primary, no lease is renewed, and primacy would move although the third
//! node hears everybody. Raft does not help: its leader has its majority.
//!
//! ```text
//! leader -- HeardOf(primary)? --> voters      half a lease after the primary's last report here
//!        <-- 120 ms --                         one of them hears it: the lead goes there,
//!                                              and the primary's next report renews its lease
//! ```
//!
//! Where the primary is dead nobody has heard of it later than the leader, and the lead stays: a new leader would count
//! every wait from its own election.

use crate::cluster::command::HEARSAY_LEVEL;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{MemberName, Moment, PeerMessage, PeerReply, State};
use matriarch_raft::Group;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two rounds of asking.
const ASK_EVERY_MS: u64 = 100;
/// An answer that takes longer is of no use any more.
const DEADLINE: Duration = Duration::from_millis(300);

/// The asking, which holds up nothing else of the leader's.
#[derive(Default)]
pub(super) struct Hearsay {
    asked_at: Moment,
    round: JoinSet<()>,
}

impl Hearsay {
    /// Asks who hears `holder`, of whom this leader has not heard for `missed_ms`; the lead is handed over where an answer
    /// says so.
    pub(super) fn seek(
        &mut self,
        group: &Group,
        state: &State,
        holder: &MemberName,
        missed_ms: u64,
        now: Moment,
    ) {
        while self.round.try_join_next().is_some() {}
        if !self.round.is_empty() || now.since(self.asked_at) < ASK_EVERY_MS {
            return;
        }
        self.asked_at = now;
        let (group, holder, voters) = (group.clone(), holder.clone(), ears(group, state, holder));
        self.round.spawn(async move {
            let Some(to) = who_hears(&group, &holder, missed_ms, voters).await else {
                return;
            };
            if group.hand_over(to).await.is_ok() {
                tracing::info!(to, "handed Raft's lead to another node, which hears {holder}");
            }
        });
    }
}

/// The voters that may be asked and could lead.
fn ears(group: &Group, state: &State, holder: &MemberName) -> Vec<u64> {
    let status = group.status();
    let status = status.borrow();
    let could_lead = |id: u64| id != status.id && status.peers_level.contains(&(id, true));
    let others = state
        .members
        .values()
        .filter(|member| member.info.name != *holder);
    others
        .filter(|member| member.info.level >= HEARSAY_LEVEL && could_lead(member.info.raft_id))
        .map(|member| member.info.raft_id)
        .collect()
}

/// The first that says that it hears the holder.
async fn who_hears(group: &Group, holder: &MemberName, missed_ms: u64, voters: Vec<u64>) -> Option<u64> {
    let mut asked = JoinSet::new();
    for voter in voters {
        let message = envelope::seal(Kind::Message, &PeerMessage::HeardOf(holder.clone()));
        let group = group.clone();
        asked.spawn(async move { (voter, group.ask(voter, message, DEADLINE).await) });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok((voter, Ok(bytes))) = answer
            && let Ok(PeerReply::HeardOf(Some(age_ms))) = envelope::open(Kind::Reply, &bytes)
            && hears(age_ms, missed_ms)
        {
            return Some(voter);
        }
    }
    None
}

/// Whether a report of this age is evidence that its sender is heard there and not here: what was the last word for both is
/// as old there as here.
fn hears(age_ms: u64, missed_ms: u64) -> bool {
    age_ms < missed_ms / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::script::World;

    #[test]
    fn a_primary_is_missed_after_half_of_its_lease_and_until_the_lease_is_over() {
        let mut world = World::herd(&["a", "b", "c"]);
        let missed = |world: &World| world.view().missed().map(|(name, ms)| (name.to_string(), ms));
        world.hear_line("time: +999");
        assert_eq!(missed(&world), None);
        world.hear_line("time: +1");
        assert_eq!(missed(&world), Some(("a".to_owned(), 1_000)));
        world.hear_line("hear: a");
        assert_eq!(missed(&world), None);
        world.hear_line("time: +3000");
        assert_eq!(missed(&world), None, "nobody's lead renews a lease that is over");
    }

    #[test]
    fn a_dead_primarys_last_word_is_as_old_everywhere() {
        assert!(!hears(1_000, 1_000));
        assert!(!hears(980, 1_020), "it came a little later there");
        assert!(
            hears(250, 1_000),
            "one interval of reports, and a heartbeat until it was read"
        );
    }
}
