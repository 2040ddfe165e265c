//! The dynamic configuration, checked: what `GET /config` shows, with defaults filled in and units resolved.

use std::collections::BTreeMap;

/// Whether commits wait for standbys (`synchronous_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// They do not.
    #[default]
    Off,
    /// For every one of a chosen few.
    On,
    /// For some of all that can.
    Quorum,
}

/// Cluster-wide settings (Patroni's `bootstrap.dcs` and ours), ready for use.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Lease length, milliseconds (`ttl`, seconds, fractions allowed).
    pub ttl_ms: u64,
    /// Patroni's loop period, seconds; used for texts, `--wait` and liveness only.
    pub loop_wait_s: u64,
    /// Patroni's retry budget, seconds; used for texts only.
    pub retry_timeout_s: u64,
    /// How often every node reports, milliseconds.
    pub report_interval_ms: u64,
    /// A standby further behind than this many bytes is not promoted.
    pub maximum_lag_on_failover: u64,
    /// Refuse candidates on an older timeline even when nothing else speaks against them.
    pub check_timeline: bool,
    /// How long a primary may take to come back before another is promoted, seconds.
    pub primary_start_timeout_s: u64,
    /// Bound of a stop in synchronous mode, seconds; zero is none.
    pub primary_stop_timeout_s: u64,
    /// How long a primary may not answer SQL before it is replaced, milliseconds; zero is never.
    pub primary_hang_timeout_ms: u64,
    /// `synchronous_mode`.
    pub synchronous_mode: SyncMode,
    /// Without any standby commits wait for ever instead of being acknowledged by the primary alone.
    pub synchronous_mode_strict: bool,
    /// How many standbys must have a commit.
    pub synchronous_node_count: u32,
    /// A standby further behind than this many bytes is no synchronous one; `None` is no limit.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// How long a synchronous standby that is gone may hold commits, milliseconds.
    pub synchronous_standby_timeout_ms: u64,
    /// In a synchronous mode, how long a primary may be silent before the standbys are fenced from it, milliseconds;
    /// zero waits for the end of its lease.
    pub fence_after_ms: u64,
    /// The gate waits until the last primary's lease is over, so that nobody reads an older state there.
    pub stale_reads_wait: bool,
    /// How long the slot of a member that is gone is kept once `ttl` has passed, milliseconds.
    pub member_slots_ttl_ms: u64,
    /// `pause`: maintenance mode.
    pub paused: bool,
    /// The cluster-wide part of the `postgresql` section.
    pub postgresql: PostgresSettings,
}

/// The cluster-wide part of the `postgresql` section.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresSettings {
    /// Rejoin by pg_rewind where it can.
    pub use_pg_rewind: bool,
    /// Keep a physical replication slot for each member.
    pub use_slots: bool,
    /// `remove_data_directory_on_rewind_failure`: absent means move aside and clone.
    pub remove_on_rewind_failure: Option<bool>,
    /// `remove_data_directory_on_diverged_timelines`: absent means move aside and clone.
    pub remove_on_diverged_timelines: Option<bool>,
    /// Server parameters, as text PostgreSQL understands.
    pub parameters: BTreeMap<String, String>,
    /// Recovery parameters of standbys (`restore_command` and its like).
    pub recovery_conf: BTreeMap<String, String>,
    /// Lines of a generated pg_hba.conf; `None` leaves the file alone.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of a generated pg_ident.conf; `None` leaves the file alone.
    pub pg_ident: Option<Vec<String>>,
    /// Bound of a start or stop, seconds.
    pub pg_ctl_timeout_s: u64,
    /// What holds on nodes whose own file does not say it.
    pub shared: Shared,
}

/// Commands and options that a node may have of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Commands by event name.
    pub callbacks: BTreeMap<String, String>,
    /// Command before a promotion.
    pub pre_promote: Option<String>,
    /// Command before a clean stop.
    pub before_stop: Option<String>,
    /// Options of pg_basebackup, each as `--x=y`.
    pub basebackup: Vec<String>,
    /// Options of pg_rewind, each as `--x=y`.
    pub rewind: Vec<String>,
    /// `unix_socket_directories` among the parameters: that is where the server is found.
    pub socket_directories: Option<String>,
}

impl Settings {
    /// How long a clean stop of a primary may take before it is killed: `primary_stop_timeout`, which counts only where
    /// nothing that was acknowledged can be lost by it.
    pub fn primary_stop_bound_s(&self) -> Option<u64> {
        let counts = self.synchronous_mode != SyncMode::Off && self.primary_stop_timeout_s > 0;
        counts.then_some(self.primary_stop_timeout_s)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl_ms: 2_000,
            loop_wait_s: 10,
            retry_timeout_s: 10,
            report_interval_ms: 200,
            maximum_lag_on_failover: 1_048_576,
            check_timeline: false,
            primary_start_timeout_s: 300,
            primary_stop_timeout_s: 0,
            primary_hang_timeout_ms: 10_000,
            synchronous_mode: SyncMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            maximum_lag_on_syncnode: None,
            synchronous_standby_timeout_ms: 1_000,
            fence_after_ms: 500,
            stale_reads_wait: false,
            member_slots_ttl_ms: 1_800_000,
            paused: false,
            postgresql: PostgresSettings::default(),
        }
    }
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            use_pg_rewind: false,
            use_slots: true,
            remove_on_rewind_failure: None,
            remove_on_diverged_timelines: None,
            parameters: BTreeMap::new(),
            recovery_conf: BTreeMap::new(),
            pg_hba: None,
            pg_ident: None,
            pg_ctl_timeout_s: 60,
            shared: Shared::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_bounded_only_in_a_synchronous_mode() {
        let mut settings = Settings {
            primary_stop_timeout_s: 7,
            ..Settings::default()
        };
        assert_eq!(settings.primary_stop_bound_s(), None);
        settings.synchronous_mode = SyncMode::Quorum;
        assert_eq!(settings.primary_stop_bound_s(), Some(7));
        settings.primary_stop_timeout_s = 0;
        assert_eq!(settings.primary_stop_bound_s(), None);
    }
}
