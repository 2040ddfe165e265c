//! The replicated state machine: `apply(state, command) -> Outcome`, deterministic and checked after every change.

use super::command::{Act, Command, Outcome, Vote};
use super::history::{Event, Promotion};
use super::ids::{Epoch, MemberName};
use super::member::{Fitness, Member, MemberInfo};
use super::primacy::{Origin, Primacy};
use super::state::State;
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
        Act::Configure { config, ttl_ms } => {
            state.config.clone_from(config);
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
            if state.primacy.held().is_some_and(|(holder, _)| holder == member) {
                return Err(format!("{member} is the primary"));
            }
            state.members.remove(member);
            Ok(())
        }
    }
}

fn known<'a>(state: &'a mut State, member: &MemberName) -> Result<&'a mut Member, String> {
    state
        .members
        .get_mut(member)
        .ok_or_else(|| format!("no member is named {member}"))
}

/// A new copy of the data has proved nothing yet, so it starts unfit; so does a newcomer.
fn register(state: &mut State, info: &MemberInfo) -> Result<(), String> {
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
    if let Fitness::Unfit(why) = &found.fitness {
        return Err(format!("{member} is not fit: {why}"));
    }
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
    match state.primacy.held() {
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

fn set_ttl(state: &mut State, ttl_ms: u64) -> Result<(), String> {
    if ttl_ms == 0 {
        return Err("a ttl of zero would fence every primary".to_owned());
    }
    state.wait_ttl_ms = state.wait_ttl_ms.max(state.ttl_ms).max(ttl_ms);
    state.ttl_ms = ttl_ms;
    Ok(())
}

/// What must hold between any state and the next one.
fn check(old: &State, new: &State) -> Result<(), &'static str> {
    let moved = new.primacy != old.primacy;
    let same_holder = new.primacy.held() == old.primacy.held();
    if new.epoch < old.epoch || new.reserved < old.reserved {
        return Err("epochs and timelines only grow");
    }
    if moved && !same_holder && new.epoch == old.epoch {
        return Err("a change of primary needs a new epoch");
    }
    if old.system_id.is_some() && new.system_id != old.system_id {
        return Err("the system identifier never changes");
    }
    if old.first.is_some() && new.first != old.first {
        return Err("the first timeline never changes");
    }
    if new.wait_ttl_ms < new.ttl_ms {
        return Err("waits must cover the ttl in force");
    }
    if new
        .timelines
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.timeline >= b.timeline))
    {
        return Err("the list of timelines only grows");
    }
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
