//! `pause` and `resume`: maintenance mode, in which nothing is done to PostgreSQL.

use super::called::Done;
use super::cluster::Cluster;
use super::document::flag;
use super::http::Question;
use super::out::CliError;
use super::reload::loop_wait_s;
use super::talk::Talk;
use super::target::Target;
use crate::clock;
use axum::http::Method;
use clap::Args;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(250);
/// A change of the settings is committed long before.
const PATIENCE: Duration = Duration::from_secs(30);

/// Switch automatic failover off.
#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    switch: Switch,
}

/// Switch automatic failover on again.
#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    switch: Switch,
}

#[derive(Args, Debug)]
struct Switch {
    /// Name of the cluster
    cluster: Option<String>,
    /// Wait until every member has heard of it
    #[arg(long)]
    wait: bool,
}

impl Pause {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        self.switch.turn(true, target, talk).await
    }
}

impl Resume {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        self.switch.turn(false, target, talk).await
    }
}

impl Switch {
    async fn turn(self, paused: bool, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        if cluster.is_paused() == paused {
            let state = if paused { "already" } else { "not" };
            return Err(CliError::Refused(format!("Cluster is {state} paused")));
        }
        let (verb, state) = if paused {
            ("pause", "paused")
        } else {
            ("resume", "resumed")
        };
        let body = json!({"pause": paused.then_some(true)});
        let question = Question {
            method: Method::PATCH,
            path: "/config",
            body: Some(&body),
            patience: PATIENCE,
            if_match: None,
        };
        let reply = cluster.send_any(None, &question).await?;
        if reply.status != 200 {
            talk.say(&format!(
                "Failed: {verb} cluster management status code={}, ({})",
                reply.status, reply.text
            ))?;
            return Ok(Done::Partly);
        }
        if self.wait {
            talk.say(&format!(
                "'{verb}' request sent, waiting until it is recognized by all nodes"
            ))?;
            let deaf = wait(&mut cluster, paused).await;
            if !deaf.is_empty() {
                talk.say(&format!(
                    "Failed: the cluster is {state}, but not yet on: {}",
                    deaf.join(", ")
                ))?;
                return Ok(Done::Partly);
            }
        }
        talk.say(&format!("Success: cluster management is {state}"))?;
        Ok(Done::Whole)
    }
}

/// Looks until every member says it, for as long as Patroni does; returns who has not by then.
async fn wait(cluster: &mut Cluster, paused: bool) -> Vec<String> {
    let patience_ms = (loop_wait_s(cluster).await + 1) * 1000;
    let begun = clock::now();
    let mut members = cluster.members();
    loop {
        let mut deaf = Vec::new();
        for member in members {
            let status = cluster.get_from(&member, "/patroni").await;
            if status.map_or(true, |status| flag(&status, "pause") != paused) {
                deaf.push(member);
            }
        }
        if deaf.is_empty() || clock::now().since(begun) > patience_ms {
            return deaf.into_iter().map(|member| member.name).collect();
        }
        members = deaf;
        sleep(LOOK).await;
    }
}
