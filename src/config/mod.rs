//! What was typed and what it means: node file and environment, checked once, then immutable.
//!
//! ```text
//!  file or directory    PATRONI_* MATRIARCH_*          JSON of the dynamic configuration
//!          \                 /                                   |
//!        sources + yaml: one tree of texts with places      value::from_json
//!                      |                                         |
//!               survey (keys.rs): unknown, without effect, refused, wrong shape
//!                      |                                         |
//!      node_file, raft, postgresql  -- reader -->          settings
//!                      |                                         |
//!               relations between keys                           |
//!                      |                                         |
//!                   Config  ------------- effective -------------'--> what PostgreSQL is started with
//! ```
//!
//! Invariants:
//! - `keys.rs` is the one table of keys: checks, defaults, variables and `configs/reference.yaml` follow it.
//! - All problems are reported at once, each with its place, its key and what would be right. A problem stops
//!   the node before anything is touched; a warning says what has no effect. Nothing typed is lost silently.
//! - What asks for more safety than is built is refused, never half obeyed.
//! - Secrets do not show in `Debug`.
//!
//! Values keep the text they were written with, and whoever reads a key gives it its type: `password: 0123` is
//! a password, `hot_standby: on` a boolean. Only `bootstrap.dcs` is typed by YAML's own rules (1.1, as Patroni's
//! library has them), because it becomes JSON that people compare with what they know.
//!
//! Caveats: a file of a directory replaces lists of an earlier one as a whole; relative paths are taken from
//! the working directory of the program.

mod allowed;
mod amend;
mod ciphers;
mod effective;
mod founding;
mod gucs;
mod keys;
mod log;
mod log_format;
mod migration;
mod model;
mod node_file;
mod notify;
mod operator;
mod postgresql;
mod problem;
mod proxy;
mod raft;
mod reader;
#[cfg(test)]
mod reference;
mod relations;
mod releases;
mod renewal;
mod reread;
mod secret;
mod settings;
mod shown;
mod sources;
mod survey;
#[cfg(test)]
mod tests;
mod units;
mod value;
mod yaml;

pub use allowed::Allowed;
pub use amend::{NewParameters, amended, entity_tag, is_meant, new_parameters};
pub use effective::{Effective, effective};
pub use founding::{founding, inherited_parameters};
pub use log_format::{LogField, LogFormat, LogPiece};
pub use migration::{Migration, MigrationWishes, migration};
pub use model::{
    Authentication, Bootstrap, CommandOption, Config, Credentials, Ctl, InitdbOption, Listen, Log, Login,
    PostgresConfig, Proxy, RaftConfig, RestApi, VerifyClient, Vip, VipRole, Watchdog, WatchdogMode,
};
pub use notify::{Haproxy, Notify, Pgbouncer, Reach};
pub use operator::{Operator, operator};
pub use problem::Problem;
pub use relations::{check_ttl, notes, ttl_floor_ms};
pub use releases::start_race;
pub use renewal::Renewal;
pub use reread::{Reread, reread};
pub use secret::Secret;
pub use settings::{STOP_MARGIN_MS, settings};
pub use shown::STARS;

use std::collections::BTreeMap;
use std::path::Path;

/// Whole seconds of a time as people write it: `5`, `5s`, `2min`.
pub fn seconds(text: &str) -> Option<u64> {
    units::duration_ms(text, Some(1_000)).map(|ms| ms.div_ceil(1_000))
}

/// A configuration and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line for each oddity.
    pub warnings: Vec<String>,
    /// What was written, the environment included; stars for secrets.
    pub shown: serde_json::Value,
}

/// Reads a node file or directory and the environment; every problem is reported at once.
///
/// # Errors
/// All that must be mended before the node can start.
pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Loaded, Vec<Problem>> {
    let (loaded, problems) = load_all(path, env);
    match loaded {
        Some(loaded) if problems.is_empty() => Ok(loaded),
        _ => Err(problems),
    }
}

/// The JSON of any YAML value, by the rules that hold for `bootstrap.dcs`; `source` names it in problems.
///
/// # Errors
/// It is no YAML, or more than one value.
pub fn json_of_yaml(source: &str, text: &str) -> Result<serde_json::Value, Problem> {
    let source: std::sync::Arc<str> = source.into();
    yaml::parse_any(&source, text).map(|node| node.json())
}

/// As [`load`], but warnings are told beside problems; the configuration is meaningless if there are any.
pub(crate) fn load_all(path: &Path, env: &BTreeMap<String, String>) -> (Option<Loaded>, Vec<Problem>) {
    let written = match sources::read(path, env) {
        Ok(written) => written,
        Err(problems) => return (None, problems),
    };
    let mut reader = reader::Reader::new(written.root, "");
    reader.warnings = written.warnings;
    let config = node_file::read(&mut reader, path, env);
    // In the order of the file, so that it can be mended from top to bottom.
    let key = |problem: &Problem| (problem.source_name.clone(), problem.line);
    reader.warnings.sort_by_key(key);
    reader.problems.sort_by_key(key);
    let warnings = reader.warnings.iter().map(ToString::to_string).collect();
    let loaded = Loaded {
        config,
        warnings,
        shown: shown::shown(reader.root()),
    };
    (Some(loaded), reader.problems)
}
