//! `reinit`: have replicas throw their copy away and make a new one.

use super::called::Done;
use super::choose::{Choice, confirm_members};
use super::cluster::{Cluster, Member};
use super::document::{array, text};
use super::http::{PATIENCE, Question};
use super::out::CliError;
use super::restart::unanswered;
use super::role::Role;
use super::talk::Talk;
use super::target::Target;
use axum::http::Method;
use clap::Args;
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::sleep;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_secs(2);
/// A member's state while it makes a new copy.
const COPYING: &str = "creating replica";

/// A member that neither copies nor runs for so many looks has given up.
const IDLE_LOOKS: u32 = 5;

/// Have replicas make a new copy of the data.
#[derive(Args, Debug)]
pub struct Reinit {
    /// Name of the cluster
    cluster: String,
    /// Names of members
    member: Vec<String>,
    /// Ask nothing, and stop whatever a member is busy with
    #[arg(long)]
    force: bool,
    /// Wait until the new copies are complete
    #[arg(long)]
    wait: bool,
    /// Copy from the leader, not from a replica
    #[arg(long)]
    from_leader: bool,
}

impl Reinit {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let cluster = Cluster::find(target, Some(&self.cluster), talk).await?;
        let choice = Choice {
            names: &self.member,
            role: None,
            usual: Role::Replica,
            action: "reinitialize",
            nobody_is_everybody: false,
            force: self.force,
        };
        let members = choice.made(&cluster, talk)?;
        confirm_members(talk, self.force, "reinitialize", &members, "")?;
        let mut begun = Vec::new();
        for member in &members {
            if self.begin(&cluster, member, talk).await? {
                begun.push(member.clone());
            }
        }
        let mut well = begun.len() == members.len();
        if self.wait {
            well &= wait(&cluster, begun, talk).await?;
        }
        Ok(Done::when(well))
    }

    /// Asks one member; where it is busy with something, the person may have that stopped.
    async fn begin(&self, cluster: &Cluster, member: &Member, talk: &mut Talk<'_>) -> Result<bool, CliError> {
        let name = &member.name;
        let mut force = self.force;
        loop {
            let mut body = Map::from_iter([("force".to_owned(), force.into())]);
            if self.from_leader {
                body.insert("from_leader".to_owned(), true.into());
            }
            let question = Question {
                method: Method::POST,
                path: "/reinitialize",
                body: Some(&Value::Object(body)),
                patience: PATIENCE * 5,
                if_match: None,
            };
            let reply = match cluster.send(member, &question).await {
                Ok(reply) => reply,
                Err(silence) => {
                    talk.say(&unanswered("reinitialize", name, silence))?;
                    return Ok(false);
                }
            };
            if reply.status < 400 {
                talk.say(&format!("Success: reinitialize for member {name}"))?;
                return Ok(true);
            }
            talk.say(&format!(
                "Failed: reinitialize for member {name}, status code={}, ({})",
                reply.status, reply.text
            ))?;
            let is_busy = reply.text.ends_with("already in progress");
            if force
                || !is_busy
                || !talk.confirm("Do you want to stop that and reinitialize all the same?")?
            {
                return Ok(false);
            }
            force = true;
        }
    }
}

/// Looks until every copy is complete. A copy takes as long as it takes: the person may leave at any time.
async fn wait(cluster: &Cluster, begun: Vec<Member>, talk: &mut Talk<'_>) -> Result<bool, CliError> {
    let mut waiting: Vec<(Member, u32)> = begun.into_iter().map(|member| (member, 0)).collect();
    let mut told = usize::MAX;
    let mut well = true;
    let turning = talk.turning(COPYING);
    while !waiting.is_empty() {
        if waiting.len() != told {
            let names: Vec<&str> = waiting.iter().map(|(member, _)| member.name.as_str()).collect();
            let line = format!("Waiting for reinitialize to complete on: {}", names.join(", "));
            turning.aside(|| talk.say(&line))?;
            told = waiting.len();
        }
        sleep(LOOK).await;
        let mut left = Vec::new();
        for (member, idle) in waiting {
            let state = cluster.get_from(&member, "/patroni").await;
            match state.as_ref().map(|status| text(status, "state")) {
                Ok("running") => {
                    let line = format!("Reinitialize is completed on: {}", member.name);
                    turning.aside(|| talk.say(&line))?;
                }
                Ok(state) if state != COPYING && idle + 1 >= IDLE_LOOKS => {
                    let line = format!(
                        "Failed: reinitialize for member {}, it is now: {state}",
                        member.name
                    );
                    turning.aside(|| talk.say(&line))?;
                    well = false;
                }
                Ok(state) if state != COPYING => left.push((member, idle + 1)),
                Ok(_) => {
                    if talk.watched
                        && let Some(activity) = activity(cluster, &member).await
                    {
                        turning.show(&format!("{}: {activity}", member.name));
                    }
                    left.push((member, 0));
                }
                // Silent for a moment.
                Err(_) => left.push((member, 0)),
            }
        }
        waiting = left;
    }
    Ok(well)
}

/// How far the copy is, in the node's own words.
async fn activity(cluster: &Cluster, member: &Member) -> Option<String> {
    let document = cluster.get_from(member, "/explain").await.ok()?;
    let own = array(&document, "members")
        .iter()
        .find(|one| text(one, "name") == member.name)?;
    Some(text(own, "activity").to_owned()).filter(|activity| !activity.is_empty())
}
