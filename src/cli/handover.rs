//! What `switchover` and `failover` share: who hands over to whom, asked where the arguments do not say.

use super::called::Done;
use super::cluster::{Cluster, Member};
use super::http::{Question, Reply};
use super::out::CliError;
use super::planned;
use super::sheet::Format;
use super::talk::{Talk, local_time};
use axum::http::Method;
use serde_json::{Map, Value};
use std::time::Duration;

/// The node itself gives up before.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The word by which a loss is accepted, in an order and in the refusal that asks for it.
const LOSS: &str = "accept_data_loss";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a primary that works.
    Switchover,
    /// To somebody, whatever the primary does.
    Failover,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }
}

/// What was typed.
pub(super) struct Handover {
    /// Which of the two.
    pub(super) kind: Kind,
    /// `--leader`.
    pub(super) leader: Option<String>,
    /// `--candidate`.
    pub(super) candidate: Option<String>,
    /// `--scheduled`.
    pub(super) scheduled: Option<String>,
    /// Acknowledged commits may be lost.
    pub(super) accept_loss: bool,
    /// Nothing is asked.
    pub(super) force: bool,
}

/// What is asked of the cluster.
struct Order {
    leader: Option<String>,
    candidate: Option<String>,
    at: Option<String>,
    accept_loss: bool,
}

impl Handover {
    /// Checks, asks, sends, and shows what came of it.
    pub(super) async fn execute(self, mut cluster: Cluster, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        talk.say("Current cluster topology")?;
        talk.print(&cluster.table(Format::Pretty))?;
        let mut order = self.order(&cluster, talk)?;
        if !self.force {
            self.confirm(&mut order, &cluster, talk)?;
        }
        let mut reply = self.send(&cluster, &order, talk).await?;
        if reply.status == 412 && reply.text.contains(LOSS) && !order.accept_loss && !self.force {
            talk.say(&reply.text)?;
            if !talk.confirm("Are you sure you want to accept that loss?")? {
                return Err(self.aborted());
            }
            order.accept_loss = true;
            reply = self.send(&cluster, &order, talk).await?;
        }
        if !matches!(reply.status, 200 | 202) {
            let word = match self.kind {
                Kind::Switchover => "Switchover",
                Kind::Failover => "Failover",
            };
            talk.say(&format!(
                "{word} failed, details: {}, {}",
                reply.status, reply.text
            ))?;
            if reply.text.contains(LOSS) {
                talk.note("note: with --accept-data-loss the loss is accepted");
            }
            return Ok(Done::Partly);
        }
        talk.say(&format!("{} {}", local_time(5), reply.text))?;
        cluster.refresh().await?;
        talk.print(&cluster.table(Format::Pretty))?;
        Ok(Done::Whole)
    }

    async fn send(&self, cluster: &Cluster, order: &Order, talk: &Talk<'_>) -> Result<Reply, CliError> {
        // Without a leader the candidate is the one who has to know.
        let candidate = order.candidate.as_deref();
        let to = candidate.and_then(|name| cluster.members().into_iter().find(|m| m.name == name));
        let first = cluster.leader().or(to);
        let path = format!("/{}", self.kind.word());
        let body = Value::Object(order.body());
        let question = Question {
            method: Method::POST,
            path: &path,
            body: Some(&body),
            patience: PATIENCE,
            if_match: None,
        };
        let _turning = talk.turning(&format!("waiting for the {}", self.kind.word()));
        cluster.send_any(first.as_ref(), &question).await
    }

    fn aborted(&self) -> CliError {
        CliError::Refused(format!("Aborted {}", self.kind.word()))
    }

