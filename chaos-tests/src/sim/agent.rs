//! The node loop of the model: what the product's `node` folder does around the real `duty`, step by step.

use super::node::{Health, Proof, Work, index, name};
use super::server::{Copy, Life, Names, records};
use super::world::{Event, World};
use super::{Flaw, Plan};
use matriarch::cluster::{Epoch, Incarnation, Moment, Origin, Promise, Role, Synced, Timeline, WalEnd};
use matriarch::decide::duty::{Data, Duty, Local, Process, duty};
use matriarch::decide::view::serves;

const GUARD_STILL_MS: u64 = 600;
const DOUBT_MS: u64 = 3_000;
const SPARED_MS: u64 = 5_000;
const LATE_MS: u64 = 300;

/// One look at everything, as the product's agent takes it.
pub(super) fn pass(world: &mut World, node: usize) {
    let now = world.nodes[node].now(world.now);
    guard_beats(world, node, now);
    finish(world, node, now);
    take_in(world, node, now);
    let owed = judge(world, node, now);
    world.nodes[node].mind.duty = owed.clone();
    step(world, node, owed, now);
    let urgent = world.nodes[node].mind.said.as_ref().is_none_or(|said| {
        let next = world.nodes[node].report(now, ("{}", world.settings.ttl_ms));
        let gist = |report: &matriarch::cluster::Report| {
            let postgres = report.postgres.as_ref();
            let seen = postgres.map(|p| (p.state, p.role, p.timeline, p.fork, p.streamed_in));
            (
                report.tenure.clone(),
                report.promise,
                report.synced,
                report.info.clone(),
                seen,
                report.primary_answers,
            )
        };
        gist(said) != gist(&next)
    });
    let due = world.now >= world.nodes[node].mind.reported_at + world.settings.report_interval_ms;
    if urgent || due {
        world.report(node);
    }
}

/// A guard that stands still enforces nothing: the server is stopped without it.
fn guard_beats(world: &mut World, node: usize, now: Moment) {
    let here = &mut world.nodes[node];
    let still = here.guard == Health::Frozen && now.since(here.guard_seen_at) > GUARD_STILL_MS;
    if still && here.mind.running.is_some() && here.server.life == Life::Up {
        here.server.end(None);
        here.armed = None;
    }
}

fn take_in(world: &mut World, node: usize, now: Moment) {
    let skip_reap = world.plan.has(Flaw::OrphansAreNotReaped);
    let forgets = world.plan.has(Flaw::PromiseIsForgotten);
    let here = &mut world.nodes[node];
    let mind = &mut here.mind;
    let believes = forgets && mind.state.revision.0 > 0;
    if believes || !mind.caught_up && mind.word.at > Moment(0) && mind.state.revision >= mind.word.revision {
        mind.caught_up = true;
    }
    let down =
        matches!(here.server.life, Life::Down) || skip_reap && matches!(here.server.life, Life::Orphans(_));
    if down && mind.work.is_none() && mind.running.take().is_some() {
        mind.risen = None;
        mind.proof = None;
        mind.set_end(None, now);
        here.armed = None;
    }
    mind.unconfirmed_since = if mind.state.is_confirmed() {
        None
    } else {
        Some(mind.unconfirmed_since.unwrap_or(now))
    };
    note_standby(world, node, now);
    look_out(world, node, now);
}

/// Whether a silent primary's server answers a knock.
fn look_out(world: &mut World, node: usize, now: Moment) {
    let mind = &world.nodes[node].mind;
    let holder = mind.state.primacy.held().map(|(holder, _)| index(holder));
    let answers = holder.filter(|holder| *holder != node).and_then(|holder| {
        let seen = mind
            .word
            .digest
            .iter()
            .find(|seen| index(seen.report.member()) == holder)?;
        let late = seen.age_ms + now.since(mind.word.at) >= LATE_MS;
        let there = world.carries(node, holder) && world.carries(holder, node);
        late.then(|| there && world.nodes[holder].server.life == Life::Up)
    });
    let answers = answers.filter(|_| !world.plan.has(Flaw::PromiseIsForgotten));
    world.nodes[node].mind.primary_answers = answers;
}

