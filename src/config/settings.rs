//! The dynamic configuration, as `bootstrap.dcs` or as JSON, checked and with its defaults.

use super::gucs::{self, Rule};
use super::problem::Problem;
use super::reader::Reader;
use super::survey::survey;
use super::units;
use super::value::{Node, Place};
use crate::cluster::{PostgresSettings, Settings, SyncMode};
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
    let settings = Settings {
        ttl_ms,
        loop_wait_s: reader.duration_ms("bootstrap.dcs.loop_wait").div_ceil(1_000),
        retry_timeout_s: reader.duration_ms("bootstrap.dcs.retry_timeout").div_ceil(1_000),
        report_interval_ms,
        maximum_lag_on_failover: reader.bytes("bootstrap.dcs.maximum_lag_on_failover"),
        check_timeline: reader.flag("bootstrap.dcs.check_timeline"),
        primary_start_timeout_s: start.div_ceil(1_000),
        primary_stop_timeout_s: stop.div_ceil(1_000),
        primary_hang_timeout_ms: reader.duration_ms("bootstrap.dcs.primary_hang_timeout"),
        member_slots_ttl_ms: reader.duration_ms("bootstrap.dcs.member_slots_ttl"),
        paused: reader.has("bootstrap.dcs.pause") && reader.flag("bootstrap.dcs.pause"),
        postgresql: postgresql(reader),
        ..synchronous(reader)
    };
    synchrony_fits(reader, &settings);
    settings
}

/// The part about synchronous replication; the rest are defaults.
fn synchronous(reader: &mut Reader) -> Settings {
    let count = reader.number("bootstrap.dcs.synchronous_node_count");
    let timeout = newer_of(
        reader,
        "bootstrap.dcs.synchronous_standby_timeout",
        "bootstrap.dcs.sync_standby_timeout",
    );
    Settings {
        synchronous_mode: match reader.choice("bootstrap.dcs.synchronous_mode") {
            Some("on") => SyncMode::On,
            Some("quorum") => SyncMode::Quorum,
            _ => SyncMode::Off,
        },
        synchronous_mode_strict: reader.flag("bootstrap.dcs.synchronous_mode_strict"),
        synchronous_node_count: count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        maximum_lag_on_syncnode: reader.bytes_if_limited("bootstrap.dcs.maximum_lag_on_syncnode"),
        synchronous_standby_timeout_ms: timeout,
        fence_after_ms: reader.duration_ms("bootstrap.dcs.fence_after"),
        stale_reads_wait: reader.choice("bootstrap.dcs.stale_reads") == Some("wait"),
        ..Settings::default()
    }
}

