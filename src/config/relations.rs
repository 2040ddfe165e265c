//! Rules between keys: timings that must fit into each other, directories, addresses, the number of voters.

use super::model::{Config, RaftConfig, VipRole};
use super::reader::Reader;
use super::settings::STOP_MARGIN_MS;
use super::units;
use crate::cluster::{Settings, SyncMode};

/// Beyond the lease: what an operator should reckon with until a lost node's successor accepts writes.
const TAKE_OVER_MS: u64 = 300;

/// The lease must be longer than this: a leader lost on the way, a report and an orderly stop fit into it.
pub fn ttl_floor_ms(raft: &RaftConfig, settings: &Settings) -> u64 {
    STOP_MARGIN_MS + 3 * raft.election_max_ms + settings.report_interval_ms
}

/// Says what is wrong with a lease on this node's timings.
pub fn check_ttl(raft: &RaftConfig, settings: &Settings) -> Result<(), String> {
    let floor = ttl_floor_ms(raft, settings);
    if settings.ttl_ms > floor {
        return Ok(());
    }
    Err(format!(
        "{} is too short: with election_max {} and report_interval {} it must be more than {}",
        units::show_ms(settings.ttl_ms),
        units::show_ms(raft.election_max_ms),
        units::show_ms(settings.report_interval_ms),
        units::show_ms(floor)
    ))
}

/// What the operator may want to know of a valid configuration.
pub fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let ttl_ms = config.bootstrap.settings.ttl_ms;
    let best = Settings::default().ttl_ms;
    if config.bootstrap.allow && ttl_ms > best {
        notes.push(format!(
            "ttl is {}: node lost: up to {} without a primary; with `ttl: {}` under bootstrap.dcs it is {}",
            units::show_ms(ttl_ms),
            units::show_ms(ttl_ms + TAKE_OVER_MS),
            best / 1_000,
            units::show_ms(best + TAKE_OVER_MS),
        ));
    }
    notes.extend(synchronous_note(config).filter(|_| config.bootstrap.allow));
    notes.extend(deaf_address(config));
    notes
}

/// A virtual address at which nobody listens.
fn deaf_address(config: &Config) -> Option<String> {
    let vip = config.vip.as_ref()?;
    let everywhere = ["*", "0.0.0.0", "::"];
    if vip.role == VipRole::Proxy {
        let (host, port) = units::address(&config.proxy.as_ref()?.rw, None).ok()?;
        let heard = units::is_wildcard(&host) || host.parse() == Ok(vip.address);
        return (!heard).then(|| {
            format!(
                "vip.address: nobody answers at {}: the proxy listens on {host} only; write proxy.listen: 0.0.0.0 and \
                 proxy.rw: {port}",
                vip.address
            )
        });
    }
    let postgresql = config.postgresql.as_ref()?;
    let heard = postgresql
        .listen
        .addresses
        .split(',')
        .map(str::trim)
        .any(|address| everywhere.contains(&address) || address.parse() == Ok(vip.address));
    (!heard).then(|| {
        format!(
            "vip.address: nobody answers at {}: PostgreSQL listens on {} only; write postgresql.listen: 0.0.0.0:{}",
            vip.address, postgresql.listen.addresses, postgresql.listen.port
        )
    })
}

/// What a loss costs and spares in a synchronous mode.
fn synchronous_note(config: &Config) -> Option<String> {
    let settings = &config.bootstrap.settings;
    let wanted = settings.synchronous_node_count;
    let standbys = if wanted == 1 { "standby" } else { "standbys" };
    let who = match settings.synchronous_mode {
        SyncMode::Off => return None,
        SyncMode::On => format!("each of {wanted} chosen {standbys} has"),
        SyncMode::Quorum => format!("any {wanted} of the standbys have"),
    };
    let alone = if settings.synchronous_mode_strict {
        "without one nothing is acknowledged"
    } else {
        "without one the primary acknowledges alone"
    };
    let silence = match settings.fence_after_ms {
        0 => "the end of its lease".to_owned(),
        ms => format!("{} of silence", units::show_ms(ms)),
    };
    Some(format!(
        "a commit is acknowledged once {who} it on disk; {alone}; a lost primary is replaced after {silence}"
    ))
}

