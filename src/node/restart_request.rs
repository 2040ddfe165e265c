//! What `POST /restart` asks for: which conditions, at what time; read and refused in Patroni's words.

use crate::cluster::schedule::schedule;
use crate::cluster::{Done, PostgresReport, When};
use serde_json::{Map, Value};

/// A request that can be carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Request {
    /// Only if the server has this role.
    role: Option<String>,
    /// Only if the server that runs is older (`server_version_num`).
    older_than: Option<u32>,
    /// Only if something waits for a restart.
    pending: bool,
    /// How long the start may take, seconds.
    pub(super) timeout_s: Option<u64>,
    /// When; at once if absent.
    pub(super) when: Option<When>,
    /// The request as it is shown while it waits, JSON.
    pub(super) shown: String,
}

impl Request {
    /// Reads the body; the first thing that is wrong is the answer.
    pub(super) fn read(body: &Map<String, Value>, now_ms: u64) -> Result<Self, Done> {
        let mut request = Self::default();
        let mut shown = body.clone();
        for (key, value) in body {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match key.as_str() {
                "schedule" => {
                    let when = schedule(&text, "restart", now_ms)?;
                    shown.insert(key.clone(), when.iso.clone().into());
                    request.when = Some(when);
                }
                "role" if matches!(text.as_str(), "primary" | "standby_leader" | "replica") => {
                    request.role = Some(text);
                }
                "role" => {
                    let why = "PostgreSQL role should be either primary, standby_leader, or replica";
                    return Err(Done::text(400, why));
                }
                "postgres_version" => request.older_than = Some(version(&text)?),
                "timeout" => {
                    let seconds = crate::config::seconds(&text).filter(|seconds| *seconds > 0);
                    let why = "Timeout should be a positive number of seconds";
                    request.timeout_s = Some(seconds.ok_or_else(|| Done::text(400, why))?);
                }
                "restart_pending" => request.pending = true,
                other => {
                    let why = format!("Unknown filter for the scheduled restart: {other}");
                    return Err(Done::text(400, why));
                }
            }
        }
        request.shown = Value::Object(shown).to_string();
        Ok(request)
    }

    /// Whether its conditions hold for this server.
    pub(super) fn fits(&self, postgres: &PostgresReport) -> bool {
        self.role.as_ref().is_none_or(|role| role == postgres.role.word())
            && self
                .older_than
                .is_none_or(|version| version > postgres.server_version)
            && (!self.pending || !postgres.pending_restart.is_empty())
    }
}

/// `15.4` is 150004; before version 10 there were three parts.
fn version(text: &str) -> Result<u32, Done> {
    let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    let parts = parts.map_err(|_| Done::text(400, format!("Invalid PostgreSQL version: {text}")))?;
    match parts[..] {
        [major, minor] if major >= 10 => Ok(major.saturating_mul(10_000).saturating_add(minor)),
        [first, second, third] => Ok(first
            .saturating_mul(10_000)
            .saturating_add(second.saturating_mul(100))
            .saturating_add(third)),
        _ => {
            let why = format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}");
            Err(Done::text(400, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    const NOW: u64 = 1_795_228_892_000;

    fn read(body: &str) -> Result<Request, Done> {
        Request::read(&serde_json::from_str(body).unwrap(), NOW)
    }

    /// Codes and texts as recorded from Patroni.
    #[test]
    fn what_is_refused() {
        for (body, status, text) in [
            (
                r#"{"role":"master"}"#,
                400,
                "PostgreSQL role should be either primary, standby_leader, or replica",
            ),
            (
                r#"{"timeout":"-1"}"#,
                400,
                "Timeout should be a positive number of seconds",
            ),
            (
                r#"{"postgres_version":"9"}"#,
                400,
                "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9",
            ),
            (
                r#"{"postgres_version":"new"}"#,
                400,
                "Invalid PostgreSQL version: new",
            ),
            (r#"{"x":1}"#, 400, "Unknown filter for the scheduled restart: x"),
            (
                r#"{"schedule":"2099-01-01T00:00"}"#,
                400,
                "Timezone information is mandatory for the scheduled restart",
            ),
            (
                r#"{"schedule":"2020-01-01T00:00+00"}"#,
                422,
                "Cannot schedule restart in the past",
            ),
        ] {
            assert_eq!(read(body), Err(Done::text(status, text)), "{body}");
        }
    }

    #[test]
    fn what_is_shown_while_it_waits() {
        let request = read(r#"{"schedule":"2099-01-01T00:00+00","postgres_version":"16.1"}"#).unwrap();
        assert_eq!(
            request.shown,
            r#"{"schedule":"2099-01-01T00:00:00+00:00","postgres_version":"16.1"}"#
        );
        assert_eq!(read(r#"{"timeout":"2min"}"#).unwrap().timeout_s, Some(120));
        assert_eq!(read(r#"{"timeout":5}"#).unwrap().timeout_s, Some(5));
    }

    #[test]
    fn conditions() {
        let mut postgres = PostgresReport {
            role: Role::Replica,
            server_version: 150_018,
            ..PostgresReport::default()
        };
        let fits = |body: &str, postgres: &PostgresReport| read(body).unwrap().fits(postgres);
        assert!(fits("{}", &postgres));
        assert!(fits(r#"{"role":"replica"}"#, &postgres));
        assert!(!fits(r#"{"role":"primary"}"#, &postgres));
        assert!(fits(r#"{"postgres_version":"16.1"}"#, &postgres));
        assert!(!fits(r#"{"postgres_version":"15.18"}"#, &postgres));
        assert!(!fits(r#"{"restart_pending":true}"#, &postgres));
        postgres.pending_restart = vec![("a".into(), "1".into(), "2".into())];
        // Its presence counts, whatever it says.
        assert!(fits(r#"{"restart_pending":false}"#, &postgres));
    }
}
