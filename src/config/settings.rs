//! The dynamic configuration, as `bootstrap.dcs` or as JSON, checked and with its defaults.

use super::gucs::{self, Rule};
use super::problem::Problem;
use super::reader::Reader;
use super::survey::survey;
use super::units;
use super::value::{Node, Place};
use crate::cluster::{PostgresSettings, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The place in the table of keys where the dynamic configuration stands.
pub(crate) const DCS: &str = "bootstrap.dcs";
const MAX_TTL_MS: u64 = 300_000;
/// The daemon stops PostgreSQL this long before the lease ends.
pub const STOP_MARGIN_MS: u64 = 500;

/// Reads the dynamic configuration (JSON text): legacy spellings, units and numbers in quotes are understood.
///
/// # Errors
/// All that keeps it from being used, keys named as they stand in the JSON text.
pub fn settings(json_text: &str) -> Result<Settings, Vec<Problem>> {
    let place = Place {
        source: Arc::from("dynamic configuration"),
        line: None,
    };
    let wrong = |message: String| {
        let source_name = place.source.to_string();
        vec![Problem {
            source_name,
            line: None,
            key: String::new(),
            message,
        }]
    };
    let json: serde_json::Value =
        serde_json::from_str(json_text).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    if !json.is_object() {
        return Err(wrong("must be a JSON object such as {\"ttl\": 2}".to_owned()));
    }
    let mut root = Node::empty_map(place.clone());
    root.set(DCS, Node::from_json(&json, &place));
    let mut reader = Reader::new(root, "bootstrap.dcs.");
    survey(&mut reader, DCS);
    let settings = read(&mut reader);
    if reader.problems.is_empty() {
        Ok(settings)
    } else {
        Err(reader.problems)
    }
}

/// Reads what stands at `bootstrap.dcs`; its keys have been surveyed.
pub(crate) fn read(reader: &mut Reader) -> Settings {
    let ttl_ms = reader.duration_ms("bootstrap.dcs.ttl");
    let report_interval_ms = reader.duration_ms("bootstrap.dcs.report_interval");
    if reader.problems.is_empty() && report_interval_ms == 0 {
        reader.problem(
            "bootstrap.dcs.report_interval",
            "must be more than nothing, such as 200ms",
        );
    }
    if ttl_ms > MAX_TTL_MS {
        reader.problem(
            "bootstrap.dcs.ttl",
            format!("{} is more than 300 s", units::show_ms(ttl_ms)),
        );
    } else if reader.problems.is_empty() && ttl_ms <= STOP_MARGIN_MS + report_interval_ms {
        let least = units::show_ms(STOP_MARGIN_MS + report_interval_ms);
        let message = format!(
            "{} is too short; it must be more than {least}",
            units::show_ms(ttl_ms)
        );
        reader.problem("bootstrap.dcs.ttl", message);
    }
    let start = newer_of(
        reader,
        "bootstrap.dcs.primary_start_timeout",
        "bootstrap.dcs.master_start_timeout",
    );
    let stop = newer_of(
        reader,
        "bootstrap.dcs.primary_stop_timeout",
        "bootstrap.dcs.master_stop_timeout",
    );
    Settings {
        ttl_ms,
        loop_wait_s: reader.duration_ms("bootstrap.dcs.loop_wait").div_ceil(1_000),
        retry_timeout_s: reader.duration_ms("bootstrap.dcs.retry_timeout").div_ceil(1_000),
        report_interval_ms,
        maximum_lag_on_failover: reader.bytes("bootstrap.dcs.maximum_lag_on_failover"),
        check_timeline: reader.flag("bootstrap.dcs.check_timeline"),
        primary_start_timeout_s: start.div_ceil(1_000),
        primary_stop_timeout_s: stop.div_ceil(1_000),
        primary_hang_timeout_ms: reader.duration_ms("bootstrap.dcs.primary_hang_timeout"),
        postgresql: postgresql(reader),
        ..Settings::default()
    }
}

fn newer_of(reader: &mut Reader, new: &str, old: &str) -> u64 {
    let old_ms = if reader.has(old) {
        Some(reader.duration_ms(old))
    } else {
        None
    };
    match old_ms {
        Some(ms) if !reader.has(new) => ms,
        _ => reader.duration_ms(new),
    }
}

fn postgresql(reader: &mut Reader) -> PostgresSettings {
    let parameters = reader.parameters("bootstrap.dcs.postgresql.parameters");
    let recovery_conf = reader.parameters("bootstrap.dcs.postgresql.recovery_conf");
    warn_of_parameters(reader, &parameters);
    warn_of_ours(reader, "bootstrap.dcs.postgresql.parameters", &parameters);
    warn_of_ours(reader, "bootstrap.dcs.postgresql.recovery_conf", &recovery_conf);
    let timeout = reader.number("bootstrap.dcs.postgresql.pg_ctl_timeout");
    PostgresSettings {
        use_pg_rewind: reader.flag("bootstrap.dcs.postgresql.use_pg_rewind"),
        use_slots: reader.flag("bootstrap.dcs.postgresql.use_slots"),
        remove_on_rewind_failure: reader
            .flag_if_given("bootstrap.dcs.postgresql.remove_data_directory_on_rewind_failure"),
        remove_on_diverged_timelines: reader
            .flag_if_given("bootstrap.dcs.postgresql.remove_data_directory_on_diverged_timelines"),
        parameters,
        recovery_conf,
        pg_hba: reader.lines("bootstrap.dcs.postgresql.pg_hba"),
        pg_ident: reader.lines("bootstrap.dcs.postgresql.pg_ident"),
        pg_ctl_timeout_s: timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(60),
    }
}

/// A value that is not used is said to be so; Patroni does the same, and goes on.
fn warn_of_parameters(reader: &mut Reader, parameters: &BTreeMap<String, String>) {
    for (name, text) in parameters {
        let path = format!("bootstrap.dcs.postgresql.parameters.{name}");
        if let Some(row) = gucs::controlled(name)
            && let Err(why) = row.judge(text)
        {
            let instead = match row.rule {
                Rule::FromNodeFile | Rule::Fixed => String::new(),
                _ => format!("; {} is used", row.default),
            };
            reader.warn(&path, format!("has no effect: {why}{instead}"));
        }
    }
}

/// Parameters that only we may set, in a mapping at `path`.
pub(crate) fn warn_of_ours(reader: &mut Reader, path: &str, parameters: &BTreeMap<String, String>) {
    for (name, text) in parameters {
        // Many files say what is done anyway.
        if name == "recovery_target_timeline" && text == "latest" {
            continue;
        }
        if let Some(why) = gucs::ours(name) {
            reader.warn(&format!("{path}.{name}"), format!("has no effect: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(json: &str) -> Vec<String> {
        settings(json)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn nothing_means_the_defaults_of_the_noun() {
        assert_eq!(settings("{}").unwrap(), Settings::default());
    }

    #[test]
    fn old_names_units_and_quoted_numbers_are_understood() {
        let json = r#"{"ttl": "2.5", "loop_wait": 2, "master_start_timeout": "5min", "maximum_lag_on_failover": "1MB",
            "report_interval": "100ms", "synchronous_mode": false, "failsafe_mode": "off", "slots": {},
            "postgresql": {"use_slots": "no", "parameters": {"hot_standby": true, "max_connections": 200, "work_mem": null}}}"#;
        let found = settings(json).unwrap();
        assert_eq!(found.ttl_ms, 2_500);
        assert_eq!(found.primary_start_timeout_s, 300);
        assert_eq!(found.maximum_lag_on_failover, 1 << 20);
        assert_eq!(found.report_interval_ms, 100);
        assert!(!found.postgresql.use_slots);
        let parameters = [("hot_standby", "on"), ("max_connections", "200")];
        assert_eq!(
            found.postgresql.parameters,
            parameters.map(|(k, v)| (k.into(), v.into())).into()
        );
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let json = r#"{"ttl": 400, "synchronous_mode": "quorum", "slots": {"a": {"type": "physical"}}, "loop_wait": []}"#;
        assert_eq!(
            errors(json),
            [
                "dynamic configuration: synchronous_mode: synchronous modes are not supported yet; remove it or set it to off",
                "dynamic configuration: slots: permanent and ignored slots are not supported yet; remove the key",
                "dynamic configuration: loop_wait: must be one value, not a list",
                "dynamic configuration: ttl: 400 s is more than 300 s",
            ]
        );
        assert_eq!(
            errors("[]"),
            ["dynamic configuration: must be a JSON object such as {\"ttl\": 2}"]
        );
        assert_eq!(
            errors(r#"{"ttl": 0.5}"#),
            ["dynamic configuration: ttl: 500 ms is too short; it must be more than 700 ms"]
        );
    }
}
