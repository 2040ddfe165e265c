//! Server parameters that are not the operator's alone: the controlled ones of a cluster, and ours.

use super::units;

/// How the value of a controlled parameter is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Set by us from elsewhere.
    FromNodeFile,
    /// Always this value.
    Fixed,
    /// A whole number of at least this.
    AtLeast(i64),
    /// A size of at least this many bytes; bare numbers count megabytes.
    AtLeastBytes(u64),
    /// A boolean.
    Flag,
    /// `replica` or `logical`.
    WalLevel,
}

/// A parameter that must agree on all nodes: its default and its rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controlled {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) rule: Rule,
    /// Whether it stands on the server's command line.
    pub(crate) on_command_line: bool,
}

const fn row(name: &'static str, default: &'static str, rule: Rule) -> Controlled {
    Controlled {
        name,
        default,
        rule,
        on_command_line: true,
    }
}

/// In the order of the command line.
pub(crate) const CONTROLLED: &[Controlled] = &[
    row("listen_addresses", "", Rule::FromNodeFile),
    row("port", "", Rule::FromNodeFile),
    row("cluster_name", "", Rule::FromNodeFile),
    row("wal_level", "replica", Rule::WalLevel),
    row("hot_standby", "on", Rule::Fixed),
    row("max_connections", "100", Rule::AtLeast(25)),
    row("max_wal_senders", "10", Rule::AtLeast(3)),
    row("max_prepared_transactions", "0", Rule::AtLeast(0)),
    row("max_locks_per_transaction", "64", Rule::AtLeast(32)),
    row("track_commit_timestamp", "off", Rule::Flag),
    row("max_replication_slots", "10", Rule::AtLeast(4)),
    row("max_worker_processes", "8", Rule::AtLeast(2)),
    row("wal_log_hints", "on", Rule::Fixed),
    Controlled {
        name: "wal_keep_size",
        default: "128MB",
        rule: Rule::AtLeastBytes(16 << 20),
        on_command_line: false,
    },
    Controlled {
        name: "wal_keep_segments",
        default: "8",
        rule: Rule::AtLeast(1),
        on_command_line: false,
    },
];

/// Parameters that only we may set, with the reason.
const OURS: &[(&str, &str)] = &[
    (
        "restart_after_crash",
        "only the daemon may restart PostgreSQL, so that no unreplicated commit is shown",
    ),
    ("data_directory", "it is postgresql.data_dir"),
    ("config_file", "it is made in postgresql.config_dir"),
    ("primary_conninfo", "it follows the primary"),
    ("primary_slot_name", "it follows the member's name"),
    ("promote_trigger_file", "only the cluster promotes"),
    ("trigger_file", "only the cluster promotes"),
    ("standby_mode", "it follows the member's role"),
];

/// The controlled parameter of a name.
pub(crate) fn controlled(name: &str) -> Option<&'static Controlled> {
    CONTROLLED
        .iter()
        .find(|row| row.name == name.to_ascii_lowercase())
}

/// Why a parameter is ours, when it is.
pub(crate) fn ours(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if name.starts_with("recovery_target") {
        return Some("a standby follows the primary to its end");
    }
    OURS.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

impl Controlled {
    /// The value to use, or what is wrong with the one that was written.
    pub(crate) fn judge(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let least = |least: &dyn std::fmt::Display| format!("{text} is not a number of at least {least}");
        match self.rule {
            Rule::FromNodeFile => Err("it comes from the node file".to_owned()),
            Rule::Fixed if units::boolean(text) == units::boolean(self.default) => {
                Ok(self.default.to_owned())
            }
            Rule::Fixed => Err(format!("it is always {}", self.default)),
            Rule::AtLeast(bound) => match text.parse::<i64>() {
                Ok(number) if number >= bound => Ok(number.to_string()),
                _ => Err(least(&bound)),
            },
            Rule::AtLeastBytes(bound) => match units::bytes(text, 1 << 20) {
                Some(bytes) if bytes >= bound => Ok(text.to_owned()),
                _ => Err(format!("{text} is not a size of at least {}MB", bound >> 20)),
            },
            Rule::Flag => match units::boolean(text) {
                Some(true) => Ok("on".to_owned()),
                Some(false) => Ok("off".to_owned()),
                None => Err(format!("{text} is neither on nor off")),
            },
            Rule::WalLevel => match text {
                "replica" | "hot_standby" => Ok("replica".to_owned()),
                "logical" => Ok("logical".to_owned()),
                _ => Err(format!("{text} is neither replica nor logical")),
            },
        }
    }
}

/// Parameters that left PostgreSQL, and the first major version without them.
const REMOVED: &[(&str, u32)] = &[
    ("wal_keep_segments", 13),
    ("operator_precedence_warning", 14),
    ("vacuum_cleanup_index_scale_factor", 14),
    ("stats_temp_directory", 15),
    ("promote_trigger_file", 16),
    ("vacuum_defer_cleanup_age", 16),
    ("force_parallel_mode", 16),
    ("lc_collate", 16),
    ("lc_ctype", 16),
    ("db_user_namespace", 17),
    ("old_snapshot_threshold", 17),
    ("trace_recovery_messages", 17),
];

/// Parameters that came to PostgreSQL after 13, and their first major version.
const ADDED: &[(&str, u32)] = &[
    ("client_connection_check_interval", 14),
    ("compute_query_id", 14),
    ("huge_page_size", 14),
    ("idle_session_timeout", 14),
    ("log_recovery_conflict_waits", 14),
    ("recovery_init_sync_method", 14),
    ("vacuum_failsafe_age", 14),
    ("vacuum_multixact_failsafe_age", 14),
    ("archive_library", 15),
    ("log_startup_progress_interval", 15),
    ("recovery_prefetch", 15),
    ("shared_memory_size", 15),
    ("stats_fetch_consistency", 15),
    ("wal_decode_buffer_size", 15),
    ("createrole_self_grant", 16),
    ("debug_parallel_query", 16),
    ("max_parallel_apply_workers_per_subscription", 16),
    ("reserved_connections", 16),
    ("scram_iterations", 16),
    ("vacuum_buffer_usage_limit", 16),
    ("allow_alter_system", 17),
    ("event_triggers", 17),
    ("io_combine_limit", 17),
    ("summarize_wal", 17),
    ("sync_replication_slots", 17),
    ("synchronized_standby_slots", 17),
    ("transaction_timeout", 17),
    ("autovacuum_worker_slots", 18),
    ("autovacuum_vacuum_max_threshold", 18),
    ("file_copy_method", 18),
    ("idle_replication_slot_timeout", 18),
    ("io_max_concurrency", 18),
    ("io_method", 18),
    ("io_workers", 18),
    ("log_lock_failures", 18),
    ("max_active_replication_origins", 18),
    ("md5_password_warnings", 18),
    ("track_cost_delay_timing", 18),
];

/// Whether a server of this major version would refuse to start with the parameter.
pub(crate) fn is_unknown_to(name: &str, server_major: u32) -> bool {
    let gone = REMOVED
        .iter()
        .any(|(known, since)| *known == name && server_major >= *since);
    let not_yet = ADDED
        .iter()
        .any(|(known, since)| *known == name && server_major < *since);
    gone || not_yet
}
