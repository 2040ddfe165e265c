//! `failover`: make a certain replica the primary, also where no primary works.

use super::called::Done;
use super::cluster::Cluster;
use super::handover::{Handover, Kind};
use super::out::CliError;
use super::talk::Talk;
use super::target::Target;
use clap::Args;

/// Fail over to a replica, also without a healthy primary.
#[derive(Args, Debug)]
pub struct Failover {
    /// Name of the cluster
    cluster: Option<String>,
    /// Who takes over
    #[arg(long, value_name = "NAME")]
    candidate: Option<String>,
    /// Also where acknowledged commits may be lost by it
    #[arg(long)]
    accept_data_loss: bool,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

impl Failover {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let handover = Handover {
            kind: Kind::Failover,
            leader: None,
            candidate: self.candidate,
            scheduled: None,
            accept_loss: self.accept_data_loss,
            force: self.force,
        };
        handover.execute(cluster, talk).await
    }
}
