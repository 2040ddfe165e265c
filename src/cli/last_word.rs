//! `matriarch last-word`: what a guard starts when its daemon does not take the news of a fence.

use super::block_on;
use super::out::CliError;
use crate::cluster::{Epoch, Lsn};
use crate::config;
use crate::daemon;
use crate::node::last_word::{LastWord, Note};
use crate::vip;
use clap::Args;
use std::path::PathBuf;

/// Tell the voters that an epoch of this node is over.
#[derive(Args, Debug)]
pub struct Word {
    /// The epoch
    epoch: u64,
    /// A position near the end of the log
    near: Lsn,
    /// Who this node is and whom to tell, as the daemon left it
    note: String,
    /// The node file, as the daemon was given it
    file: PathBuf,
}

impl Word {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let note: Note = serde_json::from_str(&self.note).map_err(|why| CliError::Target(why.to_string()))?;
        let loaded = config::load(&self.file, &std::env::vars().collect())
            .map_err(|problems| CliError::Config(problems.iter().map(ToString::to_string).collect()))?;
        // Where the address stands at a proxy, the end of PostgreSQL does not move it.
        let at_primary = |vip: &&vip::Vip| vip.role == vip::VipRole::Primary;
        if let Some(vip) = loaded.config.vip.as_ref().filter(at_primary) {
            match block_on(async { Ok(vip::drop_now(vip).await) })? {
                Ok(true) => eprintln!("matriarch last-word: {} is no longer here", vip.address),
                Ok(false) => {}
                Err(error) => eprintln!("matriarch last-word: {error}"),
            }
        }
        let word = LastWord {
            raft: daemon::raft_settings(&loaded.config, false),
            config: loaded.config,
            note,
            epoch: Epoch(self.epoch),
            near: Some(self.near).filter(|near| near.0 > 0),
        };
        let voters = word.note.peers.len();
        let heard = block_on(async { word.speak().await.map_err(CliError::Target) })?;
        eprintln!(
            "matriarch last-word: epoch {} is over, {heard} of {voters} voters heard it",
            self.epoch
        );
        Ok(())
    }
}
