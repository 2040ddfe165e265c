//! Sends this node's report to every voter, at every interval and at once when something changed or another one leads, and
//! takes in the answers.

use super::bearer::Bearer;
use super::tenancy::Tenancy;
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{
    Answer, LeaseFacts, Moment, PeerMessage, PeerReply, Report, Revision, Seen, Settings, Standing, Tenure,
};
use crate::lead::{Gate, Mailroom};
use matriarch_raft::Group;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Longest until the list of voters is looked at, when nobody said that it changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A voter that does not answer within this is asked again with a newer report.
const ASK_DEADLINE: Duration = Duration::from_millis(500);
/// Most reports to one voter that wait for their answers at the same time.
const UNANSWERED: usize = 3;

/// What the newest leader's answer said.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// When it was asked for: the answer may have lain here, and what it says of others is at least as new as this.
    pub at: Moment,
    /// Wall time of its arrival, seconds since 1970.
    pub at_s: u64,
    /// The leader's newest verdict.
    pub standing: Option<Standing>,
    /// The revision the leader had applied.
    pub revision: Revision,
    /// Everybody's newest report.
    pub digest: Arc<Vec<Seen>>,
    /// Another live node carries this one's name.
    pub duplicate_of: Option<String>,
    /// The primary's epoch, and until when nobody else is made primary without its own word or a fence.
    pub reign: LeaseFacts,
}

impl Word {
    /// Whether the node loop should hear of `next` at once.
    fn differs(&self, next: &Self) -> bool {
        let others = || self.digest.iter().zip(next.digest.iter());
        self.revision != next.revision
            || self.duplicate_of != next.duplicate_of
            || self.reign.epoch != next.reign.epoch
            || self.digest.len() != next.digest.len()
            || others().any(|(old, new)| old.report.differs(&new.report))
    }

    /// Takes the place of an older one; whether the node loop should hear of it at once. An answer that lay here may have been
    /// overtaken by one that was read at once.
    fn take_in(&mut self, next: Self) -> bool {
        if next.at < self.at {
            return false;
        }
        let is_news = self.differs(&next);
        *self = next;
        is_news
    }
}

/// Everything a reporting task needs.
#[derive(Clone)]
pub struct Reporter {
    /// The group whose voters are reported to.
    pub group: Group,
    /// This node's own inbox, for when it leads itself.
    pub mailroom: Arc<Mailroom>,
    /// The newest report; its `sent_at` is filled in when it is sent.
    pub report: watch::Receiver<Arc<Report>>,
    /// Raised when the report must go out at once.
    pub urgent: watch::Receiver<u64>,
    /// A primary's news on its gate: the leader is asked at once how long it reigns, because clients wait for that.
    pub gate: watch::Receiver<Option<Gate>>,
    /// Dynamic configuration, for the interval.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where grants go.
    pub tenancy: Arc<Tenancy>,
    /// The permission to carry the proxies' address.
    pub bearer: Arc<Bearer>,
    /// Where the rest of the answers goes.
    pub word: Arc<watch::Sender<Word>>,
}

impl Reporter {
    /// Runs until aborted: keeps one task for each voter.
    pub async fn run(self) {
        let mut tasks: BTreeMap<u64, AbortHandle> = BTreeMap::new();
        let mut status = self.group.status();
        loop {
            let (me, voters) = {
                let status = status.borrow_and_update();
                (
                    status.id,
                    status.voters.iter().map(|peer| peer.id).collect::<Vec<_>>(),
                )
            };
            tasks.retain(|id, task| {
                let stays = voters.contains(id);
                if !stays {
                    task.abort();
                }
                stays
            });
            for id in voters {
                tasks
                    .entry(id)
                    .or_insert_with(|| tokio::spawn(self.clone().send_to(id, id == me)).abort_handle());
            }
            tokio::select! {
                _ = status.changed() => {}
                () = self.group.beat(LOOK_EVERY) => {}
            }
        }
    }

