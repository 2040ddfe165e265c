//! What a new reading of the node file changes at the doors: the log, the REST door's terms, certificates.

use crate::api::ApiControl;
use crate::config::Config;
use crate::journal::Journal;
use matriarch_raft::Group;
use std::sync::Arc;
use tokio::sync::watch;

/// What can be changed while it is open.
pub(crate) struct Doors {
    pub(crate) rest: ApiControl,
    pub(crate) group: Group,
    pub(crate) journal: Journal,
}

impl Doors {
    /// Runs for ever: every reading of the file counts, also one that changed nothing, because the certificates that it
    /// names may have changed.
    pub(crate) async fn follow(self, mut config: watch::Receiver<Arc<Config>>) {
        while config.changed().await.is_ok() {
            let now = config.borrow_and_update().clone();
            self.change(&now).await;
        }
    }

    /// Each of them changes, or stays as it was and says why in one line.
    async fn change(&self, config: &Config) {
        let (journal, log) = (self.journal.clone(), config.log.clone());
        match tokio::task::spawn_blocking(move || journal.reload(&log)).await {
            Ok(Err(why)) => tracing::error!("not reloaded: {why}"),
            _ => tracing::debug!("the log was opened again"),
        }
        if let Err(why) = self.rest.reload(crate::daemon::api_options(config)).await {
            tracing::error!("not reloaded, the REST API stays as it was: {why}");
        }
        match self.group.reload_certificates() {
            Ok(Some(serial)) => tracing::info!(
                "raft.certfile: the certificate with the serial number {serial} is shown from now on"
            ),
            Ok(None) => {}
            Err(why) => tracing::error!("not reloaded, the old certificates stay in force: {why}"),
        }
    }
}
