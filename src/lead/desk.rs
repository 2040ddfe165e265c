//! What a node has heard from the members, and the one lock under which leases are granted and withheld.

use crate::cluster::{
    Act, Epoch, Grant, MemberInfo, MemberName, Moment, Report, Revision, Seen, Settings, Standing, State,
    Tenure, Vote,
};
use crate::decide::address::{self, Granted};
use crate::decide::candidate;
use crate::decide::lease;
use crate::decide::rules::{self, Verdict};
use crate::decide::view::{Heard, Missed, View, follows, streams};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How long a name stays with the address that used it last, at least; a lease that may still run keeps it longer.
const SAME_NAME_MS: u64 = 2_000;
/// A calm leader judges again within this, milliseconds.
const CALM_MS: u64 = 150;

/// The reports and the leader's memory.
#[derive(Default)]
pub struct Desk {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    heard: BTreeMap<MemberName, Heard>,
    lead: Option<(Vote, Moment)>,
    last_grant: Option<(Epoch, Moment)>,
    /// Of the proxies' address.
    bearer: Option<Granted>,
    known: Revision,
    held: (Epoch, Moment),
    ttl: (u64, Moment),
    sync: (u64, Moment),
    asked: (Revision, Moment),
    withheld: Option<Epoch>,
    standing: Standing,
}

impl Inner {
    /// Notes since when what is agreed has been known; false when something later is known already. Whoever grants
    /// or judges brings the state along and does this first, under the same lock: the task that notes every state
    /// may run later than they do, and a lease must not be granted by what was agreed before a move.
    fn learn(&mut self, state: &State, now: Moment) -> bool {
        if state.revision < self.known {
            return false;
        }
        self.known = state.revision;
        if self.held.0 != state.epoch {
            self.held = (state.epoch, now);
            self.withheld = None;
        }
        if self.sync.0 != state.sync.serial {
            self.sync = (state.sync.serial, now);
        }
        let asked = state.handover.as_ref().map_or(Revision(0), |asked| asked.asked);
        if self.asked.0 != asked {
            self.asked = (asked, now);
        }
        if self.ttl.0 != state.ttl_ms {
            self.ttl = (state.ttl_ms, now);
        }
        true
    }

    fn view<'a>(&'a self, agreed: &Agreed<'a>, now: Moment, wall_ms: u64) -> Option<(Vote, View<'a>)> {
        let (vote, lead_since) = self.lead?;
        let granted = self.last_grant.filter(|(epoch, _)| *epoch == agreed.state.epoch);
        let view = View {
            now,
            state: agreed.state,
            settings: agreed.settings,
            heard: &self.heard,
            lead_since,
            last_grant: granted.map(|(_, at)| at),
            held_since: self.held.1,
            ttl_since: self.ttl.1,
            sync_since: self.sync.1,
            asked_since: self.asked.1,
            wall_ms,
            voters: agreed.voters,
        };
        Some((vote, view))
    }

    /// Which standbys move, by the primary's word: they have what it had when it reported last, or more than they had
    /// then. One that is connected and stands still holds commits as surely as one that is gone.
    fn note_streams(&mut self, report: &Report, state: &State, now: Moment) {
        let holder = state
            .primacy
            .held()
            .filter(|(holder, _)| *holder == report.member());
        let Some((holder, epoch)) = holder else { return };
        let before = self
            .heard
            .get(holder)
            .and_then(|heard| heard.report.postgres.clone());
        let (Some(before), Some(present)) = (before, &report.postgres) else {
            return;
        };
        let moving = present.senders.iter().filter(|sender| {
            let earlier = before.senders.iter().find(|earlier| earlier.name == sender.name);
            let advanced = earlier.is_some_and(|earlier| sender.flushed > earlier.flushed);
            sender.streaming && (advanced || sender.flushed >= before.location)
        });
        for sender in moving {
            let found = self
                .heard
                .iter_mut()
                .find(|(name, _)| name.as_str().eq_ignore_ascii_case(&sender.name));
            if let Some((_, heard)) = found.filter(|(_, heard)| streams(&heard.report, epoch)) {
                heard.streamed_at = Moment(now.0.saturating_sub(present.said_ms));
            }
        }
    }
}

/// What a verdict is reached on, as this node has it.
#[derive(Clone, Copy)]
pub struct Agreed<'a> {
    /// The agreed state.
    pub state: &'a State,
    /// Its settings.
    pub settings: &'a Settings,
    /// How many voters the group has.
    pub voters: usize,
}

