//! `restart`: restart PostgreSQL on members, now or later.

use super::called::Done;
use super::choose::{Choice, confirm_members};
use super::cluster::{Cluster, Member};
use super::http::{Question, Reply, Silence};
use super::out::CliError;
use super::planned;
use super::role::Role;
use super::talk::Talk;
use super::target::Target;
use axum::http::Method;
use clap::Args;
use serde_json::{Map, Value};
use std::time::Duration;

/// A restart waits for crash recovery, which may take long; nobody waits longer for one member.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Restart PostgreSQL on members.
#[derive(Args, Debug)]
pub struct Restart {
    /// Name of the cluster
    cluster: String,
    /// Names of members; all of them when left out
    member: Vec<String>,
    /// Only members of this role
    #[arg(short, long, value_enum, ignore_case = true)]
    role: Option<Role>,
    /// Only one of them, any
    #[arg(long)]
    any: bool,
    /// When, such as 2030-01-31T22:15 (local time) or with a zone; `now` is at once
    #[arg(long, value_name = "TIME")]
    scheduled: Option<String>,
    /// Only where PostgreSQL is older than this
    #[arg(long, value_name = "X.Y")]
    pg_version: Option<String>,
    /// Only where a setting waits for a restart
    #[arg(long)]
    pending: bool,
    /// How long a restart may take until another member takes over, such as 30s
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

impl Restart {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let cluster = Cluster::find(target, Some(&self.cluster), talk).await?;
        let choice = Choice {
            names: &self.member,
            role: self.role,
            usual: Role::Any,
            action: "restart",
            nobody_is_everybody: true,
            force: self.force,
        };
        let mut members = choice.made(&cluster, talk)?;
        if self.pending {
            members.retain(|member| member.pending_restart);
            if members.is_empty() {
                talk.note("note: no setting waits for a restart on any of them");
                return Ok(Done::Whole);
            }
        }
        let at = self.moment(talk)?;
        let when = at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
        confirm_members(talk, self.force, "restart", &members, &when)?;
        if self.any {
            members = any_one(members);
        }
        let version = match &self.pg_version {
            Some(version) => version.clone(),
            None if self.force => String::new(),
            None => talk.ask(
                "Restart only where PostgreSQL is older than (e.g. 15.4)",
                Some(""),
            )?,
        };
        if at.is_some() && cluster.is_paused() {
            return Err(CliError::Refused(
                "Can't schedule restart in the paused state".to_owned(),
            ));
        }
        let body = Value::Object(self.body(at, &version));
        let mut well = true;
        for member in &members {
            well &= self.restart(&cluster, member, &body, talk).await?;
        }
        Ok(Done::when(well))
    }

    fn moment(&self, talk: &mut Talk<'_>) -> Result<Option<String>, CliError> {
        match &self.scheduled {
            Some(text) => planned::parse(text),
            None if self.force => Ok(None),
            None => {
                let question = format!("When should the restart take place (e.g. {})", planned::example());
                planned::parse(&talk.ask(&question, Some("now"))?)
            }
        }
    }

    fn body(&self, at: Option<String>, version: &str) -> Map<String, Value> {
        let mut body = Map::new();
        if self.pending {
            body.insert("restart_pending".to_owned(), true.into());
        }
        if !version.is_empty() {
            body.insert("postgres_version".to_owned(), version.into());
        }
        if let Some(at) = at {
            body.insert("schedule".to_owned(), at.into());
        }
        if let Some(timeout) = &self.timeout {
            body.insert("timeout".to_owned(), timeout.as_str().into());
        }
        body
    }

    /// Asks one member, and says what came of it. The next one is not asked before that is known.
    async fn restart(
        &self,
        cluster: &Cluster,
        member: &Member,
        body: &Value,
        talk: &mut Talk<'_>,
    ) -> Result<bool, CliError> {
        let question = |method, body| Question {
            method,
            path: "/restart",
            body,
            patience: PATIENCE,
            if_match: None,
        };
        if self.force && body.get("schedule").is_some() && member.scheduled_restart {
            // What was planned gives way; that nothing is planned any more is as good.
            let _ = cluster.send(member, &question(Method::DELETE, None)).await;
        }
        let reply = {
            let _turning = talk.turning(&format!("restarting {}", member.name));
            cluster.send(member, &question(Method::POST, Some(body))).await
        };
        let name = &member.name;
        let (line, well) = match reply {
            Ok(Reply { status: 200, .. }) => (format!("Success: restart on member {name}"), true),
            Ok(Reply { status: 202, .. }) => (format!("Success: restart scheduled on member {name}"), true),
            Ok(Reply { status: 409, .. }) => (
                format!("Failed: another restart is already scheduled on member {name}"),
                false,
            ),
            Ok(Reply { status, text, .. }) => (
                format!("Failed: restart for member {name}, status code={status}, ({text})"),
                false,
            ),
            Err(silence) => (unanswered("restart", name, silence), false),
        };
        talk.say(&line)?;
        Ok(well)
    }
}

/// The line for a member that gave no answer.
pub(super) fn unanswered(action: &str, name: &str, silence: Silence) -> String {
    format!(
        "Failed: {action} for member {name}, no answer ({})",
        silence.reason()
    )
}

/// One of them, chosen by chance.
fn any_one(mut members: Vec<Member>) -> Vec<Member> {
    let chance = getrandom::u32().unwrap_or(0);
    let at = usize::try_from(chance).unwrap_or(0) % members.len().max(1);
    if at < members.len() {
        members.swap(0, at);
    }
    members.truncate(1);
    members
}
