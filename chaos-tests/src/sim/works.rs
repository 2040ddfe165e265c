//! What the daemon's pieces of work come to when their time has come, and the proof that runs beside them.

use super::Flaw;
use super::agent::rename;
use super::node::{Proof, Work, index, name};
use super::server::{Copy, Life, records};
use super::world::World;
use matriarch::cluster::{Epoch, Incarnation, Moment, Promise, Synced, WalEnd};
use matriarch::decide::duty::Data;

const SPARED_MS: u64 = 5_000;

/// Streams of dropped members end, then a record of its own is flushed by enough of the others.
pub(super) fn prove(world: &mut World, node: usize, epoch: Epoch) {
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
pub(super) fn finish(world: &mut World, node: usize, now: Moment) {
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