/// A verdict with what it was reached on.
pub struct Judgement {
    /// The rule that fired.
    pub rule: &'static str,
    /// What it said.
    pub verdict: Verdict,
    /// The reign it was reached in.
    pub vote: Vote,
    /// The holder's epoch is over and nothing is decided yet: the standbys' newest positions are wanted.
    pub wants_news: bool,
    /// The holder is silent: whether its PostgreSQL serves is wanted.
    pub worried: bool,
    /// The holder, if it is not heard here and may be elsewhere.
    pub missed: Option<Missed>,
    /// Nothing is wrong and nobody is late: what changes it will be heard of, or takes longer than 150 ms.
    pub calm: bool,
    /// Until time alone may change the verdict, milliseconds.
    pub changes_in_ms: Option<u64>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere aborts the process in a release build; the data behind the lock is plain.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when something was heard that may change a verdict.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Something outside changed (leadership, state): judge again.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Notes whether this node leads, and by which vote.
    pub fn note_lead(&self, vote: Option<Vote>, now: Moment) {
        let mut inner = self.lock();
        if inner.lead.map(|(vote, _)| vote) != vote {
            inner.lead = vote.map(|vote| (vote, now));
            inner.last_grant = None;
            inner.bearer = None;
            inner.withheld = None;
            for heard in inner.heard.values_mut() {
                heard.followed_at = heard.followed_at.max(now);
            }
            drop(inner);
            self.wake();
        }
    }

    /// Notes what was agreed, so that waits count from here.
    pub fn note_state(&self, state: &State, now: Moment) {
        let mut inner = self.lock();
        if !inner.learn(state, now) {
            return;
        }
        inner
            .heard
            .retain(|name, heard| state.members.contains_key(name) || now.since(heard.at) < 10_000);
        drop(inner);
        self.wake();
    }

    /// Stores a report that came at `now`. Answers the peer address of another live node of the same name, whose report it
    /// keeps.
    pub fn hear(
        &self,
        mut report: Report,
        state: &State,
        settings: &Settings,
        now: Moment,
    ) -> Option<String> {
        let mut inner = self.lock();
        let name = report.member().clone();
        let old = inner.heard.get(&name);
        let now = old.map_or(now, |old| now.max(old.at));
        if let Some(other) = old
            && is_another(&other.report.info, &report.info)
            && now < lease::move_at(other.at, None, state.wait_ttl_ms.max(SAME_NAME_MS))
        {
            return Some(other.report.info.raft_addr.clone());
        }
        if old.is_some_and(|old| is_later(&old.report, &report)) {
            return None;
        }
        let ended =
            |report: &Report| matches!(report.tenure, Tenure::Ended { epoch, .. } if epoch == state.epoch);
        if let Some(old) = old.filter(|old| ended(&old.report)) {
            stay_ended(&old.report.tenure, &mut report.tenure, state.epoch);
        }
        let first_said = old.filter(|old| ended(&old.report)).and_then(|old| old.ended_at);
        let ended_at = ended(&report).then(|| first_said.unwrap_or(now));
        let important = old.is_none_or(|old| old.report.differs(&report));
        let position = state
            .primacy
            .held()
            .and_then(|(holder, _)| inner.heard.get(holder))
            .and_then(|heard| heard.report.postgres.as_ref())
            .and_then(|postgres| postgres.location);
        let limit = settings.maximum_lag_on_failover;
        let followed_at = if follows(&report, state.epoch, position, limit) {
            now
        } else {
            old.map_or(now, |old| old.followed_at)
        };
        let streamed_at = old.map_or(Moment(0), |old| old.streamed_at);
        inner.note_streams(&report, state, now);
        inner.heard.insert(
            name,
            Heard {
                report,
                at: now,
                followed_at,
                streamed_at,
                ended_at,
            },
        );
        drop(inner);
        if important {
            self.wake();
        }
        None
    }

    /// Whether a report was overtaken by a later one of the same daemon.
    pub fn knows_later(&self, report: &Report) -> bool {
        let inner = self.lock();
        let old = inner.heard.get(report.member());
        old.is_some_and(|old| is_later(&old.report, report))
    }

    /// For how long this node has had no report from a member, milliseconds.
    pub fn silence_ms(&self, member: &MemberName, now: Moment) -> Option<u64> {
        let inner = self.lock();
        inner.heard.get(member).map(|heard| now.since(heard.at))
    }

    /// All newest reports with their ages.
    pub fn digest(&self, now: Moment) -> Vec<Seen> {
        let inner = self.lock();
        let seen = |heard: &Heard| Seen {
            report: heard.report.clone(),
            age_ms: now.since(heard.at),
        };
        inner.heard.values().map(seen).collect()
    }

    /// The newest verdict, for people.
    pub fn standing(&self) -> Standing {
        self.lock().standing.clone()
    }

    /// Grants a lease, if this node leads, the epoch is the agreed one and no verdict has moved on from it.
    /// To be called only after a quorum has confirmed the leadership since the report arrived.
    pub fn grant(&self, asker: &MemberName, epoch: Epoch, state: &State, now: Moment) -> Option<Grant> {
        let mut inner = self.lock();
        let (holder, held) = state.primacy.held()?;
        if !inner.learn(state, now) {
            return None;
        }
        let refused =
            inner.lead.is_none() || holder != asker || held != epoch || inner.withheld == Some(epoch);
        let ended = inner
            .heard
            .get(asker)
            .is_some_and(|heard| heard.ended_at.is_some());
        if refused || ended {
            return None;
        }
        inner.last_grant = Some((epoch, now));
        Some(Grant {
            epoch,
            ttl_ms: state.ttl_ms,
        })
    }

