//! A leader that does not hear the primary asks who does, and Raft's lead goes to that one.
//!
//! Two of three nodes may be cut from each other while both reach the third: one bad cable, one rule too many in a
//! firewall. If the two are the leader and the primary, no lease is renewed, and primacy would move although the third
//! node hears everybody. Raft does not help: its leader has its majority.
//!
//! ```text
//! leader -- HeardOf(primary)? --> voters     every 100 ms, from the first report on that is late here
//!        <-- 120 ms old --
//! ```
//!
//! A voter hears it if its newest report is fresh whenever it is asked, for longer than a report is fresh: so others came
//! there meanwhile, and none here. What a primary said last before it died grows old there, too; what a restarted daemon
//! says first is here as well before that time is over. And the lead goes there once half of the time is over for which
//! the primary still serves, not for a lost packet: a new leader counts every wait from its own election.

use crate::clock;
use crate::cluster::command::HEARSAY_LEVEL;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{MemberName, Moment, PeerMessage, PeerReply, State};
use crate::decide::view::Missed;
use matriarch_raft::{Group, Status};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two rounds of asking.
const ASK_EVERY_MS: u64 = 100;
/// An answer that takes longer is of no use any more.
const DEADLINE: Duration = Duration::from_millis(300);

/// Who was asked, and what they said, since the holder is missed. The asking holds up nothing else of the leader's.
#[derive(Default)]
pub(super) struct Hearsay {
    asked_at: Moment,
    asked: JoinSet<Word>,
    /// Who has said nothing else than that it hears the holder: since when, and when last.
    hear: BTreeMap<u64, (Moment, Moment)>,
}

/// A voter's answer.
struct Word {
    voter: u64,
    at: Moment,
    /// How old its newest report of the holder was; `None` without one, or without an answer.
    age_ms: Option<u64>,
}

impl Hearsay {
    /// Takes in what was said, asks anew when it is time, and names the voter that should lead.
    pub(super) fn listen(
        &mut self,
        group: &Group,
        state: &State,
        missed: &Missed,
        now: Moment,
    ) -> Option<u64> {
        while let Some(Ok(word)) = self.asked.try_join_next() {
            self.note(&word, missed);
        }
        if self.asked.is_empty() && now.since(self.asked_at) >= ASK_EVERY_MS {
            self.asked_at = now;
            let voters = ears(&group.status().borrow(), state, &missed.holder);
            self.hear.retain(|voter, _| voters.contains(voter));
            for voter in voters {
                self.asked.spawn(ask(group.clone(), voter, missed.holder.clone()));
            }
        }
        self.heir(missed)
    }

    /// The holder is heard again, or this node does not lead any more.
    pub(super) fn forget(&mut self) {
        if self.asked_at != Moment(0) {
            *self = Self::default();
        }
    }

    fn note(&mut self, word: &Word, missed: &Missed) {
        match word.age_ms {
            Some(age_ms) if age_ms <= missed.fresh_ms => {
                self.hear.entry(word.voter).or_insert((word.at, word.at)).1 = word.at;
            }
            _ => drop(self.hear.remove(&word.voter)),
        }
    }

    fn heir(&self, missed: &Missed) -> Option<u64> {
        let mut heirs = self.hear.iter().filter(|_| missed.is_long);
        heirs
            .find(|(_, (first, last))| last.since(*first) > missed.fresh_ms)
            .map(|(voter, _)| *voter)
    }
}

/// The voters that may be asked and could lead.
fn ears(status: &Status, state: &State, holder: &MemberName) -> Vec<u64> {
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

async fn ask(group: Group, voter: u64, holder: MemberName) -> Word {
    let message = envelope::seal(Kind::Message, &PeerMessage::HeardOf(holder));
    let answer = group.ask(voter, message, DEADLINE).await;
    let reply = answer.ok().map(|bytes| envelope::open(Kind::Reply, &bytes));
    let age_ms = match reply {
        Some(Ok(PeerReply::HeardOf(age_ms))) => age_ms,
        _ => None,
    };
    Word {
        voter,
        at: clock::now(),
        age_ms,
    }
}

#[cfg(test)]
#[path = "hearsay_test.rs"]
mod tests;
