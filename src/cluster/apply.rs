//! The replicated state machine: `apply(state, command) -> Outcome`, deterministic and checked after every change.

use super::apply_check::check;
use super::apply_handover as handover;
use super::command::{Act, Command, Outcome, Vote};
use super::history::{Event, Promotion};
use super::ids::{Epoch, Incarnation, MemberName, Revision};
use super::member::{Fitness, Member, MemberInfo};
use super::pause::Pause;
use super::primacy::{Origin, Primacy};
use super::state::State;
use super::sync::{Quorum, Sync};
use super::wal::Timeline;

/// Carries out `command` from a log entry written under `vote`, or says why not; a command that is not carried
/// out changes nothing.
pub fn apply(state: &mut State, command: &Command, vote: Vote) -> Outcome {
    if command.vote != vote
        || command
            .expected
            .is_some_and(|revision| revision != state.revision)
    {
        return Outcome::Stale(state.revision);
    }
    let mut next = state.clone();
    if let Err(why) = change(&mut next, command) {
        return Outcome::Refused(why);
    }
    handover::follow_up(state, &mut next, &command.act);
    if next == *state {
        return Outcome::Applied(state.revision);
    }
    if let Err(why) = check(state, &next) {
        return Outcome::Refused(format!("{} would break an invariant: {why}", command.rule));
    }
    next.revision = state.revision.next();
    if next.primacy != state.primacy {
        record(&mut next, command);
    }
    *state = next;
    Outcome::Applied(state.revision)
}

fn change(state: &mut State, command: &Command) -> Result<(), String> {
    match &command.act {
        Act::Register(info) => register(state, info),
        Act::Bootstrap {
            member,
            epoch,
            config,
            ttl_ms,
        } => {
            bootstrap(state, member, *epoch)?;
            state.config.clone_from(config);
            set_ttl(state, *ttl_ms)
        }
        Act::Initialized {
            member,
            epoch,
            system_id,
            timeline,
        } => initialized(state, member, *epoch, *system_id, *timeline),
        Act::Promote {
            member,
            epoch,
            timeline,
        } => promote(state, member, *epoch, *timeline),
        Act::Restart { member, epoch } => restart(state, member, *epoch),
        Act::Promoted(promotion) => promoted(state, promotion),
        Act::Judge { member, fitness } => {
            known(state, member)?.fitness = fitness.clone();
            Ok(())
        }
        Act::Configure {
            config,
            ttl_ms,
            paused,
        } => {
            state.config.clone_from(config);
            set_pause(state, *paused);
            set_ttl(state, *ttl_ms)
        }
        Act::TtlSettled { ttl_ms } => {
            if *ttl_ms != state.ttl_ms {
                return Err(format!(
                    "the ttl in force is {} ms, not {ttl_ms} ms",
                    state.ttl_ms
                ));
            }
            state.wait_ttl_ms = *ttl_ms;
            Ok(())
        }
        Act::Forget { member } => {
            if state.primacy.last().is_some_and(|(holder, _)| holder == member) {
                return Err(format!("{member} is the primary"));
            }
            state.members.remove(member);
            Ok(())
        }
        Act::Fence { epoch } => fence(state, *epoch),
        Act::Elect {
            member,
            copy,
            epoch,
            timeline,
            quorum,
        } => {
            elect(state, member, *copy, quorum)?;
            take_over(state, member, *epoch, *timeline)?;
            state.sync.push(quorum.clone());
            Ok(())
        }
        Act::Dismiss { member } => dismiss(state, member),
        Act::Readmit { member } => {
            state.removed.remove(member);
            Ok(())
        }
        Act::Resync { quorum } => resync(state, quorum.as_ref()),
        Act::Settle { epoch, serial } => settle(state, *epoch, *serial),
        Act::Ask(handover) => handover::ask(state, handover),
        Act::Begin { epoch, to } => handover::begin(state, *epoch, to),
        Act::CallOff { asked } => handover::call_off(state, *asked),
        Act::Resumed { since } => resumed(state, *since),
    }
}

fn known<'a>(state: &'a mut State, member: &MemberName) -> Result<&'a mut Member, String> {
    state
        .members
        .get_mut(member)
        .ok_or_else(|| format!("no member is named {member}"))
}

/// Whoever is primary moves primacy first: nobody else may write by its lease.
fn dismiss(state: &mut State, member: &MemberName) -> Result<(), String> {
    if state.primacy.last().is_some_and(|(holder, _)| holder == member) {
        return Err(format!("{member} is the primary"));
    }
    let info = &known(state, member)?.info;
    let (id, has_port) = (info.raft_id, !info.raft_addr.is_empty());
    state.removed.entry(member.clone()).or_insert(id);
    // Whoever has no port has no part in Raft that it could forget: its id stays its own.
    if has_port && id != 0 {
        state.retired.insert(id);
    }
    Ok(())
}