fn note_standby(world: &mut World, node: usize, now: Moment) {
    let well = primary(world, node).is_some();
    let here = &mut world.nodes[node];
    let epoch = here.mind.state.epoch;
    let agreed = here.mind.state.timeline();
    let confirmed = here.mind.state.is_confirmed();
    let Some(copy) = here.server.copy.as_ref().filter(|_| here.server.life == Life::Up) else {
        here.mind.adrift_since = None;
        return;
    };
    let led = here.mind.risen.is_some_and(|risen| risen == epoch);
    if here.server.primary.is_none() {
        let streaming = here.server.receiver.is_some();
        if streaming && well && confirmed && Some(Timeline(copy.reached())) == agreed {
            here.mind.streamed_in = Some((here.server.run, epoch));
        }
        let end = copy.end();
        if streaming || !well {
            here.mind.adrift_since = None;
            here.mind.set_end(None, now);
        } else {
            let since = *here.mind.adrift_since.get_or_insert(now);
            if now.since(since) > DOUBT_MS {
                here.mind.set_end(Some(end), now);
            }
        }
    }
    let followed = here.mind.streamed_in == Some((here.server.run, epoch));
    if confirmed && (followed || led) {
        here.ledger.reached = agreed;
    }
}

/// The primary, if the leader's newest answer shows that it serves.
fn primary(world: &World, node: usize) -> Option<usize> {
    let mind = &world.nodes[node].mind;
    let (holder, epoch) = mind.state.primacy.held()?;
    let seen = mind
        .word
        .digest
        .iter()
        .find(|seen| seen.report.member() == holder)?;
    let fresh = world.nodes[node].now(world.now).since(mind.word.at) < 3_000;
    (fresh && serves(&seen.report, epoch)).then(|| index(holder))
}

fn judge(world: &World, node: usize, now: Moment) -> Duty {
    let here = &world.nodes[node];
    let mind = &here.mind;
    let me = name(node);
    let process = match here.process() {
        Process::Ending if world.plan.has(Flaw::OrphansAreNotReaped) => Process::Down,
        process => process,
    };
    let (holder, epoch) = match mind.state.primacy.held() {
        Some((holder, epoch)) => (Some(holder), epoch),
        None => (None, Epoch(0)),
    };
    let position = holder.and_then(|holder| {
        let seen = mind
            .word
            .digest
            .iter()
            .find(|seen| seen.report.member() == holder)?;
        let at = seen.report.postgres.as_ref()?.location?;
        if seen.age_ms + now.since(mind.word.at) > 3_000 {
            return None;
        }
        let later = mind.word.at.0.saturating_sub(seen.age_ms + 400) > mind.end_at.0;
        serves(&seen.report, epoch).then_some((at, later))
    });
    let kept = mind
        .promise
        .is_some_and(|promise| promise.epoch == here.ledger.promised);
    let promised = if world.plan.has(Flaw::PromiseIsForgotten) && mind.promise.is_none() {
        (Epoch(0), false)
    } else {
        (here.ledger.promised, kept)
    };
    let local = Local {
        me: &me,
        data: &mind.data,
        fork: here.server.copy.as_ref().and_then(Copy::fork),
        reached: here.ledger.reached,
        primary: position,
        unconfirmed_ms: mind.unconfirmed_since.map_or(0, |since| now.since(since)),
        process,
        promised,
        used: if world.plan.has(Flaw::EpochIsReused) {
            Epoch(0)
        } else {
            here.ledger.used
        },
        running: mind.running,
        lease_epoch: mind.lease.0,
        lease_until: mind.lease.1,
        leaving: false,
    };
    if !mind.caught_up {
        let over = mind.running.is_some() && now >= matriarch::decide::lease::stop_at(mind.lease.1);
        let stray = mind.running.is_none() && process == Process::Up(Some(Role::Primary));
        return if over || stray {
            Duty::Fence("it was not heard of".to_owned())
        } else {
            Duty::Rest("waiting to hear from the group".to_owned())
        };
    }
    match duty(&mind.state, &local, now) {
        Duty::Rewind(of, _) if world.plan.has(Flaw::RewindIsSkipped) => Duty::Follow(of),
        Duty::Clone(of, _) if world.plan.has(Flaw::RewindIsSkipped) && here.server.copy.is_some() => {
            Duty::Follow(of)
        }
        owed => owed,
    }
}

