//! `switchover`: hand over from a primary that works.

use super::called::Done;
use super::cluster::Cluster;
use super::handover::{Handover, Kind};
use super::out::CliError;
use super::talk::Talk;
use super::target::Target;
use clap::Args;

/// Switch over to a replica.
#[derive(Args, Debug)]
pub struct Switchover {
    /// Name of the cluster
    cluster: Option<String>,
    /// Who hands over; the present leader when left out
    #[arg(long, visible_alias = "primary", value_name = "NAME")]
    leader: Option<String>,
    /// Who takes over; the best replica when left out
    #[arg(long, value_name = "NAME")]
    candidate: Option<String>,
    /// When, such as 2030-01-31T22:15 (local time) or with a zone; `now` is at once
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

impl Switchover {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let handover = Handover {
            kind: Kind::Switchover,
            leader: self.leader,
            candidate: self.candidate,
            scheduled: self.scheduled,
            accept_loss: false,
            force: self.force,
        };
        handover.execute(cluster, talk).await
    }
}
