//! What PostgreSQL is started with: defaults, cluster-wide and local settings merged, controlled ones fixed.

use super::model::PostgresConfig;
use crate::cluster::Settings;
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

/// Merges: defaults < dynamic < local < controlled.
pub fn effective(
    _config: &PostgresConfig,
    _scope: &str,
    _settings: &Settings,
    _server_major: u32,
) -> Effective {
    Effective::default()
}