fn begin(world: &mut World, node: usize, work: Work, least: u64, most: u64) {
    let done_at = world.now + world.dice.between(least, most);
    world.nodes[node].mind.work = Some((work, done_at));
}

fn step(world: &mut World, node: usize, owed: Duty, now: Moment) {
    if let Duty::Fence(why) = &owed {
        let fencing = matches!(world.nodes[node].mind.work, Some((Work::Fence, _)));
        if !fencing {
            world.say(|| format!("n{node} fences: {why}"));
            begin(world, node, Work::Fence, 20, 150);
        }
        return;
    }
    let mind = &mut world.nodes[node].mind;
    let stale = match &mind.work {
        Some((Work::Bootstrap(of) | Work::Restart(of) | Work::Promote(of, _), _)) => {
            mind.running != Some(*of)
        }
        Some((Work::Clone(_), _)) => !matches!(owed, Duty::Clone(..)),
        Some((Work::Rewind(_), _)) => !matches!(owed, Duty::Rewind(..) | Duty::Clone(..)),
        _ => false,
    };
    if stale {
        mind.work = None;
        mind.data = Data::Unknown;
    }
    if mind.proof.is_some() && !matches!(owed, Duty::Serve(_)) {
        mind.proof = None;
    }
    if mind.work.is_some() {
        return;
    }
    if look(world, node) {
        return;
    }
    match owed {
        Duty::Rest(_) | Duty::AwaitLease(_) | Duty::Fence(_) | Duty::End(_) => {}
        Duty::Rise {
            epoch,
            origin,
            timeline,
        } => rise(world, node, epoch, origin, timeline),
        Duty::Serve(epoch) => serve(world, node, epoch, now),
        Duty::Promise(epoch) => {
            let here = &mut world.nodes[node];
            if here.ledger.promised < epoch {
                here.ledger.promised = epoch;
                here.mind.promise = None;
            }
            // The order is given now; the stream ends a little later, and only then the end is read.
            here.server.upstream = None;
            begin(world, node, Work::Promise(epoch), 30, 120);
        }
        Duty::Follow(of) => follow(world, node, Some(index(&of))),
        Duty::Stand => {
            let of = world.nodes[node]
                .mind
                .state
                .primacy
                .held()
                .map(|(holder, _)| index(holder));
            if world.nodes[node].process() == Process::Down {
                follow(world, node, of.filter(|of| *of != node));
            }
        }
        Duty::Rewind(of, _) => again(world, node, index(&of), Work::Rewind(index(&of))),
        Duty::Clone(of, _) => again(world, node, index(&of), Work::Clone(index(&of))),
    }
}

/// What has to be known before anything can be done.
fn look(world: &mut World, node: usize) -> bool {
    let here = &mut world.nodes[node];
    if here.mind.data == Data::Unknown {
        here.mind.data = match &here.server.copy {
            _ if here.ledger.unfinished => Data::Broken("unfinished".to_owned()),
            None => Data::Absent,
            Some(_) => Data::Present {
                system_id: 7,
                end: None,
            },
        };
        return true;
    }
    let unread = matches!(here.mind.data, Data::Present { end: None, .. });
    if unread && here.process() == Process::Down {
        begin(world, node, Work::ReadEnd, 10, 60);
        return true;
    }
    false
}

/// The upstream with the name that the copy may carry.
fn wanted(world: &World, node: usize, of: Option<usize>) -> Option<(usize, bool)> {
    let here = &world.nodes[node];
    let sync = &here.mind.state.sync;
    let plain = !sync.is_on()
        || world.plan.has(Flaw::NamesBeforeTheRecord)
        || sync.counts(&name(node), here.ledger.incarnation);
    of.map(|of| (of, plain))
}