    async fn send_to(mut self, id: u64, own: bool) {
        let mut asked = JoinSet::new();
        let mut is_news = true;
        let mut status = self.group.status();
        let leader = |status: &matriarch_raft::Status| status.leader.as_ref().map(|peer| peer.id);
        let mut led_by = leader(&status.borrow_and_update());
        loop {
            let now = clock::now();
            // All voters are told in one go.
            let interval = Duration::from_millis(self.settings.borrow().report_interval_ms);
            // What lies for a heartbeat must not lie for an interval, and an answer may lie for four.
            let heartbeat = self.group.heartbeat();
            let waits = !is_news && interval >= 2 * heartbeat && ASK_DEADLINE >= 5 * heartbeat;
            let next = self.group.beat(interval);
            tokio::pin!(next);
            let full = asked.len() >= UNANSWERED;
            if self.tenancy.may_report(now) && !full {
                asked.spawn(self.clone().ask(id, own, now, waits));
            }
            // An answer may wait for a heartbeat or for a node that is gone; the next report does not wait for the answer.
            is_news = loop {
                tokio::select! {
                    () = &mut next => break full && is_news,
                    changed = self.urgent.changed() => match changed {
                        Ok(()) => break true,
                        Err(_) => return,
                    },
                    Ok(()) = self.gate.changed() => break true,
                    Ok(()) = status.changed() => {
                        let now = leader(&status.borrow_and_update());
                        if std::mem::replace(&mut led_by, now) != now && now.is_some() {
                            break true;
                        }
                    }
                    // What had no room is owed: it may have been urgent.
                    Some(_) = asked.join_next() => if full { break is_news },
                }
            };
        }
    }

    /// `waits`: it is no news, and may lie until a heartbeat; not so where a primary needs its next lease.
    async fn ask(self, id: u64, own: bool, now: Moment, waits: bool) {
        let mut report = Report::clone(&self.report.borrow());
        report.sent_at = now;
        let position = report.postgres.as_ref().and_then(|postgres| postgres.location);
        self.tenancy.note_position(position);
        if own {
            let reply = self.mailroom.receive(report, now).await;
            self.take(reply);
        } else {
            let needs_lease = matches!(report.tenure, Tenure::Holding { .. }) && !self.tenancy.lasts(now);
            let message = envelope::seal(Kind::Message, &PeerMessage::Report(Box::new(report)));
            // Only the leader's answer says anything.
            let leader = self.group.status().borrow().leader.as_ref().map(|peer| peer.id);
            let another_leads = leader.is_some_and(|leader| leader != id);
            let answer = if !waits || needs_lease {
                self.group.ask(id, message, ASK_DEADLINE).await
            } else if another_leads {
                // Whether it arrives shows in nothing here.
                let _ = self.group.tell(id, message, ASK_DEADLINE).await;
                return;
            } else {
                self.group.ask_at_leisure(id, message, ASK_DEADLINE).await
            };
            if let Ok(bytes) = answer
                && let Ok(reply) = envelope::open::<PeerReply>(Kind::Reply, &bytes)
            {
                self.take(reply);
            }
        }
    }

    fn take(&self, reply: PeerReply) {
        let PeerReply::Answer(answer) = reply else { return };
        let Answer {
            sent_at,
            grant,
            revision,
            duplicate_of,
            standing,
            digest,
            reign,
            bears_ms,
        } = answer;
        if let Some(grant) = grant {
            self.tenancy.accept(grant, sent_at);
        }
        if let Some(bears_ms) = bears_ms {
            self.bearer.accept(bears_ms, sent_at);
        }
        let reign = reign.map(|(epoch, left_ms)| LeaseFacts {
            epoch,
            until: sent_at.plus(left_ms),
        });
        let new = Word {
            reign: reign.unwrap_or_default(),
            at: sent_at,
            at_s: clock::wall_ms() / 1_000,
            standing: Some(standing),
            revision,
            digest: Arc::new(digest),
            duplicate_of,
        };
        // Nobody is woken by what is only newer: the loop looks at it with its next pass.
        self.word.send_if_modified(|word| word.take_in(new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_overtaken_says_nothing_any_more() {
        let word = |at, revision| Word {
            at: Moment(at),
            revision: Revision(revision),
            ..Word::default()
        };
        let mut known = word(10, 4);
        assert!(known.take_in(word(20, 5)));
        assert!(!known.take_in(word(15, 4)), "it lay for a heartbeat");
        assert_eq!((known.at, known.revision), (Moment(20), Revision(5)));
        assert!(!known.take_in(word(30, 5)), "only newer");
        assert_eq!(known.at, Moment(30));
    }
}
