//! The JSON documents: status, cluster, history and configuration, key by key in the order people know.

use super::view::View;
use super::wire::dumps;
use crate::cluster::{
    Facts, Lsn, Member, MemberName, Moment, PostgresReport, PostgresState, Promotion, Report, Role, SyncMode,
    WalSender,
};
use serde_json::{Map, Value, json};

/// The release whose contract this interface keeps.
pub const CONTRACT: &str = "4.1.4";

/// What a PostgreSQL-less voter says where others say state and role.
const WITNESS: &str = "witness";

/// The status document: body of every health probe and of `/patroni`. Absent keys mean false.
pub fn status_document(facts: &Facts, now: Moment) -> String {
    let view = View { facts, now };
    let mut doc = Map::new();
    match &facts.report.postgres {
        Some(postgres) => add_postgres(&mut doc, postgres, &facts.walsenders, view.i_acknowledge()),
        None => {
            doc.insert("state".into(), WITNESS.into());
            doc.insert("role".into(), WITNESS.into());
        }
    }
    if facts.state.pause.is_on() {
        doc.insert("pause".into(), true.into());
    }
    if view.is_unlocked() {
        doc.insert("cluster_unlocked".into(), true.into());
    }
    doc.insert("dcs_last_seen".into(), facts.last_seen_s.into());
    if let Some(tags) = view.my_tags().and_then(|tags| shown_tags(&tags.shown)) {
        doc.insert("tags".into(), tags);
    }
    if let Some(id) = facts
        .state
        .system_id
        .or_else(|| facts.report.postgres.as_ref()?.system_id)
    {
        doc.insert("database_system_identifier".into(), id.to_string().into());
    }
    if let Some(postgres) = &facts.report.postgres {
        add_pending_restart(&mut doc, postgres);
    }
    add_identity(&mut doc, &facts.scope, facts.me.as_str());
    add_scheduled_restart(&mut doc, &facts.report);
    if facts.vitals.guard.is_some_and(|guard| guard.barred) {
        doc.insert("watchdog_failed".into(), true.into());
    }
    doc.insert(
        "matriarch".into(),
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": facts.state.epoch.0,
            "revision": facts.state.revision.0,
            "raft_leader": facts.raft.leader.as_ref().map(MemberName::as_str),
        }),
    );
    dumps(&doc)
}

/// What is said before there is anything to say.
pub fn starting_document(scope: &str, name: &str) -> String {
    let mut doc = Map::new();
    doc.insert("state".into(), PostgresState::Starting.word().into());
    doc.insert("role".into(), Role::Uninitialized.word().into());
    doc.insert("cluster_unlocked".into(), true.into());
    add_identity(&mut doc, scope, name);
    doc.insert("matriarch".into(), json!({"version": env!("CARGO_PKG_VERSION")}));
    dumps(&doc)
}

fn add_identity(doc: &mut Map<String, Value>, scope: &str, name: &str) {
    let identity = json!({"version": CONTRACT, "scope": scope, "name": name});
    doc.insert("patroni".into(), identity);
}

fn add_postgres(
    doc: &mut Map<String, Value>,
    postgres: &PostgresReport,
    walsenders: &[WalSender],
    acknowledges: SyncMode,
) {
    doc.insert("state".into(), postgres.state.word().into());
    if postgres.state != PostgresState::Running {
        doc.insert("role".into(), postgres.role.word().into());
        return;
    }
    if let Some(start) = &postgres.postmaster_start_time {
        doc.insert("postmaster_start_time".into(), start.as_str().into());
    }
    doc.insert("role".into(), postgres.role.word().into());
    doc.insert("server_version".into(), postgres.server_version.into());
    let bytes = |lsn: Option<Lsn>| lsn.map_or(0, |lsn| lsn.0);
    let xlog = if postgres.role == Role::Replica {
        json!({
            "received_location": bytes(postgres.received.or(postgres.replayed)),
            "replayed_location": bytes(postgres.replayed),
            "replayed_timestamp": postgres.replayed_timestamp,
            "paused": postgres.replay_paused,
        })
    } else {
        json!({"location": bytes(postgres.location)})
    };
    doc.insert("xlog".into(), xlog);
    match acknowledges {
        SyncMode::Off => {}
        SyncMode::On => {
            doc.insert("sync_standby".into(), true.into());
        }
        SyncMode::Quorum => {
            doc.insert("quorum_standby".into(), true.into());
        }
    }
    if let Some(timeline) = postgres.timeline {
        doc.insert("timeline".into(), timeline.0.into());
    }
    if let Some(state) = &postgres.replication_state {
        doc.insert("replication_state".into(), state.as_str().into());
    }
    if !walsenders.is_empty() {
        doc.insert("replication".into(), walsenders.iter().map(walsender).collect());
    }
}

fn walsender(sender: &WalSender) -> Value {
    json!({
        "usename": sender.usename,
        "application_name": sender.application_name,
        "client_addr": sender.client_addr,
        "state": sender.state,
        "sync_state": sender.sync_state,
        "sync_priority": sender.sync_priority,
    })
}

fn add_pending_restart(doc: &mut Map<String, Value>, postgres: &PostgresReport) {
    if postgres.pending_restart.is_empty() {
        return;
    }
    doc.insert("pending_restart".into(), true.into());
    let reasons: Map<String, Value> = postgres
        .pending_restart
        .iter()
        .map(|(name, old, new)| (name.clone(), json!({"old_value": old, "new_value": new})))
        .collect();
    doc.insert("pending_restart_reason".into(), reasons.into());
}

