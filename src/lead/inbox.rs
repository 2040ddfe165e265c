//! Takes what other daemons send beside the log: stores reports, and answers them where this node leads.

use super::desk::Desk;
use super::membership;
use super::orders::Orders;
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{
    Answer, Bearing, Epoch, MemberName, Moment, Order, PeerMessage, PeerReply, Report, Settings, State,
    Tenure,
};
use matriarch_raft::{Group, Inbox, Peer};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// What a primary said of its gate, in a report that it sent to this node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The primary.
    pub member: MemberName,
    /// The epoch in which clients may be sent there.
    pub epoch: Option<Epoch>,
    /// When it was heard.
    pub at: Moment,
}

/// The peers' door of this node.
pub struct Mailroom {
    desk: Arc<Desk>,
    state: watch::Receiver<Arc<State>>,
    settings: watch::Receiver<Arc<Settings>>,
    group: OnceLock<(Group, Orders)>,
    poke: watch::Sender<u64>,
    gate: watch::Sender<Option<Gate>>,
}

impl Mailroom {
    /// `poke` is raised when the leader wants a fresh report at once.
    pub fn new(
        desk: Arc<Desk>,
        state: watch::Receiver<Arc<State>>,
        settings: watch::Receiver<Arc<Settings>>,
        poke: watch::Sender<u64>,
    ) -> Self {
        Self {
            desk,
            state,
            settings,
            group: OnceLock::new(),
            poke,
            gate: watch::Sender::default(),
        }
    }

    /// The primary's newest word on its gate; news only when it has changed.
    pub fn gate(&self) -> watch::Receiver<Option<Gate>> {
        self.gate.subscribe()
    }

    /// Whether the primary says something else of its gate than before.
    fn note_gate(&self, report: &Report, state: &State, now: Moment) -> bool {
        if state
            .primacy
            .last()
            .is_none_or(|(holder, _)| holder != report.member())
        {
            return false;
        }
        let said = Gate {
            member: report.member().clone(),
            epoch: report.gate(),
            at: now,
        };
        self.gate.send_if_modified(|known| {
            let what = |gate: &Option<Gate>| gate.as_ref().map(|gate| (gate.member.clone(), gate.epoch));
            let said = Some(said);
            let news = what(known) != what(&said);
            *known = said;
            news
        })
    }

    /// The group exists only after its inbox; until then nothing is answered.
    pub fn open(&self, group: Group, orders: Orders) {
        let _ = self.group.set((group, orders));
    }

    async fn obey(&self, order: &Order) -> PeerReply {
        let done = match self.group.get() {
            Some((_, orders)) => orders.obey(order).await,
            None => None,
        };
        done.map_or(PeerReply::NotLeader, PeerReply::Done)
    }

    /// Stores a report, which has been here since `at`, and answers it. The lease is confirmed by a quorum *after* the report
    /// was read.
    pub async fn receive(&self, report: Report, at: Moment) -> PeerReply {
        let state = self.state.borrow().clone();
        let settings = self.settings.borrow().clone();
        let asks = match report.tenure {
            Tenure::Holding { epoch } => Some(epoch),
            _ => None,
        };
        let could_bear = report.bearing != Bearing::No;
        let (sent_at, member) = (report.sent_at, report.member().clone());
        // One that lay here may be older than one that was brought at once.
        let opens = !self.desk.knows_later(&report) && self.note_gate(&report, &state, at);
        let duplicate_of = self.desk.hear(report, &state, &settings, at);
        let Some((group, _)) = self.group.get() else {
            return PeerReply::NotLeader;
        };
        if group.status().borrow().lead.is_none() {
            return PeerReply::NotLeader;
        }
        let (mut grant, mut bears_ms) = (None, None);
        if duplicate_of.is_none() && (asks.is_some() || could_bear) {
            // Clients wait for the gate and for a first lease. The next one is asked for long before the last one ends: it
            // waits for the heartbeat that is sent anyway, begun after the report arrived as any other round.
            let waits = asks.is_some_and(|epoch| !opens && self.desk.lasts(epoch, &state, clock::now()));
            let confirmed = match waits {
                true => group.confirm_by_heartbeat().await,
                false => group.confirm().await,
            };
            if confirmed.is_err() {
                return PeerReply::NotLeader;
            }
            let state = self.state.borrow().clone();
            let now = clock::now();
            grant = asks.and_then(|epoch| self.desk.grant(&member, epoch, &state, now));
            if could_bear {
                bears_ms = self.desk.grant_address(&member, &state, now);
            }
        }
        let revision = self.state.borrow().revision;
        let digest = self.desk.digest(clock::now());
        PeerReply::Answer(Answer {
            sent_at,
            revision,
            grant,
            duplicate_of,
            standing: self.desk.standing(),
            digest,
            reign: self.desk.reign(&self.state.borrow(), clock::now()),
            bears_ms,
        })
    }
}

impl Inbox for Mailroom {
    fn admits(&self, peer: &Peer) -> Result<(), String> {
        let in_raft = |id: u64| {
            let members = self.group.get().map(|(group, _)| group.members());
            members.is_some_and(|members| members.iter().any(|member| member.id == id))
        };
        membership::refusal(&self.state.borrow(), &peer.name, peer.id, in_raft).map_or(Ok(()), Err)
    }

    fn handle(
        &self,
        from: Peer,
        message: Vec<u8>,
        lain: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        Box::pin(async move {
            let reply = match envelope::open(Kind::Message, &message) {
                // The sender speaks for itself only: the name was proven when the connection was made.
                Ok(PeerMessage::Report(report)) if report.member().as_str() == from.name => {
                    // A member that dies is silent from its last report on, not from the reading of it.
                    let lain_ms = u64::try_from(lain.as_millis()).unwrap_or(u64::MAX);
                    let at = Moment(clock::now().0.saturating_sub(lain_ms));
                    self.receive(*report, at).await
                }
                Ok(PeerMessage::Report(report)) => {
                    tracing::warn!(peer = %from.name, "refused a report in the name of {}", report.member());
                    PeerReply::NotLeader
                }
                Ok(PeerMessage::Poke) => {
                    self.poke.send_modify(|count| *count = count.wrapping_add(1));
                    PeerReply::Heard
                }
                Ok(PeerMessage::Order(order)) => self.obey(&order).await,
                Ok(PeerMessage::HeardOf(member)) => {
                    PeerReply::HeardOf(self.desk.silence_ms(&member, clock::now()))
                }
                Err(why) => {
                    tracing::warn!(peer = %from.name, "refused a message: {why}");
                    PeerReply::NotLeader
                }
            };
            envelope::seal(Kind::Reply, &reply)
        })
    }
}