    fn order(&self, cluster: &Cluster, talk: &mut Talk<'_>) -> Result<Order, CliError> {
        let scope = cluster.name();
        let refused = |why: String| Err(CliError::Refused(why));
        let present = cluster.leader();
        let leader = match (self.kind, &present) {
            (Kind::Failover, _) => None,
            (Kind::Switchover, None) => return refused("This cluster has no leader".to_owned()),
            (Kind::Switchover, Some(present)) => {
                let named = match &self.leader {
                    Some(name) => name.clone(),
                    None if self.force => present.name.clone(),
                    None => talk.ask("Primary", Some(&present.name))?,
                };
                if named != present.name {
                    return refused(format!("Member {named} is not the leader of cluster {scope}"));
                }
                Some(named)
            }
        };
        let names = candidates(cluster);
        if names.is_empty() {
            return refused(format!("No candidates found to {} to", self.kind.word()));
        }
        let candidate = self.candidate(&names, talk)?;
        match &candidate {
            None if self.kind == Kind::Failover => {
                return refused("Failover could be performed only to a specific candidate".to_owned());
            }
            Some(name) if present.as_ref().is_some_and(|present| present.name == *name) => {
                return refused(format!("Member {name} is already the leader of cluster {scope}"));
            }
            Some(name) if !names.contains(name) => {
                return refused(format!(
                    "Member {name} does not exist in cluster {scope} or is tagged as nofailover"
                ));
            }
            _ => {}
        }
        let at = self.moment(talk)?;
        if at.is_some() && cluster.is_paused() {
            return refused("Can't schedule switchover in the paused state".to_owned());
        }
        Ok(Order {
            leader,
            candidate,
            at,
            accept_loss: self.accept_loss,
        })
    }

    fn candidate(&self, names: &[String], talk: &mut Talk<'_>) -> Result<Option<String>, CliError> {
        let named = match &self.candidate {
            Some(name) => name.clone(),
            None if self.force => return Ok(None),
            None => {
                let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
                talk.ask(&format!("Candidate [{}]", quoted.join(", ")), Some(""))?
            }
        };
        Ok(Some(named).filter(|name| !name.is_empty()))
    }

    fn moment(&self, talk: &mut Talk<'_>) -> Result<Option<String>, CliError> {
        match &self.scheduled {
            _ if self.kind == Kind::Failover => Ok(None),
            Some(text) => planned::parse(text),
            None if self.force => Ok(None),
            None => {
                let question = format!(
                    "When should the switchover take place (e.g. {})",
                    planned::example()
                );
                planned::parse(&talk.ask(&question, Some("now"))?)
            }
        }
    }

    fn confirm(&self, order: &mut Order, cluster: &Cluster, talk: &mut Talk<'_>) -> Result<(), CliError> {
        let (word, scope) = (self.kind.word(), cluster.name());
        let demand_yes = |question: String, talk: &mut Talk<'_>| match talk.confirm(&question) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.aborted()),
            Err(error) => Err(error),
        };
        let members = cluster.members();
        let chosen = members
            .iter()
            .find(|m| Some(m.name.as_str()) == order.candidate.as_deref());
        let is_synchronous = members.iter().any(Member::is_synchronous);
        if let Some(chosen) = chosen
            && self.kind == Kind::Failover
            && is_synchronous
            && !chosen.is_synchronous()
        {
            let question = format!(
                "{} is asynchronous and may lack acknowledged commits. Are you sure you want to failover to it?",
                chosen.name
            );
            demand_yes(question, talk)?;
            order.accept_loss = true;
        }
        let demoting = cluster.leader().map_or_else(String::new, |leader| {
            format!(", demoting current leader {}", leader.name)
        });
        let what = match &order.at {
            Some(at) => format!("schedule {word} of cluster {scope} at {at}{demoting}"),
            None => format!("{word} cluster {scope}{demoting}"),
        };
        demand_yes(format!("Are you sure you want to {what}?"), talk)
    }
}

impl Order {
    fn body(&self) -> Map<String, Value> {
        let pairs = [
            ("leader", &self.leader),
            ("candidate", &self.candidate),
            ("scheduled_at", &self.at),
        ];
        let mut body: Map<String, Value> = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.as_ref()?.as_str().into())))
            .collect();
        if self.accept_loss {
            body.insert(LOSS.to_owned(), true.into());
        }
        body
    }
}

fn candidates(cluster: &Cluster) -> Vec<String> {
    let mut names: Vec<String> = cluster
        .members()
        .into_iter()
        .filter(|member| !member.leads() && !member.nofailover)
        .map(|member| member.name)
        .collect();
    names.sort();
    names
}
