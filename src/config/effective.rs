//! What PostgreSQL is started with: defaults, cluster-wide and local settings merged, controlled ones fixed.

use super::gucs::{self, CONTROLLED, Controlled};
use super::model::PostgresConfig;
use crate::cluster::{Settings, SyncMode};
use std::collections::BTreeMap;

/// The merged PostgreSQL settings of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// Every parameter for the configuration file, the controlled ones included.
    pub parameters: BTreeMap<String, String>,
    /// Controlled parameters in the order of the server's command line.
    pub command_line: Vec<(String, String)>,
    /// Lines of pg_hba.conf; `None` leaves the file alone.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf; `None` leaves the file alone.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery parameters.
    pub recovery: BTreeMap<String, String>,
    /// Rejoin by pg_rewind where it can.
    pub use_pg_rewind: bool,
    /// What to do after a failed rewind; `None`: move aside and clone.
    pub remove_on_rewind_failure: Option<bool>,
    /// What to do with a diverged timeline; `None`: rewind, else move aside and clone.
    pub remove_on_diverged_timelines: Option<bool>,
    /// Bound of a start or stop, seconds.
    pub pg_ctl_timeout_s: u64,
    /// Parameters left out because this server version does not know them.
    pub dropped: Vec<String>,
}

impl Effective {
    /// Without these parameters, which the server refuses.
    pub fn leave_out(&mut self, refused: &[String]) {
        for name in refused {
            self.parameters.remove(name);
            self.recovery.remove(name);
        }
        self.command_line.retain(|(name, _)| !refused.contains(name));
    }

    /// Starts with at least these values, whatever the file says; answers which ones had to be raised.
    pub fn raise(&mut self, at_least: &BTreeMap<&'static str, u64>) -> Vec<(String, u64)> {
        let mut raised = Vec::new();
        for (name, value) in &mut self.command_line {
            let Some(bound) = at_least.get(name.as_str()) else {
                continue;
            };
            if value.parse::<u64>().is_ok_and(|number| number < *bound) {
                *value = bound.to_string();
                raised.push((name.clone(), *bound));
            }
        }
        raised
    }
}

/// Merges: defaults < dynamic < local < controlled.
pub fn effective(config: &PostgresConfig, scope: &str, settings: &Settings, server_major: u32) -> Effective {
    let dynamic = &settings.postgresql;
    let mut parameters = BTreeMap::from([
        // A standby that lost its primary must not sleep for PostgreSQL's 5 s before it looks again.
        ("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned()),
    ]);
    parameters.extend(free(&dynamic.parameters));
    parameters.extend(free(&config.parameters));
    let mut dropped = Vec::new();
    parameters.retain(|name, _| {
        let unknown = gucs::is_unknown_to(name, server_major);
        if unknown {
            dropped.push(name.clone());
        }
        !unknown
    });
    if settings.synchronous_mode != SyncMode::Off {
        parameters.remove("synchronous_standby_names");
    }
    // Only the daemon restarts PostgreSQL: what a crash left committed but unreplicated must not be shown.
    parameters.insert("restart_after_crash".to_owned(), "off".to_owned());
    let mut command_line = Vec::new();
    for row in CONTROLLED.iter().filter(|row| row.name != "wal_keep_segments") {
        let value = controlled_value(row, config, scope, &dynamic.parameters);
        if row.on_command_line {
            command_line.push((row.name.to_owned(), value.clone()));
        }
        parameters.insert(row.name.to_owned(), value);
    }
    let mut recovery: BTreeMap<String, String> = free(&dynamic.recovery_conf).collect();
    recovery.extend(free(&config.recovery_conf));
    Effective {
        // A file named by the operator is the operator's.
        pg_hba: lines(&config.pg_hba, &dynamic.pg_hba).filter(|_| !parameters.contains_key("hba_file")),
        pg_ident: lines(&config.pg_ident, &dynamic.pg_ident)
            .filter(|_| !parameters.contains_key("ident_file")),
        parameters,
        command_line,
        recovery,
        use_pg_rewind: config.use_pg_rewind.unwrap_or(dynamic.use_pg_rewind),
        remove_on_rewind_failure: config
            .remove_on_rewind_failure
            .or(dynamic.remove_on_rewind_failure),
        remove_on_diverged_timelines: config
            .remove_on_diverged_timelines
            .or(dynamic.remove_on_diverged_timelines),
        pg_ctl_timeout_s: config.pg_ctl_timeout_s.unwrap_or(dynamic.pg_ctl_timeout_s),
        dropped,
    }
}

/// The parameters that are the operator's to choose, names in lower case.
fn free(given: &BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    given
        .iter()
        .filter(|(name, _)| gucs::controlled(name).is_none() && gucs::ours(name).is_none())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
}

fn lines(local: &Option<Vec<String>>, dynamic: &Option<Vec<String>>) -> Option<Vec<String>> {
    local.as_ref().or(dynamic.as_ref()).cloned()
}

fn controlled_value(
    row: &Controlled,
    config: &PostgresConfig,
    scope: &str,
    dynamic: &BTreeMap<String, String>,
) -> String {
    let judged = |name: &str| {
        dynamic
            .get(name)
            .and_then(|text| gucs::controlled(name)?.judge(text).ok())
    };
    match row.name {
        "listen_addresses" => config.listen.addresses.clone(),
        "port" => config.listen.port.to_string(),
        "cluster_name" => scope.to_owned(),
        "wal_keep_size" => judged("wal_keep_size")
            .or_else(|| {
                // A segment is 16 MB; the older spelling gave their number.
                let segments = judged("wal_keep_segments")?.parse::<u64>().ok()?;
                Some(format!("{}MB", segments.checked_mul(16)?))
            })
            .unwrap_or_else(|| row.default.to_owned()),
        name => judged(name).unwrap_or_else(|| row.default.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refuses_stands_nowhere_and_what_a_standby_needs_is_raised() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut effective = Effective {
            parameters: [pair("max_connections", "50"), pair("work_mem", "banana")].into(),
            command_line: vec![pair("max_connections", "50"), pair("max_wal_senders", "999999")],
            ..Effective::default()
        };
        effective.leave_out(&["work_mem".to_owned(), "max_wal_senders".to_owned()]);
        assert_eq!(effective.parameters, [pair("max_connections", "50")].into());
        assert_eq!(effective.command_line, [pair("max_connections", "50")]);
        assert_eq!(effective.raise(&BTreeMap::from([("max_connections", 50)])), []);
        let primary = BTreeMap::from([("max_connections", 100), ("max_wal_senders", 10)]);
        assert_eq!(effective.raise(&primary), [("max_connections".to_owned(), 100)]);
        assert_eq!(effective.command_line, [pair("max_connections", "100")]);
        // The file keeps what was configured: that is what waits for a restart.
        assert_eq!(effective.parameters["max_connections"], "50");
    }
}