/// One lost report is no silence, and what weakens a commit in spite of the mode is said.
fn synchrony_fits(reader: &mut Reader, settings: &Settings) {
    const FENCE: &str = "bootstrap.dcs.fence_after";
    let is_on = settings.synchronous_mode != SyncMode::Off;
    let (fence_ms, least_ms) = (settings.fence_after_ms, 2 * settings.report_interval_ms);
    if reader.problems.is_empty() && (is_on || reader.has(FENCE)) && fence_ms != 0 && fence_ms < least_ms {
        let message = format!(
            "{} is too short; it must be at least two report_interval, {}, or 0 to wait for the end of the lease",
            units::show_ms(fence_ms),
            units::show_ms(least_ms)
        );
        reader.problem(FENCE, message);
    }
    if !is_on {
        return;
    }
    let parameters = &settings.postgresql.parameters;
    if let Some(text) = parameters.get("synchronous_commit")
        && !matches!(text.as_str(), "on" | "remote_apply")
    {
        let message = format!(
            "{text} lets commits be acknowledged that no standby has on disk, in spite of synchronous_mode; write on"
        );
        reader.warn("bootstrap.dcs.postgresql.parameters.synchronous_commit", message);
    }
    if parameters.contains_key("synchronous_standby_names") {
        let message = "has no effect: it follows the synchronous set";
        reader.warn(
            "bootstrap.dcs.postgresql.parameters.synchronous_standby_names",
            message,
        );
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
        shared: super::postgresql::shared(reader, "bootstrap.dcs.postgresql"),
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
            "report_interval": "100ms", "member_slots_ttl": "1h", "synchronous_mode": "true", "sync_standby_timeout": "1.5", "maximum_lag_on_syncnode": -1, "failsafe_mode": "off", "slots": {},
            "postgresql": {"use_slots": "no", "parameters": {"hot_standby": true, "max_connections": 200, "work_mem": null}}}"#;
        let found = settings(json).unwrap();
        assert_eq!(found.ttl_ms, 2_500);
        assert_eq!(found.primary_start_timeout_s, 300);
        assert_eq!(found.member_slots_ttl_ms, 3_600_000);
        assert_eq!(found.maximum_lag_on_failover, 1 << 20);
        assert_eq!(found.report_interval_ms, 100);
        assert_eq!(found.synchronous_mode, SyncMode::On);
        assert_eq!(found.synchronous_standby_timeout_ms, 1_500);
        assert_eq!(found.maximum_lag_on_syncnode, None);
        assert!(!found.postgresql.use_slots);
        let parameters = [("hot_standby", "on"), ("max_connections", "200")];
        assert_eq!(
            found.postgresql.parameters,
            parameters.map(|(k, v)| (k.into(), v.into())).into()
        );
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let json = r#"{"ttl": 400, "synchronous_mode": "most", "slots": {"a": {"type": "physical"}}, "loop_wait": []}"#;
        assert_eq!(
            errors(json),
            [
                "dynamic configuration: slots: permanent and ignored slots are not supported yet; remove the key",
                "dynamic configuration: loop_wait: must be one value, not a list",
                "dynamic configuration: ttl: 400 s is more than 300 s",
                "dynamic configuration: synchronous_mode: \"most\" is not one of: off, on, quorum",
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

    /// Patroni's own spellings, and ours.
    #[test]
    fn synchronous_modes_as_people_write_them() {
        let mode = |text: &str| {
            settings(&format!(r#"{{"synchronous_mode": {text}}}"#))
                .unwrap()
                .synchronous_mode
        };
        for (text, expected) in [
            ("true", SyncMode::On),
            (r#""on""#, SyncMode::On),
            ("1", SyncMode::On),
            (r#""Quorum""#, SyncMode::Quorum),
            ("false", SyncMode::Off),
            (r#""off""#, SyncMode::Off),
            ("null", SyncMode::Off),
        ] {
            assert_eq!(mode(text), expected, "{text}");
        }
        let json = r#"{"synchronous_mode": "quorum", "synchronous_mode_strict": "on", "synchronous_node_count": "2",
            "maximum_lag_on_syncnode": "16MB", "synchronous_standby_timeout": 0.5, "fence_after": 0, "stale_reads": "wait"}"#;
        let expected = Settings {
            synchronous_mode: SyncMode::Quorum,
            synchronous_mode_strict: true,
            synchronous_node_count: 2,
            maximum_lag_on_syncnode: Some(16 << 20),
            synchronous_standby_timeout_ms: 500,
            fence_after_ms: 0,
            stale_reads_wait: true,
            ..Settings::default()
        };
        assert_eq!(settings(json).unwrap(), expected);
    }

    #[test]
    fn commands_and_options_may_be_shared() {
        let json = r#"{"postgresql": {"callbacks": {"on_role_change": "/bin/tell 'the others'"}, "pre_promote": "/bin/may-i",
            "basebackup": [{"checkpoint": "fast"}, "verbose"], "rewind": {"debug": true}}}"#;
        let shared = settings(json).unwrap().postgresql.shared;
        assert_eq!(shared.callbacks["on_role_change"], "/bin/tell 'the others'");
        assert_eq!(shared.pre_promote.as_deref(), Some("/bin/may-i"));
        assert_eq!(shared.before_stop, None);
        assert_eq!(shared.basebackup, ["--checkpoint=fast", "--verbose"]);
        assert_eq!(shared.rewind, ["--debug"]);
        let json = r#"{"postgresql": {"parameters": {"unix_socket_directories": "/run/a, /tmp"}}}"#;
        let shared = settings(json).unwrap().postgresql.shared;
        assert_eq!(shared.socket_directories.as_deref(), Some("/run/a, /tmp"));
        let bad = r#"{"postgresql": {"before_stop": "/bin/it's", "basebackup": ["pgdata=/x"]}}"#;
        assert_eq!(
            errors(bad),
            [
                "dynamic configuration: postgresql.before_stop: \"/bin/it's\" is not a command: a quote in it is not closed",
                "dynamic configuration: postgresql.basebackup: the option \"pgdata\" is set by us; remove it",
            ]
        );
    }

    #[test]
    fn slots_of_the_gone_are_kept_for_seconds() {
        let ms = |text: &str| {
            let json = format!(r#"{{"member_slots_ttl": {text}}}"#);
            settings(&json).map(|found| found.member_slots_ttl_ms)
        };
        for (text, expected) in [
            ("0", 0),
            ("90", 90_000),
            ("\"10min\"", 600_000),
            ("null", 1_800_000),
        ] {
            assert_eq!(ms(text).unwrap(), expected, "{text}");
        }
        for (text, said) in [("-1", "-1"), ("\"soon\"", "soon")] {
            let why = ms(text).unwrap_err();
            let told = why.iter().map(ToString::to_string).collect::<String>();
            assert!(told.contains("member_slots_ttl") && told.contains(said), "{told}");
        }
    }

    #[test]
    fn one_lost_report_is_no_silence() {
        let said = "dynamic configuration: fence_after: 500 ms is too short; it must be at least two report_interval, \
                    600 ms, or 0 to wait for the end of the lease";
        assert_eq!(
            errors(r#"{"report_interval": "300ms", "synchronous_mode": "on"}"#),
            [said]
        );
        assert_eq!(
            errors(r#"{"report_interval": "300ms", "fence_after": "500ms"}"#),
            [said]
        );
        assert!(settings(r#"{"report_interval": "300ms"}"#).is_ok());
    }
}