fn add_scheduled_restart(doc: &mut Map<String, Value>, report: &Report) {
    let scheduled = report.scheduled_restart.as_deref();
    if let Some(scheduled) = scheduled.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        doc.insert("scheduled_restart".into(), scheduled);
    }
}

/// A member's tags as an object, when there are any.
pub(super) fn shown_tags(text: &str) -> Option<Value> {
    let tags: Value = serde_json::from_str(text).ok()?;
    tags.as_object()
        .is_some_and(|map| !map.is_empty())
        .then_some(tags)
}

/// `GET /cluster`: members with a fresh report, sorted by name. Witnesses hold no data and are not in it.
pub fn cluster_document(facts: &Facts, now: Moment) -> String {
    let view = View { facts, now };
    let holder = facts.state.primacy.held().map(|(name, _)| name);
    let primary = view.primary_location();
    let members: Vec<Value> = facts
        .state
        .members
        .iter()
        .filter_map(|(name, member)| {
            let role = match view.acknowledges(name) {
                _ if holder == Some(name) => "leader",
                SyncMode::Off => "replica",
                SyncMode::On => "sync_standby",
                SyncMode::Quorum => "quorum_standby",
            };
            cluster_member(member, view.fresh_report(name)?, role, primary)
        })
        .collect();
    let mut doc = Map::new();
    doc.insert("members".into(), members.into());
    if facts.state.pause.is_on() {
        doc.insert("pause".into(), true.into());
    }
    if let Some(scheduled) = scheduled_switchover(facts) {
        doc.insert("scheduled_switchover".into(), scheduled);
    }
    doc.insert("scope".into(), facts.scope.as_str().into());
    dumps(&doc)
}

fn scheduled_switchover(facts: &Facts) -> Option<Value> {
    let asked = facts
        .state
        .handover
        .as_ref()
        .filter(|asked| asked.under_way.is_none())?;
    let mut doc = Map::new();
    doc.insert("at".into(), asked.at.as_ref()?.iso.as_str().into());
    for (key, name) in [("from", &asked.from), ("to", &asked.to)] {
        if let Some(name) = name {
            doc.insert(key.into(), name.as_str().into());
        }
    }
    Some(doc.into())
}

fn cluster_member(member: &Member, report: &Report, role: &str, primary: Option<Lsn>) -> Option<Value> {
    let is_leader = role == "leader";
    let (endpoint, postgres) = (member.info.postgres.as_ref()?, report.postgres.as_ref()?);
    let running = postgres.state == PostgresState::Running;
    let replication = postgres
        .replication_state
        .as_deref()
        .filter(|_| running && !is_leader);
    let mut doc = Map::new();
    doc.insert("name".into(), member.info.name.as_str().into());
    doc.insert("role".into(), role.into());
    doc.insert(
        "state".into(),
        replication.unwrap_or(postgres.state.word()).into(),
    );
    doc.insert("api_url".into(), member.info.api_url.as_str().into());
    doc.insert("host".into(), endpoint.host.as_str().into());
    doc.insert("port".into(), endpoint.port.into());
    if let Some(pooler) = &member.info.pooler {
        // As Patroni publishes `postgresql.proxy_address` with its member.
        doc.insert("proxy_url".into(), format!("postgres://{pooler}/postgres").into());
    }
    if let Some(timeline) = postgres.timeline {
        doc.insert("timeline".into(), timeline.0.into());
    }
    add_pending_restart(&mut doc, postgres);
    add_scheduled_restart(&mut doc, report);
    if let Some(tags) = shown_tags(&member.info.tags.shown) {
        doc.insert("tags".into(), tags);
    }
    if let Some(why) = &report.unpromotable {
        // Ours, and only where something is wrong: what keeps the member from being promoted.
        doc.insert("trouble".into(), why.as_str().into());
    }
    if !is_leader {
        // A former primary that was not yet re-pointed knows its place as `location`.
        let received = postgres.received.max(postgres.replayed).or(postgres.location);
        add_position(&mut doc, "receive_", received, primary);
        add_position(&mut doc, "replay_", postgres.replayed, primary);
        add_position(&mut doc, "", received, primary);
    }
    Some(doc.into())
}

fn add_position(doc: &mut Map<String, Value>, prefix: &str, at: Option<Lsn>, primary: Option<Lsn>) {
    let lag = at.zip(primary).map(|(at, primary)| at.behind(primary));
    let unknown = || Value::from("unknown");
    doc.insert(format!("{prefix}lag"), lag.map_or_else(unknown, Value::from));
    doc.insert(
        format!("{prefix}lsn"),
        at.map_or_else(unknown, |lsn| lsn.to_string().into()),
    );
}

/// What PostgreSQL writes into a timeline's file at every promotion of ours, and so what scripts look for.
const PROMOTED: &str = "no recovery target specified";

/// `GET /history`: one row for each timeline that ended; behind PostgreSQL's own reason stands the rule that ended it.
pub fn history_document(facts: &Facts) -> String {
    dumps(&facts.state.timelines.iter().map(history_row).collect::<Vec<_>>())
}

fn history_row(promotion: &Promotion) -> Value {
    json!([
        promotion.parent.0,
        promotion.switch.0,
        format!("{PROMOTED} ({})", promotion.rule),
        iso_time(promotion.at_ms),
        promotion.member.as_str(),
    ])
}

/// Wall time for people, in ISO 8601 and UTC.
pub(super) fn iso_time(at_ms: u64) -> String {
    i64::try_from(at_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string())
        .unwrap_or_default()
}

/// `GET /config`: the dynamic configuration as it was typed; `None` before the cluster has one.
pub fn config_document(facts: &Facts) -> Option<String> {
    let value: Value = serde_json::from_str(&facts.state.config).ok()?;
    Some(dumps(&value))
}