/// A new copy of the data has proved nothing yet, so it starts unfit; so does a newcomer.
fn register(state: &mut State, info: &MemberInfo) -> Result<(), String> {
    if let Some(other) = state.namesake(&info.name) {
        return Err(format!(
            "{} differs from {other} in case only, and PostgreSQL takes the two for one",
            info.name
        ));
    }
    if state.is_removed(&info.name) {
        return Err(format!("{} was taken out of the cluster", info.name));
    }
    if state.is_retired(info.raft_id) {
        return Err(format!(
            "the Raft id of {} was taken out of the cluster",
            info.name
        ));
    }
    let fitness = match state.members.get(&info.name) {
        Some(old) if old.info.incarnation == info.incarnation => old.fitness.clone(),
        _ => Fitness::Unfit("its copy of the data has not followed the primary yet".to_owned()),
    };
    state.members.insert(
        info.name.clone(),
        Member {
            info: info.clone(),
            fitness,
        },
    );
    Ok(())
}

fn new_epoch(state: &mut State, epoch: Epoch) -> Result<(), String> {
    if epoch != state.epoch.next() {
        return Err(format!("the next epoch is {}, not {epoch}", state.epoch.next()));
    }
    state.epoch = epoch;
    Ok(())
}

fn may_hold(state: &mut State, member: &MemberName) -> Result<(), String> {
    let found = known(state, member)?;
    if found.is_witness() {
        return Err(format!("{member} is a witness and holds no data"));
    }
    if state.is_removed(member) {
        return Err(format!("{member} is being taken out of the cluster"));
    }
    Ok(())
}

fn bootstrap(state: &mut State, member: &MemberName, epoch: Epoch) -> Result<(), String> {
    if let Some(id) = state.system_id {
        return Err(format!(
            "the database cluster exists already, its system identifier is {id}"
        ));
    }
    may_hold(state, member)?;
    new_epoch(state, epoch)?;
    state.primacy = Primacy::Held {
        member: member.clone(),
        epoch,
        origin: Origin::Bootstrap,
        timeline: None,
    };
    Ok(())
}

fn initialized(
    state: &mut State,
    member: &MemberName,
    epoch: Epoch,
    system_id: u64,
    timeline: Timeline,
) -> Result<(), String> {
    if state.system_id.is_some_and(|known| known != system_id) {
        return Err("the database cluster has another system identifier".to_owned());
    }
    match &mut state.primacy {
        Primacy::Held {
            member: holder,
            epoch: held,
            origin: Origin::Bootstrap,
            timeline: on,
        } if holder == member && *held == epoch && on.is_none_or(|on| on == timeline) => {
            *on = Some(timeline);
        }
        _ => {
            return Err(format!(
                "{member} does not bootstrap on timeline {timeline} in epoch {epoch}"
            ));
        }
    }
    state.system_id = Some(system_id);
    state.first = Some(timeline);
    state.reserved = state.reserved.max(timeline);
    known(state, member)?.fitness = Fitness::Fit;
    Ok(())
}

fn promote(state: &mut State, member: &MemberName, epoch: Epoch, timeline: Timeline) -> Result<(), String> {
    if state.system_id.is_none() {
        return Err("there is no database cluster yet".to_owned());
    }
    may_hold(state, member)?;
    let found = known(state, member)?;
    if found.info.tags.nofailover {
        return Err(format!("{member} has the tag nofailover"));
    }
    // An operator may name one that the rules would pass over.
    let named = handover::is_for(state, member);
    let found = known(state, member)?;
    if let Fitness::Unfit(why) = &found.fitness
        && !named
    {
        return Err(format!("{member} is not fit: {why}"));
    }
    if state.sync.is_on() {
        return Err("commits wait for standbys here, so a primary is elected on their proof".to_owned());
    }
    take_over(state, member, epoch, timeline)
}

/// Commits wait for standbys: whoever is elected has proved to have all of them, so fitness has no say.
fn elect(
    state: &mut State,
    member: &MemberName,
    copy: Option<Incarnation>,
    quorum: &Quorum,
) -> Result<(), String> {
    if state.system_id.is_none() || !state.sync.is_on() {
        return Err("there is no synchronous set to elect from".to_owned());
    }
    may_hold(state, member)?;
    let found = known(state, member)?;
    if found.info.tags.nofailover {
        return Err(format!("{member} has the tag nofailover"));
    }
    if found.info.incarnation != copy {
        return Err(format!("{member} holds another copy of the data by now"));
    }
    if quorum.primary != *member || quorum.copy != copy {
        return Err(format!("the quorum is {}'s, not {member}'s", quorum.primary));
    }
    Ok(())
}

fn take_over(state: &mut State, member: &MemberName, epoch: Epoch, timeline: Timeline) -> Result<(), String> {
    if timeline <= state.reserved {
        return Err(format!(
            "timeline {timeline} is not above {}, the highest reserved",
            state.reserved
        ));
    }
    new_epoch(state, epoch)?;
    state.reserved = timeline;
    let origin = Origin::Promotion;
    state.primacy = Primacy::Held {
        member: member.clone(),
        epoch,
        origin,
        timeline: Some(timeline),
    };
    Ok(())
}

