//! The leader's loop: judge whenever something was heard, propose what the verdict says, keep Raft's lead off the primary.

use super::desk::{Agreed, Desk, Judgement};
use super::hearsay::Hearsay;
use super::said::Said;
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{Command, MemberName, Moment, Outcome, PeerMessage, Settings, State, Vote};
use crate::decide::lease;
use crate::decide::rules::Verdict;
use matriarch_raft::Group;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the view is judged although nothing was heard: silence is news too.
const TICK: Duration = Duration::from_millis(50);
/// The same while nothing is wrong and nobody is late: with every other heartbeat, which is at most half a period late.
const CALM: Duration = Duration::from_millis(100);
/// What refused a proposal has been applied here by then.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);
/// The same while another node leads: only a change of leadership is awaited, and that raises the alarm itself.
const REST: Duration = Duration::from_millis(200);
/// A poke that takes longer is of no use any more.
const POKE_DEADLINE: Duration = Duration::from_millis(300);
/// Every poke makes every node ask its PostgreSQL, so there is a pause between two.
const POKE_EVERY_MS: u64 = 15;
/// The same while the primary is silent, so that an answer of its PostgreSQL does not grow old.
const WORRY_EVERY_MS: u64 = 100;
/// How long a leader on the primary's node waits between attempts to hand over.
const HAND_OVER_EVERY_MS: u64 = 5_000;

/// Runs until the group is closed. Does nothing while another node leads.
pub async fn run(
    me: MemberName,
    group: Group,
    desk: Arc<Desk>,
    state: watch::Receiver<Arc<State>>,
    settings: watch::Receiver<Arc<Settings>>,
) {
    let status = group.status();
    let mut said = Said::default();
    let mut handed_over = Moment(0);
    let mut poked = Moment(0);
    let mut stuck_since: Option<Moment> = None;
    let mut turn = 0_usize;
    let mut hearsay = Hearsay::default();
    let mut next = Some(TICK);
    // While anything may be wrong nobody's report lies unread.
    let mut alert = None;
    loop {
        let leads = status.borrow().lead.is_some();
        let tick = async {
            match next {
                Some(next) if leads => tokio::time::sleep(next).await,
                _ if leads => group.beat(CALM).await,
                _ => group.beat(REST).await,
            }
        };
        tokio::select! {
            () = desk.news() => {}
            () = tick => {}
        }
        let vote = status.borrow().lead.map(|lead| Vote {
            term: lead.term,
            node: lead.node,
        });
        desk.note_lead(vote, clock::now());
        let now = state.borrow().clone();
        let rules = settings.borrow().clone();
        let voters = status.borrow().voters.len();
        let agreed = Agreed {
            state: &now,
            settings: &rules,
            voters,
        };
        // The first look at anything but calm is only a reason to look again.
        let acts = alert.is_some();
        let judgement = desk.judge(&agreed, clock::now(), clock::wall_ms(), acts);
        // Not with a heartbeat: a silence that begins to mean something is judged at once.
        next = match &judgement {
            Some(judgement) if judgement.calm => None,
            Some(judgement) => Some(
                judgement
                    .changes_in_ms
                    .map_or(TICK, Duration::from_millis)
                    .min(TICK),
            ),
            None => Some(TICK),
        };
        let Some(judgement) = judgement else {
            alert = None;
            hearsay.forget();
            continue;
        };
        if judgement.calm {
            alert = None;
        } else if alert.is_none() {
            // What lies here already is read first: this node may have stood still, and not the one that seems silent.
            alert = Some(group.hurry());
            desk.wake();
            tokio::task::yield_now().await;
            continue;
        }
        say(&judgement, &mut said);
        let pause_ms = match judgement.wants_news {
            true => POKE_EVERY_MS,
            false => WORRY_EVERY_MS,
        };
        let asks = judgement.wants_news || judgement.worried;
        if asks && clock::now().since(poked) >= pause_ms {
            poked = clock::now();
            poke(&group);
        }
        if judgement.missed.is_none() {
            hearsay.forget();
        }
        match judgement.verdict {
            Verdict::Propose(act, reason) => {
                let command = Command {
                    expected: Some(now.revision),
                    vote: judgement.vote,
                    rule: judgement.rule.to_owned(),
                    reason,
                    at_ms: clock::wall_ms(),
                    act,
                };
                propose(&group, &desk, &now, &command).await;
                desk.wake();
            }
            Verdict::Stand(_) => {
                let at = clock::now();
                if let Some(missed) = &judgement.missed
                    && let Some(to) = hearsay.listen(&group, &now, missed, at)
                {
                    hearsay.forget();
                    give_to_who_hears(&missed.holder, to, &group).await;
                    continue;
                }
                if !is_stuck(judgement.rule) {
                    stuck_since = None;
                } else if at.since(*stuck_since.get_or_insert(at)) > patience_ms(&now) {
                    stuck_since = None;
                    let_another_try(&group, turn).await;
                    turn = turn.wrapping_add(1);
                }
                // Not while it rises: its first lease would wait for the next leader.
                let settled = judgement.rule == "healthy" && now.is_confirmed();
                if settled && at.since(handed_over) > HAND_OVER_EVERY_MS {
                    handed_over = step_aside(&me, &group, &now, at, handed_over).await;
                }
            }
        }
    }
}

