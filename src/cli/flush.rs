//! `flush`: forget what is planned.

use super::called::Done;
use super::choose::{Choice, confirm_members};
use super::cluster::Cluster;
use super::http::{Question, Reply};
use super::out::CliError;
use super::restart::unanswered;
use super::role::Role;
use super::talk::Talk;
use super::target::Target;
use axum::http::Method;
use clap::Args;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Forget a planned restart or switchover.
#[derive(Args, Debug)]
#[command(override_usage = usage("matriarch"))]
pub struct Flush {
    /// Name of the cluster, names of members, and last what is to be forgotten: `restart` or `switchover`
    #[arg(required = true, num_args = 2.., value_name = "CLUSTER [MEMBER]... TARGET")]
    words: Vec<String>,
    /// Only members of this role
    #[arg(short, long, value_enum, ignore_case = true)]
    role: Option<Role>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

/// What stands last decides, which no derived text would say.
pub(super) fn usage(program: &str) -> String {
    format!("{program} flush [OPTIONS] CLUSTER [MEMBER]... <restart|switchover>")
}

impl Flush {
    pub(super) async fn execute(mut self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let last = self.words.pop().unwrap_or_default();
        if !matches!(last.as_str(), "restart" | "switchover") {
            return Err(CliError::Usage(format!(
                "'{last}' is neither restart nor switchover, which stands last"
            )));
        }
        let mut names = self.words.into_iter();
        let name = names.next();
        let members: Vec<String> = names.collect();
        let cluster = Cluster::find(target, name.as_deref(), talk).await?;
        if last == "switchover" {
            return switchover(&cluster, talk).await;
        }
        let choice = Choice {
            names: &members,
            role: self.role,
            usual: Role::Any,
            action: "flush",
            nobody_is_everybody: true,
            force: self.force,
        };
        let members = choice.made(&cluster, talk)?;
        confirm_members(talk, self.force, "flush scheduled restarts of", &members, "")?;
        let mut well = true;
        for member in &members {
            let name = &member.name;
            let line = if member.scheduled_restart {
                let (line, success) = match cluster.send(member, &delete("/restart")).await {
                    Ok(Reply { status, text, .. }) if status >= 400 => (
                        format!(
                            "Failed: flush scheduled restart for member {name}, status code={status}, ({text})"
                        ),
                        false,
                    ),
                    Ok(_) => (
                        format!("Success: flush scheduled restart for member {name}"),
                        true,
                    ),
                    Err(silence) => (unanswered("flush scheduled restart", name, silence), false),
                };
                well &= success;
                line
            } else {
                format!("No scheduled restart for member {name}")
            };
            talk.say(&line)?;
        }
        Ok(Done::when(well))
    }
}

async fn switchover(cluster: &Cluster, talk: &mut Talk<'_>) -> Result<Done, CliError> {
    if !cluster.plans_switchover() {
        talk.say("No pending scheduled switchover")?;
        return Ok(Done::Whole);
    }
    let Reply { status, text, .. } = cluster.send_any(None, &delete("/switchover")).await?;
    let line = match status {
        200 => format!("Success: {text}"),
        404 => format!("Failed: {text}"),
        _ => format!("Failed: flush switchover, status code={status}, ({text})"),
    };
    talk.say(&line)?;
    Ok(Done::when(status == 200))
}

fn delete(path: &str) -> Question<'_> {
    Question {
        method: Method::DELETE,
        path,
        body: None,
        patience: PATIENCE,
        if_match: None,
    }
}
