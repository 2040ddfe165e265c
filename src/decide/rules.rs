//! The table of rules: the first row that has something to say decides; its name goes to the log and the history.
//!
//! Order matters and is the whole design: facts that are already true come first, then the first bootstrap,
//! then an epoch that its holder ended, then a healthy primary, then a silent one. The dump of this table is a
//! golden file, so that a change of rules is a diff somebody reviews.

use super::candidate::{Candidate, candidates};
use super::view::{View, serves};
use super::{fence, followers, founding, handover, pause, sync, upkeep};
use crate::cluster::{Act, Epoch, MemberName, Moment, PostgresState, Role, State, Timeline, WalEnd};

/// How long a primary that could be started again waits at most for the standbys' last words.
const LAST_BYTES_MS: u64 = 200;
/// A holder that has not begun its epoch for so long may not hear this leader.
const RISING_MS: u64 = 8_000;

/// What a rule says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing is to be done, for this reason.
    Stand(String),
    /// Propose this, for this reason.
    Propose(Act, String),
}

/// One row.
pub struct Rule {
    /// Its name, as it stands in the log and the history.
    pub name: &'static str,
    /// What it says in one sentence.
    pub says: &'static str,
    /// Its judgement; `None` passes on to the next row.
    pub judge: fn(&View<'_>) -> Option<Verdict>,
}

/// The rules, in order.
pub const RULES: &[Rule] = &[
    Rule {
        name: "register",
        says: "A member that says something new of itself is recorded.",
        judge: upkeep::register,
    },
    Rule {
        name: "settle-ttl",
        says: "When every lease of an older, longer ttl has run out, waits shrink to the ttl in force.",
        judge: upkeep::settle_ttl,
    },
    Rule {
        name: "initialized",
        says: "The database cluster exists: its system identifier is fixed for ever.",
        judge: upkeep::initialized,
    },
    Rule {
        name: "promoted",
        says: "The new primary has reached its timeline: the fork goes to the history.",
        judge: upkeep::promoted,
    },
    Rule {
        name: "sync-settled",
        says: "The primary proved that the newest synchronous set has everything: elections need to hear that one only.",
        judge: sync::settled,
    },
    Rule {
        name: "resumed",
        says: "After a pause the primary's deadline stands again: time counts as proof from here on.",
        judge: pause::resumed,
    },
    Rule {
        name: "called-off",
        says: "A switchover or failover that was begun has not come about for long: it is forgotten.",
        judge: handover::stale,
    },
    Rule {
        name: "bootstrap",
        says: "Without a database cluster one member creates it; one that brings data first, the furthest data first.",
        judge: founding::bootstrap,
    },
    Rule {
        name: "switchover",
        says: "The primary stopped for a switchover: promote the candidate that has all it wrote, or start it again.",
        judge: handover::switchover,
    },
    Rule {
        name: "manual failover",
        says: "An operator named who takes over: the same, or after every lease; what may be lost needs an explicit word.",
        judge: handover::failover,
    },
    Rule {
        name: "restart-asked",
        says: "The primary ended its epoch because an operator wants its PostgreSQL restarted: start it again.",
        judge: restart_asked,
    },
    Rule {
        name: "paused",
        says: "The primary does not serve, and the cluster is paused: nothing moves by itself.",
        judge: pause::paused,
    },
    Rule {
        name: "has-every-byte",
        says: "The primary ended its epoch and a standby that followed it has all it wrote: promote that one, nothing is lost.",
        judge: has_every_byte,
    },
    Rule {
        name: "restart-in-place",
        says: "The primary ended its epoch, no standby has all it wrote, and it is there: start it again.",
        judge: restart_in_place,
    },
    Rule {
        name: "best-standby",
        says: "The primary ended its epoch and cannot be started again: promote the best standby.",
        judge: best_standby,
    },
    Rule {
        name: "proven",
        says: "Fenced: the copies that promised share one with every set that could acknowledge: elect the furthest.",
        judge: fence::proven,
    },
    Rule {
        name: "holder-returned",
        says: "Fenced: the last primary is there and the proof is not: start it again, it has everything.",
        judge: fence::holder_returned,
    },
    Rule {
        name: "proof-wanting",
        says: "Fenced: wait for the promises that are missing.",
        judge: fence::proof_wanting,
    },
    Rule {
        name: "sync-set",
        says: "Other standbys than before can acknowledge: elections respect the new set first, then PostgreSQL does.",
        judge: sync::changed,
    },
    Rule {
        name: "take-out",
        says: "An operator took a member out, and no commit waits for it any more: it is forgotten.",
        judge: upkeep::take_out,
    },
    Rule {
        name: "lost-right",
        says: "A standby that has not followed a healthy primary for ten seconds may not be promoted.",
        judge: followers::lost_right,
    },
    Rule {
        name: "regained-right",
        says: "A standby that follows closely again may be promoted again.",
        judge: followers::regained_right,
    },
    Rule {
        name: "rising",
        says: "The primary was heard, but has not begun its epoch yet: wait, and if it lasts let another node lead, whose answers may reach it.",
        judge: rising,
    },
    Rule {
        name: "scheduled",
        says: "The time of a scheduled switchover has come: it begins, or is forgotten where it cannot.",
        judge: handover::due,
    },
    Rule {
        name: "resuming",
        says: "The pause is over, and the primary has not said yet that its deadline stands again: wait, and if it lasts let another node lead, whom it may hear.",
        judge: pause::resuming,
    },
    Rule {
        name: "healthy",
        says: "The primary renews its lease: nothing moves.",
        judge: healthy,
    },
    Rule {
        name: "fence",
        says: "The primary is gone and the standbys can prove what was acknowledged: fence its epoch, wait for no lease.",
        judge: fence::fence,
    },
    Rule {
        name: "unprovable",
        says: "Commits wait for standbys, and too few copies are heard to know what was acknowledged: promote nobody.",
        judge: fence::unprovable,
    },
    Rule {
        name: "deadline-unknown",
        says: "The primary is not heard, and since the pause no deadline of it is known to stand: wait, and if it lasts let another node lead, who may hear it.",
        judge: deadline_unknown,
    },
    Rule {
        name: "lease-running",
        says: "The primary is silent, but a lease it was granted may still be running: wait.",
        judge: lease_running,
    },
    Rule {
        name: "await-former",
        says: "After a cold start the former primary is awaited for primary_start_timeout.",
        judge: await_former,
    },
    Rule {
        name: "unaware",
        says: "The best standby was elected under this lead already and does not know of it: wait, and if it lasts let another node lead, whom it may hear.",
        judge: unaware,
    },
    Rule {
        name: "lease-over",
        says: "Every lease of the silent primary is over: promote the best standby.",
        judge: lease_over,
    },
];

/// The first rule that has something to say. Total: without any, nobody may be promoted, and it says so.
pub fn plan(view: &View<'_>) -> (&'static str, Verdict) {
    RULES
        .iter()
        .find_map(|rule| (rule.judge)(view).map(|verdict| (rule.name, understood(view, verdict))))
        .unwrap_or((
            "nobody",
            Verdict::Stand("nobody may be promoted; see the reason of each member".to_owned()),
        ))
}

/// A rolling upgrade: nothing is proposed that some member's program could not apply.
fn understood(view: &View<'_>, verdict: Verdict) -> Verdict {
    let Verdict::Propose(act, _) = &verdict else {
        return verdict;
    };
    too_old(view.state, act).map_or(verdict, Verdict::Stand)
}

/// Whose program could not apply this, in one sentence.
pub fn too_old(state: &State, act: &Act) -> Option<String> {
    let behind = state
        .members
        .values()
        .find(|member| member.info.level < act.level())?;
    let name = &behind.info.name;
    Some(format!("{name} must be upgraded before this can be decided"))
}

pub(super) fn stand(reason: impl Into<String>) -> Option<Verdict> {
    Some(Verdict::Stand(reason.into()))
}

pub(super) fn propose(act: Act, reason: impl Into<String>) -> Option<Verdict> {
    Some(Verdict::Propose(act, reason.into()))
}

pub(super) fn promote(view: &View<'_>, candidate: &Candidate, reason: String) -> Option<Verdict> {
    if view.state.sync.is_on() {
        return fence::elect(view, &candidate.name, reason);
    }
    let act = Act::Promote {
        member: candidate.name.clone(),
        epoch: view.state.epoch.next(),
        timeline: next_timeline(view),
    };
    propose(act, reason)
}

/// One that was never given out.
pub(super) fn next_timeline(view: &View<'_>) -> Timeline {
    Timeline(view.state.reserved.0.saturating_add(1))
}

/// Only while it is there and can: a node that dies on the way is like any other primary that ended its epoch.
fn restart_asked(view: &View<'_>) -> Option<Verdict> {
    let (heard, _, _) = view.ended()?;
    let (holder, epoch) = view.state.primacy.held()?;
    view.fresh(holder)?;
    let can = view.state.is_confirmed() && heard.report.unpromotable.is_none();
    (can && heard.report.again == Some(epoch)).then_some(())?;
    let act = Act::Restart {
        member: holder.clone(),
        epoch: view.state.epoch.next(),
    };
    propose(act, format!("an operator asked {holder} for it"))
}

fn has_every_byte(view: &View<'_>) -> Option<Verdict> {
    let (heard, end, why) = view.ended()?;
    let end = end?;
    view.state.is_confirmed().then_some(())?;
    let (complete, partial): (Vec<_>, Vec<_>) =
        candidates(view).into_iter().partition(|c| c.reach >= end.lsn);
    let candidate = complete.into_iter().find(|c| c.warm)?;
    // The first to say that it has everything is not always the preferred one: the others' reports are as near.
    let ended_at = heard.ended_at.unwrap_or(heard.at);
    let preferred = partial.iter().find(|c| {
        priority(view, &c.name) > priority(view, &candidate.name)
            && waits_for_last_bytes(view, ended_at, |name| *name == c.name)
    });
    if let Some(preferred) = preferred {
        return stand(format!(
            "{} ended its epoch ({why}); waiting a moment for what {} has received, whose failover_priority is higher",
            heard.report.member(),
            preferred.name
        ));
    }
    let reason = format!(
        "{} ended its epoch ({why}) at {}; {} has received {}",
        heard.report.member(),
        end.lsn,
        candidate.name,
        candidate.reach
    );
    promote(view, &candidate, reason)
}

fn priority(view: &View<'_>, name: &MemberName) -> i64 {
    view.state
        .member(name)
        .map_or(0, |member| member.info.tags.failover_priority)
}

fn restart_in_place(view: &View<'_>) -> Option<Verdict> {
    let (heard, end, why) = view.ended()?;
    view.state.is_confirmed().then_some(())?;
    let name = heard.report.member().clone();
    view.fresh(&name)?;
    if let Some(trouble) = &heard.report.unpromotable {
        // Tried again when the node says so, unless somebody else can: a broken setting must not fill the log.
        let nobody = candidates(view).is_empty();
        return nobody.then(|| {
            Verdict::Stand(format!(
                "{name} ended its epoch ({why}); {trouble}; nobody else can"
            ))
        });
    }
    if waits_for_last_bytes(view, heard.ended_at.unwrap_or(heard.at), |other| *other != name) {
        return stand(format!(
            "{name} ended its epoch ({why}); waiting a moment for what the standbys have received"
        ));
    }
    let held = end.map_or("an unknown position".to_owned(), |WalEnd { lsn, .. }| {
        lsn.to_string()
    });
    let reason = format!("{name} ended its epoch ({why}) at {held}; no standby has received all of it");
    propose(
        Act::Restart {
            member: name,
            epoch: view.state.epoch.next(),
        },
        reason,
    )
}

/// What a standby has received is its last word once its stream has ended; until then bytes may be on their way.
fn waits_for_last_bytes(view: &View<'_>, ended_at: Moment, of: impl Fn(&MemberName) -> bool) -> bool {
    if view.now >= ended_at.plus(LAST_BYTES_MS) {
        return false;
    }
    view.state
        .members
        .keys()
        .filter(|name| of(name))
        .filter_map(|name| view.fresh(name))
        .any(|heard| {
            heard.report.postgres.as_ref().is_some_and(|postgres| {
                let running = postgres.role == Role::Replica && postgres.state == PostgresState::Running;
                let last_word = heard.at >= ended_at && postgres.replication_state.is_none();
                running && !last_word
            })
        })
}

/// Only with the holder's own word that its epoch is over; its log may end later than any standby's.
fn best_standby(view: &View<'_>) -> Option<Verdict> {
    // Where commits wait for standbys nothing may be lost: the way leads through `fence`.
    (!view.state.sync.is_on()).then_some(())?;
    let (heard, end, why) = view.ended()?;
    let name = heard.report.member();
    let best = candidates(view).into_iter().next()?;
    let timeout_ms = view.settings.primary_start_timeout_s * 1_000;
    // One that was never promoted comes back as a standby by itself, and what only it has comes with it.
    let has_more = end.is_some_and(|end| end.lsn > best.reach) && view.fresh(name).is_some();
    if !view.state.is_confirmed() && has_more && heard.report.unpromotable.is_none() {
        let since = view.lead_since.max(heard.ended_at.unwrap_or(heard.at));
        if view.now.since(since) < timeout_ms {
            return stand(format!(
                "{name} was not promoted ({why}) and starts as a standby; {} lacks what it has, so it is awaited",
                best.name
            ));
        }
    }
    if view.state.is_confirmed() && heard.report.unpromotable.is_none() {
        let waited = view.now.since(view.lead_since.max(heard.at));
        if waited < timeout_ms {
            return stand(format!(
                "{name} ended its epoch ({why}) and is away; {} lacks what it wrote last, so it is awaited",
                best.name
            ));
        }
    }
    if view.state.is_confirmed()
        && waits_for_last_bytes(view, heard.ended_at.unwrap_or(heard.at), |other| other != name)
    {
        return stand(format!(
            "{name} ended its epoch ({why}); waiting a moment for what the standbys have received"
        ));
    }
    let missing = end.map_or("an unknown number of".to_owned(), |end| {
        best.reach.behind(end.lsn).to_string()
    });
    promote(
        view,
        &best,
        format!("{name} ended its epoch ({why}) and does not come back; {missing} bytes are lost"),
    )
}

pub(super) fn healthy_epoch(view: &View<'_>) -> Option<Epoch> {
    let heard = view.holding()?;
    let (_, epoch) = view.state.primacy.held()?;
    (view.state.is_confirmed() && serves(&heard.report, epoch)).then_some(epoch)
}

/// A holder that asks for a lease and never gets one asks for ever: only what runs is fenced when its lease ends. A
/// promotion on a busy machine takes its time, so this is not said at once.
fn rising(view: &View<'_>) -> Option<Verdict> {
    let heard = view.holding()?;
    let (name, epoch) = view.state.primacy.held()?;
    let postgres = heard.report.postgres.as_ref()?;
    let waits = postgres.role != Role::Primary && postgres.state != PostgresState::Starting;
    let long = view.now.since(view.held_since.max(view.lead_since)) >= RISING_MS;
    (waits && long && view.state.system_id.is_some() && fence::gone(view).is_none()).then_some(())?;
    stand(format!("{name} has not begun epoch {epoch} yet"))
}

fn healthy(view: &View<'_>) -> Option<Verdict> {
    let heard = view.holding()?;
    fence::gone(view).is_none().then_some(())?;
    stand(format!("{} renews its lease", heard.report.member()))
}

/// No time ends this: a leader whom the primary's word does not reach would wait for ever while another voter has it.
/// Whoever waits for a lease nevertheless (`View::bounded_at`) comes first: a change of the lead begins that wait anew.
fn deadline_unknown(view: &View<'_>) -> Option<Verdict> {
    let (name, _) = view.state.primacy.held()?;
    let no_time_ends_it = view.ended().is_none() && view.state.pause.is_unbounded();
    (no_time_ends_it && view.now >= view.bounded_at()).then_some(())?;
    stand(no_deadline(name))
}

fn no_deadline(name: &MemberName) -> String {
    format!("{name} is silent, and since the pause no deadline of it is known to stand: it is awaited")
}

fn lease_running(view: &View<'_>) -> Option<Verdict> {
    let (name, epoch) = view.state.primacy.held()?;
    view.ended().is_none().then_some(())?;
    let over = view.move_at();
    (view.now < over).then_some(())?;
    if view.state.pause.is_unbounded() {
        return stand(no_deadline(name));
    }
    let left = over.since(view.now);
    stand(format!(
        "{name} is silent; its lease for epoch {epoch} may run for another {left} ms"
    ))
}

fn await_former(view: &View<'_>) -> Option<Verdict> {
    (!view.state.sync.is_on()).then_some(())?;
    let (name, _) = view.state.primacy.held()?;
    view.ended().is_none().then_some(())?;
    (!candidates(view).iter().any(|candidate| candidate.warm)).then_some(())?;
    let until = view
        .lead_since
        .plus(view.settings.primary_start_timeout_s * 1_000);
    (view.now < until).then_some(())?;
    stand(format!(
        "{name} is away and no standby has followed it since its own start: it is awaited"
    ))
}

/// Who is heard, but never hears its leader, would be elected again with every lease, and nobody else. Under another
/// lead it is elected once more: then it may hear of it.
fn unaware(view: &View<'_>) -> Option<Verdict> {
    let (name, best) = silent_and_best(view)?;
    let elected_here = !view.state.is_confirmed() && view.held_since > view.lead_since;
    (best.name == *name && elected_here).then_some(())?;
    stand(format!("{name} was elected and does not know of it"))
}

/// In asynchronous mode, the holder that is silent and the best of those who may be promoted.
fn silent_and_best<'a>(view: &View<'a>) -> Option<(&'a MemberName, Candidate)> {
    (!view.state.sync.is_on()).then_some(())?;
    let (name, _) = view.state.primacy.held()?;
    view.ended().is_none().then_some(())?;
    Some((name, candidates(view).into_iter().next()?))
}

fn lease_over(view: &View<'_>) -> Option<Verdict> {
    let (name, best) = silent_and_best(view)?;
    let (_, epoch) = view.state.primacy.held()?;
    let reason = format!(
        "{name} is silent and every lease for epoch {epoch} is over; {} has {}",
        best.name, best.reach
    );
    promote(view, &best, reason)
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
