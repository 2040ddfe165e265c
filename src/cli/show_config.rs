//! `show-config`: the settings that all members share.

use super::called::Done;
use super::cluster::Cluster;
use super::out::CliError;
use super::talk::Talk;
use super::target::Target;
use super::yaml;
use clap::Args;

/// Show the settings that all members share.
#[derive(Args, Debug)]
pub struct ShowConfig {
    /// Name of the cluster
    cluster: Option<String>,
}

impl ShowConfig {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let settings = cluster.get("/config").await?.document;
        talk.say(&yaml::block(&settings))?;
        Ok(Done::Whole)
    }
}