fn follow(world: &mut World, node: usize, of: Option<usize>) {
    let upstream = wanted(world, node, of);
    match world.nodes[node].process() {
        Process::Down => begin(world, node, Work::Start(upstream), 50, 400),
        Process::Up(Some(Role::Replica)) if world.nodes[node].server.upstream != upstream => {
            begin(world, node, Work::Point(upstream), 5, 40);
        }
        _ => {}
    }
}

/// Another copy of the data: what the old one acknowledged is forgotten from here on.
fn again(world: &mut World, node: usize, of: usize, work: Work) {
    if world.nodes[node].process() != Process::Down {
        begin(world, node, Work::Fence, 20, 100);
        return;
    }
    if primary(world, node) != Some(of) {
        return;
    }
    let copy = Incarnation(world.next_id());
    let ledger = &mut world.nodes[node].ledger;
    ledger.unfinished = true;
    ledger.incarnation = Some(copy);
    world.nodes[node].mind.promise = None;
    begin(world, node, work, 200, 900);
}

fn rise(world: &mut World, node: usize, epoch: Epoch, origin: Origin, timeline: Option<Timeline>) {
    let up = world.nodes[node].process() == Process::Up(Some(Role::Replica));
    let here = &mut world.nodes[node];
    here.ledger.used = epoch;
    if here.guard == Health::Dead {
        return;
    }
    here.armed = Some((epoch, here.mind.lease.1));
    here.mind.running = Some(epoch);
    here.mind.risen = None;
    here.mind.named = None;
    world.say(|| format!("n{node} becomes primary of epoch {epoch} ({origin:?})"));
    match (origin, up, timeline) {
        (Origin::Promotion, true, Some(timeline)) => {
            rename(world, node);
            let run = world.nodes[node].server.run;
            let slow = if world.dice.chance(50) { 3_000 } else { 250 };
            let ms = world.dice.between(30, slow);
            world.after(ms, Event::Promoted(node, run, epoch, timeline.0));
            begin(world, node, Work::Promote(epoch, timeline.0), ms, ms + 60);
        }
        (Origin::Restart, false, _) => begin(world, node, Work::Restart(epoch), 80, 500),
        (Origin::Bootstrap, false, _) => begin(world, node, Work::Bootstrap(epoch), 200, 600),
        _ => begin(world, node, Work::Fence, 20, 100),
    }
}

/// The names that are agreed, as PostgreSQL is to read them.
fn names(plan: &Plan, world: &World, node: usize) -> Option<Names> {
    let sync = &world.nodes[node].mind.state.sync;
    if !sync.is_on() {
        return None;
    }
    let own = sync.current().filter(|quorum| quorum.primary == name(node));
    let nobody = Names {
        members: std::collections::BTreeSet::new(),
        count: usize::MAX,
    };
    let mut names = own.map_or(nobody, |quorum| Names {
        members: quorum.members.keys().map(index).collect(),
        count: quorum.count as usize,
    });
    if plan.has(Flaw::NamesBeforeTheRecord) && names.count > 0 && names.count < usize::MAX {
        // It goes on with whoever streams, before that is agreed.
        let there: std::collections::BTreeSet<usize> = world.nodes[node]
            .server
            .senders
            .iter()
            .map(|sender| sender.to)
            .collect();
        if !there.is_empty() {
            names.members = there;
            names.count = 1;
        }
    }
    Some(names)
}

fn rename(world: &mut World, node: usize) {
    let names = names(&world.plan.clone(), world, node);
    let at = world.now + world.dice.between(0, 60);
    let ids = world.nodes[node].server.rename(names, at);
    world.tell(node, &ids);
    let serial = world.nodes[node].mind.state.sync.serial;
    world.nodes[node].mind.named = Some(serial);
}

