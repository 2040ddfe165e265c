//! `member list|add|remove`: who takes part in the group, and how.

use super::called::Done;
use super::cluster::Cluster;
use super::document::{array, flag, text};
use super::http::Question;
use super::out::CliError;
use super::sheet::{Column, Format, Sheet};
use super::talk::Talk;
use super::target::Target;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// A member that was not heard of for longer is away.
const AWAY_MS: u64 = 10_000;

/// Show, add and remove members of the group.
#[derive(Args, Debug)]
pub struct MemberCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who votes, who learns, and when each was last heard
    List {
        /// Name of the cluster
        cluster: Option<String>,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t)]
        format: Format,
    },
    /// Let a member that was removed join again
    Add {
        /// Its name
        name: String,
    },
    /// Take a member out: its vote, its replication slot, its place in the synchronous set
    Remove {
        /// Its name
        name: String,
        /// Also when no further loss would be survived; asks nothing
        #[arg(long)]
        force: bool,
    },
}

impl MemberCommand {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        match self.what {
            What::List { cluster, format } => {
                let mut cluster = Cluster::find(target, cluster.as_deref(), talk).await?;
                let answer = cluster.get("/members").await?;
                talk.print(&sheet(&answer.document).render(format))?;
                if format == Format::Pretty {
                    for name in array(&answer.document, "removed")
                        .iter()
                        .filter_map(Value::as_str)
                    {
                        talk.say(&format!(
                            " Removed: {name} (`matriarch member add {name}` lets it join again)"
                        ))?;
                    }
                }
                Ok(Done::Whole)
            }
            What::Add { name } => {
                let body = json!({"name": name});
                ask(target, talk, Method::POST, &body).await
            }
            What::Remove { name, force } => {
                let question = format!("Do you want to take {name} out of the cluster?");
                if !force && !talk.confirm(&question)? {
                    talk.say("Nothing was changed.")?;
                    return Ok(Done::Partly);
                }
                let body = json!({"name": name, "force": force});
                ask(target, talk, Method::DELETE, &body).await
            }
        }
    }
}

async fn ask(target: &Target, talk: &mut Talk<'_>, method: Method, body: &Value) -> Result<Done, CliError> {
    let cluster = Cluster::find(target, None, talk).await?;
    let question = Question {
        method,
        path: "/members",
        body: Some(body),
        patience: PATIENCE,
        if_match: None,
    };
    let reply = cluster.send_any(None, &question).await?;
    let well = reply.status == 200;
    let word = if well { "Success" } else { "Failed" };
    talk.say(&format!("{word}: {}", reply.text))?;
    Ok(Done::when(well))
}

fn sheet(document: &Value) -> Sheet {
    let column = |name, right| Column {
        name,
        heading: Some(name),
        right,
    };
    Sheet {
        title: Some(format!("Members of {}", text(document, "scope"))),
        columns: vec![
            column("Member", false),
            column("Raft id", false),
            column("Address", false),
            column("Vote", false),
            column("Data", false),
            column("Last heard", true),
            column("Level", true),
        ],
        rows: array(document, "members").iter().map(row).collect(),
    }
}

fn row(member: &Value) -> Vec<Value> {
    let vote = match flag(member, "leaving") {
        true => format!("{} (leaving)", text(member, "vote")),
        false => text(member, "vote").to_owned(),
    };
    let heard = match member.get("last_heard_ms").and_then(Value::as_u64) {
        Some(ms) if ms < AWAY_MS => format!("{ms} ms"),
        Some(ms) => format!("{} s", ms / 1_000),
        None => "never".to_owned(),
    };
    let address = match text(member, "address") {
        "" => "none",
        address => address,
    };
    vec![
        text(member, "name").into(),
        text(member, "raft_id").into(),
        address.into(),
        vote.into(),
        if flag(member, "data") { "yes" } else { "witness" }.into(),
        heard.into(),
        member.get("level").cloned().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_a_row() {
        let document = json!({"scope": "herd", "members": [
            {"name": "n1", "raft_id": "18446744073709551615", "address": "10.0.0.1:2222", "vote": "leader", "data": true,
             "level": 3, "last_heard_ms": 120, "leaving": false},
            {"name": "n2", "raft_id": "7", "address": "", "vote": "none", "data": false,
             "level": 3, "last_heard_ms": 61_000, "leaving": true},
        ], "removed": []});
        let table = sheet(&document).render(Format::Tsv);
        let expected = "Member\tRaft id\tAddress\tVote\tData\tLast heard\tLevel\n\
                        n1\t18446744073709551615\t10.0.0.1:2222\tleader\tyes\t120 ms\t3\n\
                        n2\t7\tnone\tnone (leaving)\twitness\t61 s\t3\n";
        assert_eq!(table, expected);
    }
}