pub(crate) fn check(reader: &mut Reader, config: &Config) {
    raft_timings(reader, &config.raft);
    if let Err(message) = check_ttl(&config.raft, &config.bootstrap.settings) {
        let key = if reader.has("bootstrap.dcs.ttl") {
            "bootstrap.dcs.ttl"
        } else {
            "raft.election_max"
        };
        let prefix = if key == "raft.election_max" { "ttl " } else { "" };
        reader.problem(key, format!("{prefix}{message}"));
    }
    directories(reader, config);
    voters(reader, &config.raft);
    enough_standbys(reader, config);
    portless(reader, config);
    secrecy(reader, &config.raft);
}

fn raft_timings(reader: &mut Reader, raft: &RaftConfig) {
    let (beat, least, most) = (
        raft.heartbeat_interval_ms,
        raft.election_min_ms,
        raft.election_max_ms,
    );
    if beat == 0 {
        reader.problem(
            "raft.heartbeat_interval",
            "must be more than nothing, such as 50ms",
        );
    }
    if beat * 3 >= least {
        let message = format!(
            "{} must be less than a third of election_min, which is {}",
            units::show_ms(beat),
            units::show_ms(least)
        );
        reader.problem("raft.heartbeat_interval", message);
    }
    if least >= most {
        let message = format!(
            "{} must be less than election_max, which is {}",
            units::show_ms(least),
            units::show_ms(most)
        );
        reader.problem("raft.election_min", message);
    }
}

fn directories(reader: &mut Reader, config: &Config) {
    let Some(postgresql) = &config.postgresql else {
        return;
    };
    let raft = &config.raft.data_dir;
    for (key, dir) in [
        ("postgresql.data_dir", &postgresql.data_dir),
        ("postgresql.config_dir", &postgresql.config_dir),
    ] {
        if key == "postgresql.config_dir" && postgresql.config_dir == postgresql.data_dir {
            continue;
        }
        if dir.starts_with(raft) {
            let message = format!(
                "{} lies inside raft.data_dir; give each its own directory",
                dir.display()
            );
            reader.problem(key, message);
        } else if raft.starts_with(dir) {
            let message = format!(
                "{} lies inside {key}; a clone would remove it; give each its own directory",
                raft.display()
            );
            reader.problem("raft.data_dir", message);
        }
    }
}

fn voters(reader: &mut Reader, raft: &RaftConfig) {
    let voters = raft.partner_addrs.len() + 1;
    if voters == 1 {
        reader.warn(
            "raft.partner_addrs",
            "names no other node: nothing can take over from this one",
        );
    } else if voters.is_multiple_of(2) {
        let message = format!(
            "makes {voters} voters, which survive no more failures than {}; add a node, or a witness (a file without the postgresql section)",
            voters - 1
        );
        reader.warn("raft.partner_addrs", message);
    }
}

/// More standbys are asked for than there can be.
fn enough_standbys(reader: &mut Reader, config: &Config) {
    let settings = &config.bootstrap.settings;
    let others = config.raft.partner_addrs.len();
    let wanted = settings.synchronous_node_count as usize;
    if settings.synchronous_mode != SyncMode::Off && others > 0 && wanted > others {
        let plural = if others == 1 { "" } else { "s" };
        let message = format!("{wanted} is more than the {others} other node{plural} of raft.partner_addrs");
        reader.warn("bootstrap.dcs.synchronous_node_count", message);
    }
}

/// What is usually said by raft.self_addr has to be said where there is none.
fn portless(reader: &mut Reader, config: &Config) {
    if !config.raft.self_addr.is_empty() {
        return;
    }
    let missing = "is missing; without raft.self_addr it has to be said where others reach this";
    if config.restapi.connect_address.starts_with(':') {
        reader.problem("restapi.connect_address", missing.to_owned());
    }
    let postgresql = config.postgresql.as_ref();
    if postgresql.is_some_and(|section| section.connect.host.is_empty()) {
        reader.problem("postgresql.connect_address", missing.to_owned());
    }
}

fn secrecy(reader: &mut Reader, raft: &RaftConfig) {
    if raft.password.is_some() || raft.cafile.is_some() {
        return;
    }
    let mut addresses: Vec<&String> = Vec::new();
    addresses.extend(Some(&raft.self_addr).filter(|text| !text.is_empty()));
    addresses.extend(&raft.bind_addr);
    addresses.extend(&raft.partner_addrs);
    let open = addresses
        .into_iter()
        .find(|text| units::address(text, None).is_ok_and(|(host, _)| !units::is_loopback(&host)));
    if let Some(address) = open {
        let message = format!(
            "is missing, and {address} can be reached from other machines; add the same long secret on every node, or certfile, keyfile and cafile"
        );
        reader.problem("raft.password", message);
    }
}