/// Wakes the desk when leadership comes or goes.
pub async fn watch_lead(desk: Arc<Desk>, mut status: watch::Receiver<matriarch_raft::Status>) {
    let mut lead = None;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().lead;
        if now != lead {
            lead = now;
            desk.wake();
        }
    }
}

/// Keeps the desk's memory of what was agreed since when, on every node, until the state's sender is gone.
pub async fn watch_state(desk: Arc<Desk>, mut state: watch::Receiver<Arc<State>>) {
    loop {
        let now = state.borrow_and_update().clone();
        desk.note_state(&now, clock::now());
        if state.changed().await.is_err() {
            return;
        }
    }
}

fn say(judgement: &Judgement, said: &mut Said) {
    let line = match &judgement.verdict {
        Verdict::Propose(_, reason) => {
            tracing::info!(rule = judgement.rule, "{reason}");
            return;
        }
        // The countdown of a lease changes with every look; its rule does not.
        Verdict::Stand(reason) if judgement.rule != "lease-running" => {
            format!("{}: {reason}", judgement.rule)
        }
        Verdict::Stand(_) => judgement.rule.to_owned(),
    };
    if said.is_news(&line, clock::now()) {
        tracing::info!("standing: {line}");
    }
}

async fn propose(group: &Group, desk: &Desk, state: &State, command: &Command) {
    match group.propose(envelope::seal(Kind::Command, command)).await {
        Ok(bytes) => match envelope::open::<Outcome>(Kind::Outcome, &bytes) {
            Ok(Outcome::Applied(_)) => {}
            Ok(outcome) => {
                tracing::info!(rule = %command.rule, "not carried out: {outcome:?}");
                desk.release(state.epoch);
                // The state that refused it has been applied here by now; look at it, do not spin.
                tokio::time::sleep(AFTER_REFUSAL).await;
            }
            Err(why) => {
                tracing::error!(rule = %command.rule, "the answer to a proposal is unreadable: {why}")
            }
        },
        // It may still be committed: the lease stays withheld until the epoch has changed or another reign begins.
        Err(why) => tracing::warn!(rule = %command.rule, "proposal: {why}"),
    }
}

/// Asks every other member for a fresh report; nobody waits for the answers.
fn poke(group: &Group) {
    let me = group.id();
    let peers: Vec<u64> = group
        .members()
        .iter()
        .map(|peer| peer.id)
        .filter(|id| *id != me)
        .collect();
    for peer in peers {
        let group = group.clone();
        tokio::spawn(async move {
            let _ = group
                .ask(
                    peer,
                    envelope::seal(Kind::Message, &PeerMessage::Poke),
                    POKE_DEADLINE,
                )
                .await;
        });
    }
}

/// Whether the leader waits for words that it may never hear while another voter does: a permanent cut between two of
/// three nodes must not keep the third from being asked.
pub fn is_stuck(rule: &str) -> bool {
    matches!(
        rule,
        "unprovable" | "proof-wanting" | "nobody" | "rising" | "resuming" | "deadline-unknown" | "unaware"
    )
}

/// How long a leader that is stuck waits before another one tries. An operator's word that a loss is accepted is obeyed
/// once every lease is over, and each new leader waits for that anew: whoever leads has the time to get there.
pub fn patience_ms(state: &State) -> u64 {
    match &state.handover {
        Some(_) => HAND_OVER_EVERY_MS + lease::move_at(Moment(0), None, state.wait_ttl_ms).0,
        None => HAND_OVER_EVERY_MS,
    }
}

/// `turn` counts the tries: in this order everybody has one soon, also where one of them never hears of it.
async fn let_another_try(group: &Group, turn: usize) {
    let status = group.status().borrow().clone();
    let level: Vec<u64> = status
        .peers_level
        .iter()
        .filter(|(id, level)| *level && *id != status.id)
        .map(|(id, _)| *id)
        .collect();
    let place = turn.checked_rem(level.len()).unwrap_or(0);
    let Some(to) = level.get(place) else { return };
    if group.hand_over(*to).await.is_ok() {
        tracing::info!(
            to,
            "handed Raft's lead to another node, which may hear what this one does not"
        );
    }
}

async fn give_to_who_hears(holder: &MemberName, to: u64, group: &Group) {
    if group.hand_over(to).await.is_ok() {
        tracing::info!(to, "handed Raft's lead to another node, which hears {holder}");
    }
}

/// A node that dies as Raft leader and primary costs an election more, so the two are kept apart.
async fn step_aside(me: &MemberName, group: &Group, state: &State, now: Moment, last: Moment) -> Moment {
    if state.primacy.held().is_none_or(|(holder, _)| holder != me) {
        return last;
    }
    let status = group.status().borrow().clone();
    let level = status
        .peers_level
        .iter()
        .find(|(id, level)| *level && *id != status.id);
    let Some((to, _)) = level else { return last };
    if group.hand_over(*to).await.is_ok() {
        tracing::info!(
            to,
            "handed Raft's lead to another node, because this one has the primary"
        );
    }
    now
}
