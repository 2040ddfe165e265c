//! What an operator asked for: a switchover, a failover by hand, either at once or at a time.
//!
//! ```text
//!  asked ---(its time has come)---> under way: the primary writes a checkpoint while it serves, stops cleanly, and
//!    |                              says where its log ends ----+--> the candidate has it all: promoted
//!    '--> called off: its time      |                           '--> it does not come: the same primary, a new epoch
//!         has passed, nobody fits   '--> the primary never stops: called off, it serves on
//! ```
//!
//! **Safety.** A handover adds no way for primacy to move: the epoch is over by its holder's own word (design.md section
//! 3, rule 3), said only when every process of it is gone, or its lease is over, or its copies promised (`fence.rs`).
//! What it adds is a preference among those who may be promoted then:
//!
//! 1. After the holder's word the candidate is promoted only if its log reaches the end that the holder read from its own
//!    disk. Everything that was ever acknowledged lies before that end, so nothing is lost, in whatever mode, and it
//!    need not count in the synchronous set: the quorums stay agreed until the new primary's proof (`sync.rs`).
//! 2. Named for a failover whose last primary is silent, it waits for the same clock as everybody (`View::move_at`). In
//!    asynchronous mode it is promoted then as the rules would promote the best one. Where commits wait for standbys it
//!    is elected on the copies' proof like anybody else (preferred among those who have everything); without the proof
//!    only by an operator's explicit word that acknowledged rows may be lost, which is agreed and stays in the history.
//! 3. Never one on another timeline, with another copy than the agreed one, or that says itself that it cannot.
//!
//! Called off, the holder starts again in an epoch of its own as after any end it reports: there is no state in which
//! everybody waits for an operator.

use super::candidate::{self, Candidate, candidates};
use super::fence;
use super::rules::{Verdict, healthy_epoch, promote, propose, stand};
use super::view::{Heard, View, streams};
use crate::cluster::{Act, Handover, MemberName, PostgresState, Role, UnderWay, WalEnd};

/// How long the candidate is awaited once the primary is down: a clean stop has sent it everything before.
const ARRIVAL_MS: u64 = 1_000;
/// How long a good candidate is awaited that only has to come up, connect or receive what is on its way.
pub const PASSING_MS: u64 = 2_000;
/// Why a candidate would not have the last record.
const NO_STREAM: &str = "it does not stream from the primary";
/// How long a primary may take to write its checkpoint and stop, or anybody to become primary.
const PATIENCE_MS: u64 = 300_000;

/// Where the rules that an operator set in motion fire under the history's two words.
pub(super) fn switchover(view: &View<'_>) -> Option<Verdict> {
    let (asked, begun) = under_way(view).filter(|(asked, _)| !asked.failover)?;
    after_its_word(view, asked, begun)
}

pub(super) fn failover(view: &View<'_>) -> Option<Verdict> {
    let (asked, begun) = under_way(view).filter(|(asked, _)| asked.failover)?;
    after_its_word(view, asked, begun).or_else(|| without_its_word(view, asked, begun))
}

fn under_way<'a>(view: &'a View<'_>) -> Option<(&'a Handover, &'a UnderWay)> {
    let (_, epoch) = view.state.primacy.last()?;
    let asked = view.state.handover.as_ref()?;
    Some((asked, asked.of(epoch)?))
}

