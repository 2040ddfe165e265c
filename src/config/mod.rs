//! What was typed and what it means: node file and environment, checked once, then immutable.

mod effective;
mod model;
mod problem;
mod secret;

pub use effective::{Effective, effective};
pub use model::{
    Authentication, Bootstrap, BootstrapUser, CommandOption, Config, Credentials, Ctl, InitdbOption, Listen,
    Log, Login, PostgresConfig, RaftConfig, RestApi, VerifyClient, Watchdog, WatchdogMode,
};
pub use problem::Problem;
pub use secret::Secret;

use crate::cluster::Settings;
use std::collections::BTreeMap;
use std::path::Path;

/// A configuration and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One line for each oddity.
    pub warnings: Vec<String>,
}

/// Reads a node file or directory and the environment; every problem is reported at once.
///
/// # Errors
/// All that must be mended before the node can start.
pub fn load(path: &Path, _env: &BTreeMap<String, String>) -> Result<Loaded, Vec<Problem>> {
    Err(vec![Problem {
        source_name: path.display().to_string(),
        line: None,
        key: String::new(),
        message: "not readable yet".to_owned(),
    }])
}

/// Reads the dynamic configuration (JSON text).
///
/// # Errors
/// All that keeps it from being used.
pub fn settings(_json_text: &str) -> Result<Settings, Vec<Problem>> {
    Ok(Settings::default())
}