    /// Whether more than half of the epoch's lease is left, so that its renewal can wait for a heartbeat.
    pub fn lasts(&self, epoch: Epoch, state: &State, now: Moment) -> bool {
        let granted = self.lock().last_grant;
        granted.is_some_and(|(of, at)| of == epoch && now.since(at) < state.ttl_ms / 2)
    }

    /// Lets this member carry the proxies' address for so many milliseconds, if nobody else does and it is the one to do it.
    /// To be called only after a quorum has confirmed the leadership since the report arrived.
    pub fn grant_address(&self, asker: &MemberName, state: &State, now: Moment) -> Option<u64> {
        let mut inner = self.lock();
        let (_, lead_since) = inner.lead?;
        let granted = inner.bearer.as_ref();
        let chosen = address::bearer(&inner.heard, granted, lead_since, state.wait_ttl_ms, now)?;
        if chosen != asker {
            return None;
        }
        inner.bearer = Some(Granted {
            to: asker.clone(),
            at: now,
        });
        Some(state.ttl_ms)
    }

    /// The agreed primary's epoch, and for how many milliseconds from now on nobody else can be made primary without
    /// its own word or a fence: what is left of the lease that this node granted last.
    pub fn reign(&self, state: &State, now: Moment) -> Option<(Epoch, u64)> {
        let inner = self.lock();
        let (_, held) = state.primacy.held()?;
        let (epoch, at) = inner.last_grant.filter(|(epoch, _)| *epoch == held)?;
        inner.lead?;
        Some((epoch, lease::deadline(at, state.ttl_ms).since(now)))
    }

    /// Judges; where the verdict is to be carried out, the lease of an epoch that it moves on from is withheld.
    pub fn judge(&self, agreed: &Agreed<'_>, now: Moment, wall_ms: u64, acts: bool) -> Option<Judgement> {
        let mut inner = self.lock();
        let state = agreed.state;
        if !inner.learn(state, now) {
            return None;
        }
        let (vote, view) = inner.view(agreed, now, wall_ms)?;
        let (rule, verdict) = rules::plan(&view);
        let wants_news = view
            .ended()
            .is_some_and(|(heard, ..)| heard.ended_at == Some(heard.at));
        let reason = match &verdict {
            Verdict::Stand(reason) | Verdict::Propose(_, reason) => reason.clone(),
        };
        let judged = |name: &MemberName| (name.clone(), candidate::why_not(&view, name));
        let candidates = state.members.keys().map(judged).collect();
        let changes_in_ms = view.changes_in_ms();
        let worried = view.is_worried();
        let missed = view.missed();
        let patience = view.patience_ms();
        let left = |heard: &Heard| patience.saturating_sub(now.since(heard.at));
        let calm = rule == "healthy" && inner.heard.values().all(|heard| left(heard) > CALM_MS);
        let standing = Standing {
            rule: rule.to_owned(),
            reason,
            candidates,
        };
        if let Verdict::Propose(act, _) = &verdict
            && acts
            && moves(act)
        {
            inner.withheld = Some(state.epoch);
        }
        inner.standing = standing;
        Some(Judgement {
            rule,
            verdict,
            vote,
            wants_news,
            worried,
            missed,
            calm,
            changes_in_ms,
        })
    }

    /// Looks at what an order depends on; `None` where this node does not lead, or something later is known already.
    pub fn look<T>(
        &self,
        agreed: &Agreed<'_>,
        now: Moment,
        wall_ms: u64,
        look: impl FnOnce(&View<'_>) -> T,
    ) -> Option<T> {
        let mut inner = self.lock();
        if !inner.learn(agreed.state, now) {
            return None;
        }
        inner.view(agreed, now, wall_ms).map(|(_, view)| look(&view))
    }

    /// The proposal is known to have changed nothing: leases of the epoch may be granted again.
    pub fn release(&self, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.withheld == Some(epoch) {
            inner.withheld = None;
        }
    }
}

/// The end of an epoch is final, whoever said it: a daemon that was stopped when its guard fenced it may wake up and
/// send what it knew before.
fn stay_ended(said: &Tenure, new: &mut Tenure, epoch: Epoch) {
    match (said, &mut *new) {
        (
            Tenure::Ended { end, .. },
            Tenure::Ended {
                epoch: of, end: read, ..
            },
        ) if *of == epoch => {
            *read = read.or(*end);
        }
        _ => new.clone_from(said),
    }
}

/// Whether the same daemon sent this one later.
fn is_later(known: &Report, new: &Report) -> bool {
    known.run == new.run && known.sent_at > new.sent_at
}

/// Two nodes of one name: at two addresses, or without any and with two stores.
fn is_another(known: &MemberInfo, new: &MemberInfo) -> bool {
    let portless = new.raft_addr.is_empty() && known.raft_id != new.raft_id;
    known.raft_addr != new.raft_addr || portless
}

/// Whether an act ends the present epoch.
fn moves(act: &Act) -> bool {
    matches!(
        act,
        Act::Bootstrap { .. }
            | Act::Promote { .. }
            | Act::Restart { .. }
            | Act::Fence { .. }
            | Act::Elect { .. }
    )
}

#[cfg(test)]
#[path = "desk_test.rs"]
mod tests;