fn restart(state: &mut State, member: &MemberName, epoch: Epoch) -> Result<(), String> {
    if !state.is_confirmed() {
        return Err(
            "the last promotion was never completed, so there is no primary to start again".to_owned(),
        );
    }
    match state.primacy.last() {
        Some((holder, _)) if holder == member => {}
        _ => return Err(format!("{member} does not hold primacy")),
    }
    new_epoch(state, epoch)?;
    let timeline = state.timeline();
    state.primacy = Primacy::Held {
        member: member.clone(),
        epoch,
        origin: Origin::Restart,
        timeline,
    };
    Ok(())
}

fn promoted(state: &mut State, promotion: &Promotion) -> Result<(), String> {
    match &state.primacy {
        Primacy::Held {
            member,
            epoch,
            origin: Origin::Promotion,
            timeline: Some(reserved),
        }
        | Primacy::Fencing {
            member,
            last: epoch,
            origin: Origin::Promotion,
            timeline: Some(reserved),
            ..
        } if *member == promotion.member && *epoch == promotion.epoch && *reserved == promotion.timeline => {}
        _ => {
            return Err(format!(
                "{} was not to be promoted in epoch {}",
                promotion.member, promotion.epoch
            ));
        }
    }
    if state
        .timelines
        .last()
        .is_none_or(|last| last.timeline < promotion.timeline)
    {
        state.timelines.push(promotion.clone());
    }
    Ok(())
}

fn fence(state: &mut State, epoch: Epoch) -> Result<(), String> {
    if !state.sync.is_on() {
        return Err(
            "without synchronous standbys only the end of a lease proves that nothing is written".to_owned(),
        );
    }
    let Primacy::Held {
        member,
        epoch: last,
        origin,
        timeline,
    } = state.primacy.clone()
    else {
        return Err("nobody holds primacy".to_owned());
    };
    new_epoch(state, epoch)?;
    state.primacy = Primacy::Fencing {
        member,
        last,
        epoch,
        origin,
        timeline,
    };
    Ok(())
}

/// Whoever turned synchronous replication on was acknowledged by the primary alone until now.
fn resync(state: &mut State, quorum: Option<&Quorum>) -> Result<(), String> {
    let Some(quorum) = quorum else {
        state.sync = Sync {
            quorums: Vec::new(),
            serial: state.sync.serial + 1,
        };
        return Ok(());
    };
    match state.primacy.held() {
        Some((holder, _)) if *holder == quorum.primary => {}
        _ => return Err(format!("{} does not hold primacy", quorum.primary)),
    }
    if let Some(strange) = quorum
        .members
        .keys()
        .find(|name| !state.members.contains_key(name))
    {
        return Err(format!("no member is named {strange}"));
    }
    if quorum.members.contains_key(&quorum.primary) {
        return Err("a primary is no standby of its own".to_owned());
    }
    if !state.sync.is_on() {
        state.sync.push(Quorum::only(quorum.primary.clone(), quorum.copy));
    }
    if state.sync.quorums.len() >= Sync::MOST {
        return Err(format!(
            "{} changes of the synchronous set wait for proof",
            Sync::MOST
        ));
    }
    state.sync.push(quorum.clone());
    Ok(())
}

fn settle(state: &mut State, epoch: Epoch, serial: u64) -> Result<(), String> {
    let current = state.primacy.held().is_some_and(|(_, held)| held == epoch);
    if !current || serial != state.sync.serial {
        return Err(format!(
            "the proof is of epoch {epoch} and change {serial}, something else is in force"
        ));
    }
    let older = state.sync.quorums.len().saturating_sub(1);
    state.sync.quorums.drain(..older);
    Ok(())
}

fn set_pause(state: &mut State, paused: bool) {
    state.pause = match (state.pause, paused) {
        (_, true) => Pause::On,
        (Pause::On, false) => Pause::Ending {
            since: state.revision.next(),
        },
        (present, false) => present,
    };
}

fn resumed(state: &mut State, since: Revision) -> Result<(), String> {
    if state.pause != (Pause::Ending { since }) {
        return Err(format!("no pause is ending since revision {since}"));
    }
    state.pause = Pause::Off;
    Ok(())
}

fn set_ttl(state: &mut State, ttl_ms: u64) -> Result<(), String> {
    if ttl_ms == 0 {
        return Err("a ttl of zero would fence every primary".to_owned());
    }
    state.wait_ttl_ms = state.wait_ttl_ms.max(state.ttl_ms).max(ttl_ms);
    state.ttl_ms = ttl_ms;
    Ok(())
}

fn record(state: &mut State, command: &Command) {
    state.events.push(Event {
        revision: state.revision.0,
        epoch: state.epoch,
        member: state.primacy.held().map(|(member, _)| member.clone()),
        rule: command.rule.clone(),
        reason: command.reason.clone(),
        at_ms: command.at_ms,
    });
    let excess = state.events.len().saturating_sub(State::EVENTS);
    state.events.drain(..excess);
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
