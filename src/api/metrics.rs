//! `GET /metrics`: the names dashboards already know, then ours (`metrics_ours.rs`).

use super::metrics_ours::our_metrics;
use super::view::View;
use crate::cluster::{Facts, Lsn, Moment, PostgresReport, PostgresState, Role, SyncMode};
use std::fmt::{Display, Write};

/// The contract's version, two digits for each part.
const CONTRACT_NUMBER: &str = "040104";

/// What the numbers of `patroni_postgres_state` stand for.
const STATES: &str = "# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, \
4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, \
10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed\n";

/// The whole text.
pub fn metrics_text(facts: &Facts, now: Moment) -> String {
    let labels = format!(
        "{{scope=\"{}\",name=\"{}\"}}",
        quoted(&facts.scope),
        quoted(facts.me.as_str())
    );
    let mut page = Page {
        text: String::with_capacity(8_192),
        labels,
    };
    let nothing = PostgresReport {
        state: PostgresState::Unknown,
        ..PostgresReport::default()
    };
    let postgres = facts.report.postgres.as_ref().unwrap_or(&nothing);
    page.gauge(
        "patroni_version",
        "Patroni semver without periods.",
        CONTRACT_NUMBER,
    );
    postgres_metrics(&mut page, facts, postgres, now);
    cluster_metrics(&mut page, facts, postgres, now);
    our_metrics(&mut page, facts, now);
    page.text
}

fn postgres_metrics(page: &mut Page, facts: &Facts, postgres: &PostgresReport, now: Moment) {
    let view = View { facts, now };
    let running = postgres.state == PostgresState::Running;
    let (primary, replica) = (view.runs_as(Role::Primary), view.runs_as(Role::Replica));
    let place = |is: bool, lsn: Option<Lsn>| lsn.filter(|_| is).map_or(0, |lsn| lsn.0);
    let started = seconds(postgres.postmaster_start_time.as_deref().filter(|_| running));
    let replayed_at = seconds(postgres.replayed_timestamp.as_deref().filter(|_| replica));
    page.flag(
        "patroni_postgres_running",
        "Value is 1 if Postgres is running, 0 otherwise.",
        running,
    );
    page.gauge(
        "patroni_postmaster_start_time",
        "Epoch seconds since Postgres started.",
        started,
    );
    page.flag(
        "patroni_primary",
        "Value is 1 if this node is the leader, 0 otherwise.",
        postgres.role == Role::Primary,
    );
    page.counter(
        "patroni_xlog_location",
        "Current location of the Postgres transaction log, 0 if this node is not the leader.",
        place(primary, postgres.location),
    );
    page.flag(
        "patroni_standby_leader",
        "Value is 1 if this node is the standby_leader, 0 otherwise.",
        false,
    );
    page.flag(
        "patroni_replica",
        "Value is 1 if this node is a replica, 0 otherwise.",
        postgres.role == Role::Replica,
    );
    page.flag(
        "patroni_sync_standby",
        "Value is 1 if this node is a sync standby, 0 otherwise.",
        view.i_acknowledge() == SyncMode::On,
    );
    page.flag(
        "patroni_quorum_standby",
        "Value is 1 if this node is a quorum standby, 0 otherwise.",
        view.i_acknowledge() == SyncMode::Quorum,
    );
    page.counter(
        "patroni_xlog_received_location",
        "Current location of the received Postgres transaction log, 0 if this node is not a replica.",
        place(replica, postgres.received.or(postgres.replayed)),
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.",
        place(replica, postgres.replayed),
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Current timestamp of the replayed Postgres transaction log, 0 if null.",
        replayed_at,
    );
    page.flag(
        "patroni_xlog_paused",
        "Value is 1 if the Postgres xlog is paused, 0 otherwise.",
        replica && postgres.replay_paused,
    );
}

fn cluster_metrics(page: &mut Page, facts: &Facts, postgres: &PostgresReport, now: Moment) {
    let running = postgres.state == PostgresState::Running;
    if running {
        let state = postgres.replication_state.as_deref();
        page.flag(
            "patroni_postgres_streaming",
            "Value is 1 if Postgres is streaming, 0 otherwise.",
            state == Some("streaming"),
        );
        page.flag(
            "patroni_postgres_in_archive_recovery",
            "Value is 1 if Postgres is replicating from archive, 0 otherwise.",
            state == Some("in archive recovery"),
        );
    }
    page.gauge(
        "patroni_postgres_server_version",
        "Version of Postgres (if running), 0 otherwise.",
        if running { postgres.server_version } else { 0 },
    );
    page.flag(
        "patroni_cluster_unlocked",
        "Value is 1 if the cluster is unlocked, 0 if locked.",
        View { facts, now }.is_unlocked(),
    );
    page.flag(
        "patroni_failsafe_mode_is_active",
        "Value is 1 if failsafe mode is active, 0 if inactive.",
        false,
    );
    page.gauge(
        "patroni_postgres_timeline",
        "Postgres timeline of this node (if running), 0 otherwise.",
        postgres
            .timeline
            .filter(|_| running)
            .map_or(0, |timeline| timeline.0),
    );
    page.gauge(
        "patroni_dcs_last_seen",
        "Epoch timestamp when DCS was last contacted successfully by Patroni.",
        facts.last_seen_s,
    );
    page.flag(
        "patroni_pending_restart",
        "Value is 1 if the node needs a restart, 0 otherwise.",
        !postgres.pending_restart.is_empty(),
    );
    page.flag(
        "patroni_is_paused",
        "Value is 1 if auto failover is disabled, 0 otherwise.",
        facts.state.pause.is_on(),
    );
    let number = match postgres.state {
        PostgresState::Unknown => -1,
        state => state as i32,
    };
    page.metric(
        "patroni_postgres_state",
        "Numeric representation of Postgres state.",
        STATES,
        "gauge",
        &number,
    );
}

/// Milliseconds shown as seconds.
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// A time stamp such as `2026-11-21 02:41:13.370277+00:00` in seconds since 1970.
fn seconds(text: Option<&str>) -> String {
    match text.and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
        Some(time) => format!("{:?}", time.as_microsecond() as f64 / 1e6),
        None => "0".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The text as it grows; every metric carries the same two labels first.
pub(super) struct Page {
    text: String,
    labels: String,
}

impl Page {
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, help, "", "gauge", &value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, help, "", "counter", &value);
    }

    pub(super) fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.metric(name, help, "", "gauge", &u8::from(value));
    }

    /// One metric with a value for each value of one more label.
    pub(super) fn family<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        label: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) {
        let labels = self.labels.trim_end_matches('}').to_owned();
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (of, value) in values {
            let _ = writeln!(self.text, "{name}{labels},{label}=\"{}\"}} {value}", quoted(&of));
        }
    }

    fn metric(&mut self, name: &str, help: &str, extra: &str, kind: &str, value: &dyn Display) {
        let labels = &self.labels;
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "# HELP {name} {help}\n{extra}# TYPE {name} {kind}\n{name}{labels} {value}\n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(
            seconds(Some("2026-11-21 02:41:13.370277+00:00")),
            "1795228873.370277"
        );
        assert_eq!(seconds(Some("2026-11-21 02:41:13+00:00")), "1795228873.0");
        assert_eq!(seconds(Some("nonsense")), "0");
        assert_eq!(Seconds(1_734).to_string(), "1.734");
    }
}
