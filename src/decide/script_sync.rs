//! The words of the scripts that speak of synchronous replication.

use super::script::World;
use super::script_words::{number, wal_end};
use crate::cluster::{Epoch, MemberName, Primacy, Promise, Quorum, Report, SyncMode, Synced};

/// `sync: mode=quorum quorum=1/b,c fencing=2`.
pub(super) fn tell(world: &mut World, key: &str, value: &str) {
    let settings = &mut world.settings;
    match key {
        "mode" => {
            settings.synchronous_mode = match value {
                "off" => SyncMode::Off,
                "on" => SyncMode::On,
                _ => SyncMode::Quorum,
            }
        }
        "strict" => settings.synchronous_mode_strict = true,
        "nodes" => settings.synchronous_node_count = u32::try_from(number(value)).unwrap(),
        "timeout" => settings.synchronous_standby_timeout_ms = number(value),
        "lag" => settings.maximum_lag_on_syncnode = Some(number(value)),
        "commit" => {
            let parameters = &mut settings.postgresql.parameters;
            parameters.insert("synchronous_commit".to_owned(), value.to_owned());
        }
        "fence_after" => settings.fence_after_ms = number(value),
        "quorum" => push(world, value),
        "priority" => {
            let (name, priority) = value.split_once('/').unwrap();
            let member = world.state.members.get_mut(&MemberName::from(name)).unwrap();
            member.info.tags.sync_priority = priority.parse().unwrap();
            world.heard.get_mut(&MemberName::from(name)).unwrap().report.info = member.info.clone();
        }
        "fencing" => fence(world, Epoch(number(value))),
        _ => panic!("sync: {key}"),
    }
}

/// `1/b,c`, or `0/` for the primary alone; the copies are those that are agreed.
fn push(world: &mut World, text: &str) {
    let (count, members) = text.split_once('/').unwrap();
    let state = &mut world.state;
    let (primary, _) = state.primacy.last().unwrap();
    let copy = |name: &MemberName| state.members[name].info.incarnation;
    let named = members
        .split(',')
        .filter(|name| !name.is_empty())
        .map(MemberName::from);
    let quorum = Quorum {
        primary: primary.clone(),
        copy: copy(primary),
        members: named.map(|name| (name.clone(), copy(&name).unwrap())).collect(),
        count: u32::try_from(number(count)).unwrap(),
    };
    state.sync.quorums.push(quorum);
    state.sync.serial += 1;
}

fn fence(world: &mut World, epoch: Epoch) {
    let Primacy::Held {
        member,
        epoch: last,
        origin,
        timeline,
    } = world.state.primacy.clone()
    else {
        panic!("nobody holds primacy");
    };
    world.state.primacy = Primacy::Fencing {
        member,
        last,
        epoch,
        origin,
        timeline,
    };
    world.state.epoch = epoch;
    world.held_since = world.now;
    world.last_grant = None;
}

/// `promised=2/1@0/5000100`, `synced=1/3`.
pub(super) fn said(report: &mut Report, key: &str, value: &str) {
    let (epoch, rest) = value.split_once('/').unwrap();
    let epoch = Epoch(number(epoch));
    match key {
        "promised" => {
            let end = wal_end(rest);
            report.promise = Some(Promise { epoch, end });
        }
        _ => {
            let serial = number(rest);
            report.synced = Some(Synced { epoch, serial });
        }
    }
}
