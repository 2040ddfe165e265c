//! The health probes: which path is answered with 200 and which with 503.

use super::query::Query;
use super::view::View;
use crate::cluster::{Facts, Moment, PostgresState, Role, SyncMode};
use axum::http::StatusCode;
use serde_json::Value;

/// The status of a health probe. `path` without the query; total, whatever is asked.
///
/// Keywords are looked for anywhere in the path and in this order, so `/healthz` and `/primary/` work;
/// only the synchronous family is compared whole.
pub fn health(path: &str, query: &Query, facts: &Facts, now: Moment) -> StatusCode {
    let probe = Probe {
        query,
        facts,
        view: View { facts, now },
        now,
    };
    let has = |word: &str| path.contains(word);
    let ok = if has("standby_leader") || has("standby-leader") {
        false // There are no standby clusters yet.
    } else if has("leader") {
        facts.has_lease(now)
    } else if path == "/" || has("master") || has("primary") || has("read-write") {
        probe.is_primary()
    } else if has("replica") {
        probe.is_replica() && probe.tags_match()
    } else if has("read-only") && !has("sync") && !has("quorum") {
        (probe.is_primary() || probe.is_replica()) && probe.tags_match()
    } else if has("health") {
        probe.is_running() && probe.tags_match()
    } else {
        facts.is_fresh(now) && probe.tags_match() && probe.is_in_family(path)
    };
    status(ok)
}

/// Whether the node loop is alive: it ran within one ttl of its plan on a primary, two elsewhere.
pub fn liveness(facts: &Facts, now: Moment) -> StatusCode {
    let postgres = facts.report.postgres.as_ref();
    let primary = postgres.is_some_and(|p| p.role == Role::Primary && p.state == PostgresState::Running);
    let ttls = if primary { 1 } else { 2 };
    // Unlike the old loop of ten seconds ours runs several times a second; below a second a busy machine
    // must not look dead.
    let patience_ms = facts.settings.ttl_ms.max(1_000).saturating_mul(ttls);
    if facts.state.pause.is_on() {
        return StatusCode::OK;
    }
    status(now.since(facts.loop_at) < patience_ms.saturating_add(facts.settings.report_interval_ms))
}

/// Whether traffic may be sent here: the leaseholder, or a standby that streams and is not too far behind.
pub fn readiness(query: &Query, facts: &Facts, now: Moment) -> StatusCode {
    if facts.has_lease(now) {
        return StatusCode::OK;
    }
    let probe = Probe {
        query,
        facts,
        view: View { facts, now },
        now,
    };
    let Some(postgres) = facts.report.postgres.as_ref() else {
        return status(false);
    };
    let known = facts.is_fresh(now) || facts.latest_end.is_some();
    let at = if query.get("mode") == Some("write") {
        postgres.received
    } else {
        postgres.replayed
    };
    let limit = query
        .lag()
        .unwrap_or_else(|| i64::try_from(facts.settings.maximum_lag_on_failover).unwrap_or(i64::MAX));
    let near = !probe.is_behind(at.map(|lsn| lsn.0), limit);
    let streams = postgres.replication_state.as_deref() == Some("streaming");
    status(probe.is_running() && postgres.role == Role::Replica && streams && known && near)
}

fn status(ok: bool) -> StatusCode {
    if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

struct Probe<'a> {
    query: &'a Query,
    facts: &'a Facts,
    view: View<'a>,
    now: Moment,
}

impl Probe<'_> {
    /// A load balancer must not be sent to a server that refuses: the lease alone is not enough.
    fn is_primary(&self) -> bool {
        self.facts.has_lease(self.now) && self.facts.gate_open
    }

    fn is_running(&self) -> bool {
        self.facts
            .report
            .postgres
            .as_ref()
            .is_some_and(|p| p.state == PostgresState::Running)
    }

    fn is_replica(&self) -> bool {
        let Some(postgres) = self.facts.report.postgres.as_ref() else {
            return false;
        };
        let tags = self.view.my_tags();
        self.is_running()
            && postgres.role == Role::Replica
            && !tags.is_some_and(|t| t.noloadbalance)
            && !self
                .query
                .lag()
                .is_some_and(|limit| self.is_behind(postgres.replayed.map(|l| l.0), limit))
            && self.replication_state_matches(postgres.replication_state.as_deref())
    }

    /// A word that is no replication state asks for nothing, as an unreadable `lag=` does.
    fn replication_state_matches(&self, actual: Option<&str>) -> bool {
        match self.query.get("replication_state") {
            Some(asked @ ("streaming" | "in archive recovery")) => actual == Some(asked),
            _ => true,
        }
    }

    /// Whether position `at` is more than `limit` bytes behind the primary, as far as that is known.
    fn is_behind(&self, at: Option<u64>, limit: i64) -> bool {
        let primary = self
            .view
            .primary_location()
            .max(self.facts.latest_end)
            .map_or(0, |lsn| lsn.0);
        primary > 0 && i128::from(primary) > i128::from(at.unwrap_or(0)) + i128::from(limit)
    }

    fn is_in_family(&self, path: &str) -> bool {
        let acknowledges = |mode: SyncMode| self.is_replica() && self.view.i_acknowledge() == mode;
        match path {
            "/sync" | "/synchronous" => acknowledges(SyncMode::On),
            "/quorum" => acknowledges(SyncMode::Quorum),
            "/async" | "/asynchronous" => acknowledges(SyncMode::Off),
            "/read-only-sync" | "/read-only-synchronous" => self.is_primary() || acknowledges(SyncMode::On),
            "/read-only-quorum" => self.is_primary() || acknowledges(SyncMode::Quorum),
            _ => false,
        }
    }

    fn tags_match(&self) -> bool {
        let mut asked = self.query.tags().peekable();
        if asked.peek().is_none() {
            return true;
        }
        let mine = self
            .view
            .my_tags()
            .and_then(|t| serde_json::from_str::<Value>(&t.shown).ok());
        asked.all(|(tag, value)| match mine.as_ref().and_then(|all| all.get(tag)) {
            Some(Value::String(text)) => text == value,
            Some(other) => other.to_string().to_lowercase() == value,
            None => false,
        })
    }
}
