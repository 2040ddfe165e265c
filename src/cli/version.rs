//! `version`: of this program, and of what runs on each member.

use super::called::{Called, Done};
use super::cluster::Cluster;
use super::document::{number, text};
use super::out::CliError;
use super::talk::Talk;
use super::target::Target;
use crate::api::CONTRACT;
use clap::Args;
use serde_json::Value;

/// Say the version of this program, or what runs on the members of a cluster.
#[derive(Args, Debug)]
pub struct Version {
    /// Name of the cluster
    cluster: Option<String>,
    /// Names of members; all of them when left out
    member: Vec<String>,
}

impl Version {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        talk.say(&own(talk.called))?;
        let Some(cluster) = &self.cluster else {
            return Ok(Done::Whole);
        };
        talk.say("")?;
        let cluster = Cluster::find(target, Some(cluster), talk).await?;
        let mut well = true;
        for member in cluster.members() {
            if !self.member.is_empty() && !self.member.contains(&member.name) {
                continue;
            }
            let line = match cluster.get_from(&member, "/patroni").await {
                Ok(status) => of_member(talk.called, &member.name, &status),
                Err(reason) => {
                    well = false;
                    format!("{}: failed to get version: {reason}", member.name)
                }
            };
            talk.say(&line)?;
        }
        Ok(Done::when(well))
    }
}

fn own(called: Called) -> String {
    match called {
        Called::Patronictl => format!("patronictl version {CONTRACT}"),
        Called::Matriarch => format!("matriarch version {}", env!("CARGO_PKG_VERSION")),
    }
}

fn of_member(called: Called, name: &str, status: &Value) -> String {
    let nothing = Value::Null;
    let part = |key: &str| text(status.get(key).unwrap_or(&nothing), "version").to_owned();
    let program = match called {
        Called::Patronictl => format!("Patroni {}", part("patroni")),
        Called::Matriarch => format!("Matriarch {}", part("matriarch")),
    };
    match number(status, "server_version") {
        0 => format!("{name}: {program}"),
        server => format!(
            "{name}: {program} PostgreSQL {}.{}",
            server / 10_000,
            server % 10_000
        ),
    }
}