/// The holder ended its epoch, and said where.
fn after_its_word(view: &View<'_>, asked: &Handover, begun: &UnderWay) -> Option<Verdict> {
    let (heard, end, why) = view.ended()?;
    view.state.is_confirmed().then_some(())?;
    let (holder, to) = (heard.report.member(), &begun.to);
    let target = candidate::named(view, to);
    if let (Ok(target), Some(end)) = (&target, end)
        && target.warm
        && target.reach >= end.lsn
    {
        let reason = format!(
            "{holder} stopped for it at {}; {to} has received {}",
            end.lsn, target.reach
        );
        return promote(view, target, reason);
    }
    if waits_for(view, heard, to) {
        return stand(format!(
            "{holder} stopped for {to}, which has not received everything yet"
        ));
    }
    let there = view.fresh(holder).is_some() && heard.report.unpromotable.is_none();
    if asked.failover
        && (asked.accept_loss || !there && !view.state.sync.is_on())
        && let Ok(target) = &target
    {
        return promote(view, target, lossy(holder, why, end, target));
    }
    // Nobody was named: whoever has everything is as good, by the rules that follow.
    (asked.to.is_some() && there).then_some(())?;
    let trouble = match target {
        Ok(target) => format!("it has received {} only", target.reach),
        Err(why) => why,
    };
    let act = Act::Restart {
        member: holder.clone(),
        epoch: view.state.epoch.next(),
    };
    propose(
        act,
        format!("the {} to {to} is called off: {trouble}", asked.word()),
    )
}

fn lossy(holder: &MemberName, why: &str, end: Option<WalEnd>, target: &Candidate) -> String {
    let missing = end.map_or("an unknown number of".to_owned(), |end| {
        target.reach.behind(end.lsn).to_string()
    });
    format!(
        "{holder} ended its epoch ({why}); {missing} bytes are lost with {}, as asked",
        target.name
    )
}

/// Its last word is what it has received once its stream has ended.
fn waits_for(view: &View<'_>, holder: &Heard, to: &MemberName) -> bool {
    let ended_at = holder.ended_at.unwrap_or(holder.at);
    if view.now >= ended_at.plus(ARRIVAL_MS) {
        return false;
    }
    view.fresh(to).is_some_and(|heard| {
        let postgres = heard.report.postgres.as_ref();
        postgres.is_some_and(|postgres| {
            let running = postgres.role == Role::Replica && postgres.state == PostgresState::Running;
            let last_word = heard.at > ended_at && postgres.replication_state.is_none();
            running && !last_word
        })
    })
}

/// The last primary is silent, or its epoch is fenced, and whatever it was granted is over.
fn without_its_word(view: &View<'_>, asked: &Handover, begun: &UnderWay) -> Option<Verdict> {
    let nobody_holds =
        view.state.primacy.fencing().is_some() || view.ended().is_none() && view.holding().is_none();
    // In a pause no time proves that a silent primary does not write: an operator has to.
    let over = view.now >= view.move_at() || asked.accept_loss && view.now >= view.bounded_at();
    (nobody_holds && over).then_some(())?;
    (asked.accept_loss || !view.state.sync.is_on()).then_some(())?;
    let target = candidate::named(view, &begun.to).ok()?;
    let over = match view.now >= view.move_at() {
        true => format!("every lease for epoch {} is over", begun.epoch),
        false => format!(
            "the primary of epoch {} is gone, by an operator's word",
            begun.epoch
        ),
    };
    let loss = if asked.accept_loss {
        "; acknowledged rows may be lost, as asked"
    } else {
        ""
    };
    let reason = format!("{over}; {} has {}{loss}", target.name, target.reach);
    promote(view, &target, reason)
}

/// Whom an operator named, where several may be elected.
pub(super) fn preferred<'a>(view: &'a View<'_>) -> Option<&'a MemberName> {
    under_way(view).map(|(_, begun)| &begun.to)
}

/// A switchover whose time has come begins, or is forgotten.
pub(super) fn due(view: &View<'_>) -> Option<Verdict> {
    let asked = view
        .state
        .handover
        .as_ref()
        .filter(|asked| asked.under_way.is_none())?;
    let at = asked.at.as_ref()?;
    (!view.state.pause.is_on()).then_some(())?;
    (view.wall_ms >= at.ms).then_some(())?;
    let late_ms = view.wall_ms - at.ms;
    if late_ms > view.settings.loop_wait_s.saturating_mul(1_500) {
        return forget(asked, format!("its time, {}, has passed", at.iso));
    }
    let (holder, epoch) = view.state.primacy.held()?;
    if asked.from.as_ref().is_some_and(|from| from != holder) {
        return forget(asked, format!("{holder} is the primary by now"));
    }
    healthy_epoch(view)?;
    match chosen(view, asked.to.as_ref()) {
        Ok(to) => propose(
            Act::Begin {
                epoch,
                to: to.clone(),
            },
            format!("from {holder} to {to}, as scheduled for {}", at.iso),
        ),
        Err(unready) if unready.passing && late_ms < PASSING_MS => None,
        Err(unready) => forget(asked, unready.why),
    }
}

