//! `dsn`: where a member's PostgreSQL is.

use super::called::Done;
use super::cluster::{Cluster, Member};
use super::out::CliError;
use super::role::Role;
use super::talk::Talk;
use super::target::Target;
use clap::Args;

/// Say where a member's PostgreSQL is; the leader's when nothing else is asked for.
#[derive(Args, Debug)]
pub struct Dsn {
    /// Name of the cluster
    cluster: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// One member, by its role or by its name.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// A member of this role
    #[arg(short, long, value_enum, ignore_case = true)]
    pub(super) role: Option<Role>,
    /// The member of this name
    #[arg(short, long, value_name = "NAME")]
    pub(super) member: Option<String>,
}

impl Dsn {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        self.which.check()?;
        let cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let Some(member) = self.which.find(&cluster) else {
            return Err(CliError::Refused("Can not find a suitable member".to_owned()));
        };
        talk.say(&format!("host={} port={}", member.host, member.port))?;
        Ok(Done::Whole)
    }
}

impl Which {
    /// Both at once make no sense.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match (self.role, &self.member) {
            (Some(_), Some(_)) => Err(CliError::Refused(
                "--role and --member are mutually exclusive options".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The first member that is meant; the leader when nothing was said.
    pub(super) fn find(&self, cluster: &Cluster) -> Option<Member> {
        let role = self.role.unwrap_or(Role::Leader);
        cluster.members().into_iter().find(|member| match &self.member {
            Some(name) => member.name == *name,
            None => role.fits(member),
        })
    }
}