fn serve(world: &mut World, node: usize, epoch: Epoch, now: Moment) {
    if world.nodes[node].mind.risen != Some(epoch) {
        adopt(world, node, epoch, now);
        return;
    }
    let mind = &world.nodes[node].mind;
    let (serial, is_on) = (mind.state.sync.serial, mind.state.sync.is_on());
    let eager = world.plan.has(Flaw::NamesBeforeTheRecord);
    if is_on && (mind.named != Some(serial) || eager) {
        if eager {
            rename(world, node);
        } else {
            begin(world, node, Work::Rename(serial), 5, 40);
            return;
        }
    }
    if !is_on && world.plan.mode == matriarch::cluster::SyncMode::Off
        || world.nodes[node].mind.barrier == Some(epoch)
    {
        world.open_gate(node, epoch);
    }
    if is_on {
        prove(world, node, epoch);
    }
}

fn adopt(world: &mut World, node: usize, epoch: Epoch, _: Moment) {
    let here = &mut world.nodes[node];
    let reserved = here
        .mind
        .state
        .primacy
        .origin()
        .and_then(|(_, timeline)| timeline);
    let found = here.server.copy.as_ref().map(|copy| Timeline(copy.timeline));
    if here.server.is_writable() && !here.ledger.unfinished && (reserved.is_none() || reserved == found) {
        here.mind.risen = Some(epoch);
        here.mind.named = None;
    } else {
        begin(world, node, Work::Fence, 20, 100);
    }
}

/// Streams of dropped members end, then a record of its own is flushed by enough of the others.
fn prove(world: &mut World, node: usize, epoch: Epoch) {
    let state = &world.nodes[node].mind.state;
    let of = Synced {
        epoch,
        serial: state.sync.serial,
    };
    let Some(quorum) = state
        .sync
        .current()
        .filter(|quorum| quorum.primary == name(node))
        .cloned()
    else {
        return;
    };
    if quorum.is_blocked() || world.nodes[node].mind.synced == Some(of) {
        return;
    }
    let older: Vec<_> = state
        .sync
        .quorums
        .iter()
        .filter(|held| **held != quorum)
        .cloned()
        .collect();
    let ended = |to: usize| {
        let counted = older.iter().any(|held| held.members.contains_key(&name(to)));
        let fewer = older
            .iter()
            .any(|held| held.count < quorum.count && held.members.contains_key(&name(to)));
        counted && !quorum.members.contains_key(&name(to)) || fewer
    };
    let skipped = world.plan.has(Flaw::BarrierIsSkipped) || world.plan.has(Flaw::SettledWithoutProof);
    let proof = world.nodes[node].mind.proof.filter(|proof| proof.of == of);
    let mark = match proof.and_then(|proof| proof.mark) {
        Some(mark) => mark,
        None => {
            world.nodes[node]
                .server
                .senders
                .retain(|sender| !ended(sender.to));
            let mark = world.write(node);
            world.nodes[node].mind.proof = Some(Proof { of, mark: Some(mark) });
            mark
        }
    };
    let members: Vec<usize> = quorum.members.keys().map(index).collect();
    let have = world.nodes[node]
        .server
        .senders
        .iter()
        .filter(|sender| sender.plain && members.contains(&sender.to) && sender.flushed >= mark)
        .count();
    if have >= quorum.count as usize || skipped {
        world.say(|| format!("n{node} proves change {} of epoch {epoch}", of.serial));
        world.nodes[node].mind.synced = Some(of);
        world.nodes[node].mind.barrier = Some(epoch);
        world.nodes[node].mind.proof = None;
        world.open_gate(node, epoch);
    }
}

