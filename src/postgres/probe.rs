//! What a running server says of itself.

use crate::cluster::{Lsn, Timeline, WalSender};
use tokio_postgres::Row;

/// One statement for primary and standby, on every version.
///
/// `CASE` keeps the functions that only work on one side of recovery from being called on the other. A standby without
/// a receiver knows its timeline only as of its last restart point.
pub(super) const SQL: &str = "
SELECT s.standby,
  CASE WHEN s.standby
    THEN coalesce(r.received_tli, (SELECT greatest(timeline_id, min_recovery_end_timeline)
      FROM pg_catalog.pg_control_checkpoint(), pg_catalog.pg_control_recovery()))::bigint
    ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
  END AS timeline,
  CASE WHEN NOT s.standby THEN pg_catalog.pg_current_wal_flush_lsn() END::text AS location,
  CASE WHEN s.standby THEN pg_catalog.pg_last_wal_receive_lsn() END::text AS received,
  CASE WHEN s.standby THEN pg_catalog.pg_last_wal_replay_lsn() END::text AS replayed,
  CASE WHEN s.standby THEN to_char(pg_catalog.pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC',
    'YYYY-MM-DD HH24:MI:SS.US') || '+00:00' END AS replayed_timestamp,
  CASE WHEN s.standby THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END AS replay_paused,
  r.status AS wal_receiver, r.latest_end_lsn::text AS latest_end, r.sender_host, r.sender_port,
  to_char(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00'
    AS start_time,
  pg_catalog.current_setting('server_version_num')::bigint AS server_version,
  (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_id,
  (SELECT coalesce(json_agg(json_build_array(usename, application_name, host(client_addr), state, sync_state,
      sync_priority, flush_lsn::text) ORDER BY application_name, pid), '[]')::text
    FROM pg_catalog.pg_stat_replication) AS walsenders,
  coalesce(pg_catalog.current_setting('restore_command', true), '') <> '' AS restores,
  pg_catalog.pg_conf_load_time()::text AS loaded
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) s
LEFT JOIN (SELECT * FROM pg_catalog.pg_stat_wal_receiver LIMIT 1) r ON true";

/// What waits for a restart; the value to come is looked up in the files only when there is something.
pub(super) const PENDING: &str = "
SELECT coalesce(json_agg(json_build_array(name, pg_catalog.current_setting(name), coalesce(
    (SELECT f.setting FROM pg_catalog.pg_file_settings f WHERE f.name = g.name ORDER BY f.seqno DESC LIMIT 1),
    g.boot_val)) ORDER BY name), '[]')::text AS pending_restart
FROM pg_catalog.pg_settings g WHERE pending_restart";

/// A setting that waits for a restart: name, value in force, value then.
pub(super) type Pending = (String, String, String);

/// The answer to a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// It is a standby.
    pub in_recovery: bool,
    /// Timeline written, or received.
    pub timeline: Option<Timeline>,
    /// Primary: end of the WAL that is on disk.
    pub location: Option<Lsn>,
    /// Standby: end of the WAL received and flushed since it started.
    pub received: Option<Lsn>,
    /// Standby: end of the WAL replayed.
    pub replayed: Option<Lsn>,
    /// Standby: commit time of the last replayed transaction.
    pub replayed_timestamp: Option<String>,
    /// Standby: replay is paused.
    pub replay_paused: bool,
    /// Standby: what its WAL receiver does, if there is one.
    pub wal_receiver: Option<String>,
    /// It has an archive to take log from.
    pub restores: bool,
    /// Standby: the primary's position as last heard.
    pub latest_end: Option<Lsn>,
    /// Standby: host it receives from.
    pub sender_host: Option<String>,
    /// Standby: port it receives from.
    pub sender_port: Option<i32>,
    /// When the postmaster started, as `2026-11-21 02:41:13.370277+00:00`.
    pub start_time: String,
    /// `server_version_num`.
    pub server_version: u32,
    /// Database system identifier.
    pub system_id: Option<u64>,
    /// Who receives from it.
    pub walsenders: Vec<WalSender>,
    /// Settings that wait for a restart: name, value in force, value then.
    pub pending_restart: Vec<(String, String, String)>,
}

type SenderRow = (
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i32>,
    Option<String>,
);

impl Probe {
    /// Whether it receives a stream.
    pub fn is_streaming(&self) -> bool {
        self.in_recovery && self.wal_receiver.as_deref() == Some("streaming")
    }

    pub(super) fn read(row: &Row, pending_restart: Vec<Pending>) -> Result<Self, tokio_postgres::Error> {
        let lsn = |name: &str| -> Result<Option<Lsn>, tokio_postgres::Error> {
            Ok(row
                .try_get::<_, Option<String>>(name)?
                .and_then(|text| text.parse().ok()))
        };
        // The server made this JSON itself a moment ago, in exactly these shapes.
        let senders: Vec<SenderRow> = serde_json::from_str(row.try_get("walsenders")?).unwrap_or_default();
        let number = |name: &str| row.try_get::<_, Option<i64>>(name);
        Ok(Self {
            in_recovery: row.try_get("standby")?,
            timeline: number("timeline")?
                .and_then(|number| u32::try_from(number).ok())
                .map(Timeline),
            location: lsn("location")?,
            received: lsn("received")?,
            replayed: lsn("replayed")?,
            replayed_timestamp: row.try_get("replayed_timestamp")?,
            replay_paused: row.try_get("replay_paused")?,
            wal_receiver: row.try_get("wal_receiver")?,
            restores: row.try_get("restores")?,
            latest_end: lsn("latest_end")?,
            sender_host: row.try_get("sender_host")?,
            sender_port: row.try_get("sender_port")?,
            start_time: row.try_get("start_time")?,
            server_version: number("server_version")?
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(0),
            system_id: number("system_id")?.map(i64::cast_unsigned),
            walsenders: senders.into_iter().map(sender).collect(),
            pending_restart,
        })
    }
}

pub(super) fn pending(row: &Row) -> Result<Vec<Pending>, tokio_postgres::Error> {
    let rows: Vec<(String, Option<String>, Option<String>)> =
        serde_json::from_str(row.try_get("pending_restart")?).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|(name, old, new)| (name, old.unwrap_or_default(), new.unwrap_or_default()))
        .collect())
}

fn sender(
    (usename, application_name, client_addr, state, sync_state, sync_priority, flushed): SenderRow,
) -> WalSender {
    WalSender {
        usename: usename.unwrap_or_default(),
        application_name: application_name.unwrap_or_default(),
        client_addr,
        state: state.unwrap_or_default(),
        sync_state: sync_state.unwrap_or_default(),
        sync_priority: sync_priority.unwrap_or(0),
        flushed: flushed.and_then(|text| text.parse().ok()),
    }
}
