//! Operators' orders: forwarded once to the node that leads Raft, checked there against what is agreed, proposed.
//!
//! ```text
//!  door -> ask --- this node leads -----------------> obey -> confirm -> check(state) -> propose(expected revision)
//!            \--- another leads: PeerMessage::Order -> obey            /\------ again: something else was agreed
//! ```
//!
//! Invariants: an order is forwarded at most once, and tried again only where it certainly changed nothing. It is judged
//! on a state that a quorum confirmed after it arrived, so it sees every order that was answered before. Two orders
//! that change the same thing are serialised by the revision: the second one finds another ground than the one it was
//! judged on, and is answered 409; a change of something else is no conflict, it is judged again.

use super::configure::configure;
use super::desk::{Agreed, Desk};
use super::handover;
use super::membership::{self, Votes};
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{
    Act, Command, Done, Handover, Order, Outcome, PeerMessage, PeerReply, Revision, Settings, State, Vote,
};
use crate::decide::handover::PASSING_MS;
use crate::decide::rules;
use matriarch_raft::{AskError, Group};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a leader is looked for.
const FIND_LEADER_MS: u64 = 5_000;
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The leader needs one proposal, which has a deadline of 5 s, one confirmation, and may wait for a candidate before.
const FORWARD: Duration = Duration::from_secs(10);
/// What was changed reaches the node that was asked within a heartbeat.
const ARRIVES: Duration = Duration::from_secs(1);
/// So many changes of something else in a row while one order is judged are no accident.
const ATTEMPTS: usize = 5;

/// The way of an order; clones are the same way.
#[derive(Clone)]
pub struct Orders {
    pub(super) group: Group,
    pub(super) desk: Arc<Desk>,
    pub(super) state: watch::Receiver<Arc<State>>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
}

/// What an order comes to.
pub(super) enum Judged {
    /// It is answered without a change.
    Answer(Done),
    /// It cannot be done, and may be in a moment; where that lasts it is answered so.
    NotYet(Done),
    /// Propose this by this name for this reason; then it is answered so.
    Propose(Box<Act>, &'static str, String, Done),
}

impl Orders {
    /// `desk` is this node's, for what the members report.
    pub fn new(
        group: Group,
        desk: Arc<Desk>,
        state: watch::Receiver<Arc<State>>,
        settings: watch::Receiver<Arc<Settings>>,
    ) -> Self {
        Self {
            group,
            desk,
            state,
            settings,
        }
    }

    /// From this node's own door.
    pub async fn ask(&self, order: Order) -> Done {
        let before = self
            .state
            .borrow()
            .primacy
            .last()
            .map(|(holder, _)| holder.clone());
        let done = self.find_leader(&order).await;
        self.arrived(done.revision).await;
        match &order {
            // Recorded, and under way: what comes of it is agreed like everything else, whoever leads by then.
            Order::Handover(asked) if done.status == 202 && done.text.is_empty() => {
                self.outcome(asked, before, done.revision).await
            }
            _ => done,
        }
    }

    /// What this node knows to be agreed.
    pub fn agreed(&self) -> Revision {
        self.state.borrow().revision
    }

    /// The revision that holds every order that was answered before this call: what is read from there on is
    /// linearizable (Raft dissertation, section 6.4). `None`: no leader answers.
    pub async fn look(&self) -> Option<Revision> {
        let done = self.attempt(&Order::Look).await?;
        (done.status == 200).then_some(done.revision)
    }