/// Why nobody takes over from a healthy primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// The reason.
    pub why: String,
    /// It may be over in a moment.
    pub passing: bool,
}

/// Who takes over from a healthy primary: the one that is named, if it may, else the best. It must stream at this moment:
/// one that does not would not have the record of the shutdown, and the primary would have stopped for nothing.
pub fn chosen(view: &View<'_>, to: Option<&MemberName>) -> Result<MemberName, Unready> {
    let epoch = healthy_epoch(view);
    let connected = |name: &MemberName| {
        let heard = view.fresh(name);
        epoch.is_none_or(|epoch| heard.is_some_and(|heard| streams(&heard.report, epoch)))
    };
    let Some(to) = to else {
        let mut fit = candidates(view).into_iter().filter(|candidate| candidate.warm);
        let best = fit.find(|candidate| connected(&candidate.name));
        return best.map(|best| best.name).ok_or_else(|| Unready {
            why: "nobody can take over".to_owned(),
            passing: view
                .state
                .members
                .keys()
                .any(|name| candidate::is_coming(view, name)),
        });
    };
    let why = candidate::why_not(view, to).or_else(|| (!connected(to)).then(|| NO_STREAM.to_owned()));
    match why {
        None => Ok(to.clone()),
        Some(why) => Err(Unready {
            why: format!("{to} cannot take over: {why}"),
            passing: candidate::is_coming(view, to),
        }),
    }
}

fn forget(asked: &Handover, why: String) -> Option<Verdict> {
    let word = asked.word();
    propose(
        Act::CallOff { asked: asked.asked },
        format!("the {word} is called off: {why}"),
    )
}

/// What has begun and comes to nothing must not lie in wait.
pub(super) fn stale(view: &View<'_>) -> Option<Verdict> {
    let asked = view
        .state
        .handover
        .as_ref()
        .filter(|asked| asked.under_way.is_some())?;
    (view.now.since(view.asked_since) > PATIENCE_MS).then_some(())?;
    forget(
        asked,
        format!("it did not come about within {} s", PATIENCE_MS / 1_000),
    )
}

/// Why a failover to `to` could lose what was acknowledged, if an operator has to say that it may; `None` if it cannot.
pub fn at_stake(view: &View<'_>, to: &MemberName) -> Option<String> {
    let target = candidate::named(view, to).ok()?;
    if let Some(epoch) = healthy_epoch(view) {
        // It is awaited with nobody writing, so it has to be near, and connected.
        let cut_off = !view.fresh(to).is_some_and(|heard| streams(&heard.report, epoch));
        let why = candidate::near(view, &target)
            .err()
            .or_else(|| cut_off.then(|| NO_STREAM.to_owned()));
        return why.map(|why| format!("{to} cannot take over yet: {why}"));
    }
    let silent = view.ended().is_none() && view.holding().is_none() && view.state.primacy.held().is_some();
    if silent && view.state.pause.is_unbounded() && !view.state.sync.is_on() {
        let why = "the primary is silent, and since the pause it has no deadline, so it may still be writing";
        return Some(why.to_owned());
    }
    let complete = view
        .ended()
        .and_then(|(_, end, _)| end)
        .is_some_and(|end| target.reach >= end.lsn);
    if complete || !view.state.sync.is_on() {
        return None;
    }
    fence::unheard(view)
        .map(|missing| format!("to know what was acknowledged, one more of these must be heard: {missing}"))
}
