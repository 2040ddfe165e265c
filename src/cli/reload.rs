//! `reload`: have members read their node files again.

use super::called::Done;
use super::choose::{Choice, confirm_members};
use super::cluster::Cluster;
use super::document::number;
use super::http::{PATIENCE, Question, Reply};
use super::out::CliError;
use super::restart::unanswered;
use super::role::Role;
use super::talk::Talk;
use super::target::Target;
use axum::http::Method;
use clap::Args;

/// The time between two rounds of Patroni's loop, where the cluster's settings do not say.
pub(super) const LOOP_WAIT_S: u64 = 10;

/// Have members read their node files again.
#[derive(Args, Debug)]
pub struct Reload {
    /// Name of the cluster
    cluster: String,
    /// Names of members; all of them when left out
    member: Vec<String>,
    /// Only members of this role
    #[arg(short, long, value_enum, ignore_case = true)]
    role: Option<Role>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

impl Reload {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut cluster = Cluster::find(target, Some(&self.cluster), talk).await?;
        let choice = Choice {
            names: &self.member,
            role: self.role,
            usual: Role::Any,
            action: "reload",
            nobody_is_everybody: true,
            force: self.force,
        };
        let members = choice.made(&cluster, talk)?;
        confirm_members(talk, self.force, "reload", &members, "")?;
        let wait_s = loop_wait_s(&mut cluster).await;
        let question = Question {
            method: Method::POST,
            path: "/reload",
            body: None,
            patience: PATIENCE,
            if_match: None,
        };
        let mut well = true;
        for member in &members {
            let name = &member.name;
            let (line, success) = match cluster.send(member, &question).await {
                Ok(Reply { status: 200, .. }) => (format!("No changes to apply on member {name}"), true),
                Ok(Reply { status: 202, .. }) => (
                    format!(
                        "Reload request received for member {name} and will be processed within {wait_s} seconds"
                    ),
                    true,
                ),
                Ok(Reply { status, text, .. }) => (
                    format!("Failed: reload for member {name}, status code={status}, ({text})"),
                    false,
                ),
                Err(silence) => (unanswered("reload", name, silence), false),
            };
            talk.say(&line)?;
            well &= success;
        }
        Ok(Done::when(well))
    }
}

/// `loop_wait` of the cluster's settings, in whole seconds.
pub(super) async fn loop_wait_s(cluster: &mut Cluster) -> u64 {
    let settings = cluster.get("/config").await.map(|answer| answer.document);
    match settings.map(|settings| number(&settings, "loop_wait")) {
        Ok(seconds) if seconds > 0 => seconds,
        _ => LOOP_WAIT_S,
    }
}