/// Draws the consequences of work whose time has come.
fn finish(world: &mut World, node: usize, now: Moment) {
    let Some((work, done_at)) = world.nodes[node].mind.work.clone() else {
        return;
    };
    if world.now < done_at {
        return;
    }
    world.nodes[node].mind.work = None;
    match work {
        Work::ReadEnd => {
            let end = world.nodes[node].server.copy.as_ref().map(Copy::end);
            world.nodes[node].mind.set_end(end, now);
        }
        Work::Bootstrap(epoch) => {
            let incarnation = Incarnation(world.next_id());
            let here = &mut world.nodes[node];
            here.server.copy = Some(Copy {
                timeline: 1,
                ..Copy::default()
            });
            here.ledger.incarnation = Some(incarnation);
            here.mind.data = Data::Unknown;
            start(world, node, epoch);
        }
        Work::Restart(epoch) => start(world, node, epoch),
        Work::Promote(epoch, timeline) => risen(world, node, epoch, timeline, now),
        Work::Start(upstream) => {
            let here = &mut world.nodes[node];
            here.server.start(None);
            here.server.upstream = upstream;
            here.armed = None;
            rename(world, node);
        }
        Work::Point(upstream) => {
            let server = &mut world.nodes[node].server;
            server.receiver = None;
            server.upstream = upstream;
            rename(world, node);
        }
        Work::Rename(serial) => {
            if world.nodes[node].mind.state.sync.serial == serial {
                rename(world, node);
            }
        }
        Work::Promise(epoch) => promise(world, node, epoch),
        Work::Fence => {
            let here = &mut world.nodes[node];
            here.server.end(None);
            here.armed = None;
            here.mind.set_end(None, now);
        }
        Work::Clone(of) | Work::Rewind(of) => copied(world, node, of, &work),
    }
}

fn start(world: &mut World, node: usize, epoch: Epoch) {
    // The guard starts no primary without a deadline that stands.
    let stands = world.nodes[node].armed.is_some_and(|(of, _)| of == epoch);
    if world.nodes[node].mind.running != Some(epoch) || !stands && !world.plan.has(Flaw::NoGuard) {
        return;
    }
    world.nodes[node].server.start(Some(epoch));
    rename(world, node);
    world.judge.begins(epoch, node);
    world.nodes[node].mind.risen = Some(epoch);
}

fn risen(world: &mut World, node: usize, epoch: Epoch, timeline: u32, now: Moment) {
    let here = &mut world.nodes[node];
    let on = here.server.copy.as_ref().map(|copy| copy.timeline);
    let collide = world.plan.has(Flaw::TimelinesCollide) || world.plan.has(Flaw::RewindIsSkipped);
    let same = on == Some(timeline) || collide;
    if here.server.primary == Some(epoch) && here.server.life == Life::Up && same {
        here.mind.risen = Some(epoch);
        return;
    }
    here.server.end(None);
    here.mind.spared_until = now.plus(SPARED_MS);
    here.mind.data = Data::Unknown;
}

fn promise(world: &mut World, node: usize, epoch: Epoch) {
    let replayed = world.plan.has(Flaw::ReplayPositionReported);
    let here = &mut world.nodes[node];
    here.server.receiver = None;
    here.server.upstream = None;
    let Some(copy) = here.server.copy.as_ref() else {
        return;
    };
    let mut end = copy.end();
    if replayed {
        end = WalEnd {
            lsn: super::server::lsn(copy.replayed.min(copy.log.len())),
            ..end
        };
    }
    if here.ledger.promised == epoch {
        here.mind.promise = Some(Promise { epoch, end });
        world.say(|| {
            format!(
                "n{node} promises epoch {epoch}, its log ends at {} records",
                records(end.lsn)
            )
        });
    }
}

fn copied(world: &mut World, node: usize, of: usize, work: &Work) {
    let there = world.carries(node, of) && world.carries(of, node) && world.nodes[of].server.is_writable();
    let source = world.nodes[of]
        .server
        .copy
        .clone()
        .filter(|_| there && world.nodes[of].serves());
    let here = &mut world.nodes[node];
    here.mind.data = Data::Unknown;
    let Some(mut source) = source else { return };
    if matches!(work, Work::Rewind(_))
        && let Some(own) = &here.server.copy
    {
        let common = own
            .log
            .iter()
            .zip(&source.log)
            .take_while(|(a, b)| a == b)
            .count();
        source.log.truncate(common);
        source.timeline = source.log.last().map_or(own.timeline, |record| record.timeline);
        let timeline = source.timeline;
        source.forks.retain(|(number, ..)| *number <= timeline);
    }
    source.replayed = source.log.len() / 2;
    here.server.copy = Some(source);
    here.ledger.unfinished = false;
    here.ledger.reached = None;
}