    async fn find_leader(&self, order: &Order) -> Done {
        let until = clock::now().plus(FIND_LEADER_MS);
        loop {
            if let Some(done) = self.attempt(order).await {
                return done;
            }
            if clock::now() >= until {
                return Done::text(503, "no node leads the cluster, nothing was changed");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// `None`: nobody did anything.
    async fn attempt(&self, order: &Order) -> Option<Done> {
        if let Some(done) = self.obey(order).await {
            return Some(done);
        }
        let me = self.group.id();
        let leader = self.group.status().borrow().leader.as_ref().map(|peer| peer.id);
        let leader = leader.filter(|id| *id != me)?;
        let message = envelope::seal(Kind::Message, &PeerMessage::Order(Box::new(order.clone())));
        match self.group.ask(leader, message, FORWARD).await {
            Ok(bytes) => match envelope::open::<PeerReply>(Kind::Reply, &bytes) {
                Ok(PeerReply::Done(done)) => Some(done),
                Ok(_) => None,
                Err(why) => Some(unknown(&why)),
            },
            // It was killed, say: another one leads soon.
            Err(AskError::NotSent { .. }) => None,
            Err(why) => Some(unknown(&why)),
        }
    }

    /// Carries out an order where this node leads; `None` where it does not, and nothing was done.
    pub(super) async fn obey(&self, order: &Order) -> Option<Done> {
        let mut ground: Option<Ground> = None;
        let until = clock::now().plus(PASSING_MS);
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            let lead = self.group.status().borrow().lead?;
            self.group.confirm().await.ok()?;
            let state = self.state.borrow().clone();
            let settings = self.settings.borrow().clone();
            let found = Ground::of(order, &state);
            if ground.get_or_insert_with(|| found.clone()) != &found {
                return Some(Done::text(409, "something else was changed at the same time"));
            }
            let (act, rule, reason, done) = match self.judge(order, &state, &settings) {
                Judged::NotYet(_) if clock::now() < until => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                }
                Judged::Answer(done) | Judged::NotYet(done) => return Some(done),
                Judged::Propose(act, rule, reason, done) => (act, rule, reason, done),
            };
            if let Some(why) = rules::too_old(&state, &act) {
                return Some(Done::text(503, why));
            }
            let command = Command {
                expected: Some(state.revision),
                vote: Vote {
                    term: lead.term,
                    node: lead.node,
                },
                rule: rule.to_owned(),
                reason,
                at_ms: clock::wall_ms(),
                act: *act,
            };
            match self.propose(&command).await {
                Ok(Outcome::Applied(revision)) => {
                    self.desk.wake();
                    return Some(done.at(revision));
                }
                Ok(Outcome::Refused(why)) => return Some(Done::text(412, why)),
                Ok(Outcome::Stale(_)) => attempts += 1,
                Err(done) => return Some(done),
            }
        }
        Some(Done::text(409, "something else was changed at the same time"))
    }

    async fn propose(&self, command: &Command) -> Result<Outcome, Done> {
        let bytes = self
            .group
            .propose(envelope::seal(Kind::Command, command))
            .await
            .map_err(|why| unknown(&why))?;
        envelope::open(Kind::Outcome, &bytes).map_err(|why| unknown(&why))
    }

    /// Each kind of order in its own words: what it is checked for, in Patroni's order, and what it becomes.
    fn judge(&self, order: &Order, state: &State, settings: &Settings) -> Judged {
        let agreed = Agreed {
            state,
            settings,
            voters: self.group.status().borrow().voters.len(),
        };
        let (now, wall_ms) = (clock::now(), clock::wall_ms());
        let judged = match order {
            Order::Configure {
                config,
                whole,
                if_match,
            } => Some(configure(config, *whole, if_match.as_deref(), state)),
            Order::Handover(asked) => self
                .desk
                .look(&agreed, now, wall_ms, |view| handover::ask(view, asked)),
            Order::Remove { member, force } => {
                let votes = Votes::of(&self.group.status().borrow());
                Some(membership::remove(state, &votes, member, *force))
            }
            Order::Add { member } => Some(membership::add(state, member)),
            Order::CancelHandover => self.desk.look(&agreed, now, wall_ms, handover::cancel),
            Order::Look => Some(Judged::Answer(Done::text(200, "").at(state.revision))),
        };
        judged
            .unwrap_or_else(|| Judged::Answer(Done::text(503, "this node has only begun to lead, try again")))
    }

    /// Whoever asked finds its change on this node too.
    async fn arrived(&self, revision: Revision) {
        let mut state = self.state.clone();
        let there = state.wait_for(|state| state.revision >= revision);
        let _ = tokio::time::timeout(ARRIVES, there).await;
    }
}

fn unknown(why: &dyn std::fmt::Display) -> Done {
    Done::text(503, format!("it is unknown whether anything was changed: {why}"))
}

/// What two orders must not both change.
#[derive(Clone, PartialEq)]
enum Ground {
    Config(String),
    Handover(Option<Handover>),
    Members(Vec<String>),
    Nothing,
}

impl Ground {
    fn of(order: &Order, state: &State) -> Self {
        match order {
            Order::Configure { .. } => Self::Config(state.config.clone()),
            Order::Handover(_) | Order::CancelHandover => Self::Handover(state.handover.clone()),
            Order::Remove { .. } | Order::Add { .. } => {
                Self::Members(state.removed.keys().map(ToString::to_string).collect())
            }
            Order::Look => Self::Nothing,
        }
    }
}

#[cfg(test)]
#[path = "orders_test.rs"]
mod tests;
