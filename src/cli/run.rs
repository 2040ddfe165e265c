//! `matriarch run FILE`: the daemon.

use super::out::CliError;
use crate::config::{self, Config};
use crate::daemon;
use crate::journal::Journal;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads that do this node's work: one may wait for the disk while the other answers probes.
const WORKERS: usize = 2;

/// Run this node's daemon until SIGTERM.
#[derive(Args, Debug)]
pub struct Run {
    /// The node file, or a directory of them; without it the environment says everything
    file: Option<PathBuf>,
    /// Vote only, whatever the file says of PostgreSQL
    #[arg(long, hide = true)]
    witness: bool,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let env: BTreeMap<String, String> = std::env::vars().collect();
        let path = self.file.unwrap_or_default();
        let mut loaded = config::load(&path, &env)
            .map_err(|problems| CliError::Config(problems.iter().map(ToString::to_string).collect()))?;
        if self.witness {
            loaded.config.postgresql = None;
        }
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

fn hurry() {
    drop(crate::sys::hurry());
}

fn serve(config: Config, journal: &Journal) -> Result<(), CliError> {
    // A busy machine must cost neither the lease nor the lead. What this process starts runs as ever, PostgreSQL above
    // all. Not permitted without CAP_SYS_NICE: then it competes like everybody.
    hurry();
    let workers = Builder::new_multi_thread()
        .on_thread_start(hurry)
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let (speaker, end) = speaker().map_err(CliError::Runtime)?;
    let daemon = daemon::run(config, journal.clone(), speaker);
    // On a worker: this thread would only be woken to wake one.
    let outcome = workers.block_on(async { workers.spawn(daemon).await });
    drop(end);
    workers.shutdown_background();
    let outcome = outcome.map_err(|broken| CliError::Runtime(broken.into()))?;
    outcome.map_err(CliError::from)
}

/// The thread that agrees with the other nodes: heartbeats, judgements and leases wait for nothing else, and wake no other
/// thread, which would be most of what an idle node costs. It ends when the second half is dropped.
fn speaker() -> std::io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread()
        .on_thread_start(hurry)
        .enable_io()
        .enable_time()
        .build()?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("speaker".to_owned())
        .spawn(move || {
            hurry();
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
    Ok((handle, end))
}
