//! `matriarch run FILE`: the daemon.

use super::out::CliError;
use crate::config::{self, Config};
use crate::daemon;
use crate::journal::Journal;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

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
        let journal = Journal::start(&loaded.config.log).map_err(CliError::Journal)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for note in config::notes(&loaded.config) {
            tracing::info!("{note}");
        }
        // A half-dead daemon is worse than a dead one: its guard knows what to do.
        let usual = std::panic::take_hook();
        let last = journal.clone();
        std::panic::set_hook(Box::new(move |panic| {
            tracing::error!("{panic}");
            usual(panic);
            last.flush();
            std::process::abort();
        }));
        let has_file = loaded.config.log.dir.is_some();
        let outcome = serve(loaded.config, &journal);
        if let (Err(why), true) = (&outcome, has_file) {
            tracing::error!("{why}");
        }
        journal.flush();
        outcome
    }
}

fn serve(config: Config, journal: &Journal) -> Result<(), CliError> {
    // A busy machine must cost neither the lease nor the lead. What this process starts runs as ever, PostgreSQL above
    // all. Not permitted without CAP_SYS_NICE: then it competes like everybody.
    let hurry = || drop(crate::sys::hurry());
    hurry();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(hurry)
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(daemon::run(config, journal.clone()));
    runtime.shutdown_background();
    outcome.map_err(CliError::from)
}
