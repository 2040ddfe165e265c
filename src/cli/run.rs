//! `matriarch run FILE`: the daemon.

use super::out::CliError;
use crate::config::{self, Config, Log};
use crate::daemon;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Threads of the runtime: one may wait for the disk while the other beats.
const THREADS: usize = 2;

/// Run this node's daemon until SIGTERM.
#[derive(Args, Debug)]
pub struct Run {
    /// The node file, or a directory of them; without it the environment says everything
    file: Option<PathBuf>,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let env: BTreeMap<String, String> = std::env::vars().collect();
        let path = self.file.unwrap_or_default();
        let loaded = config::load(&path, &env)
            .map_err(|problems| CliError::Config(problems.iter().map(ToString::to_string).collect()))?;
        start_logging(&loaded.config.log);
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for note in config::notes(&loaded.config) {
            tracing::info!("{note}");
        }
        // A half-dead daemon is worse than a dead one: its guard knows what to do.
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            std::process::abort();
        }));
        serve(loaded.config)
    }
}

fn serve(config: Config) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(daemon::run(config));
    runtime.shutdown_background();
    outcome.map_err(CliError::from)
}

/// Our own level from the file; openraft tells a lot at INFO that only its developers need, and a node without a
/// leader makes it repeat that a hundred times a second.
fn start_logging(log: &Log) {
    let level = match log.level.to_ascii_uppercase().as_str() {
        "DEBUG" => "debug",
        "WARNING" | "WARN" => "warn",
        "ERROR" | "CRITICAL" => "error",
        _ => "info",
    };
    let raft = if level == "debug" {
        "openraft=info"
    } else {
        matriarch_raft::LOG_FILTER
    };
    let directives = format!("{level},{raft},sled=warn,tokio_postgres=warn,hyper=warn,rustls=warn");
    let filter = std::env::var("MATRIARCH_LOG").ok().unwrap_or(directives);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // A second subscriber in one process is a test's doing, and it keeps the first.
    let _ = if log.json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
