//! The cluster that a command is about, as the first node that answered sees it.

use super::client::{Answer, Client};
use super::document::{array, flag, text};
use super::http::{Question, Reply, Silence};
use super::members::Members;
use super::out::CliError;
use super::sheet::Format;
use super::talk::Talk;
use super::target::Target;
use serde_json::Value;

/// A cluster that answers.
pub(super) struct Cluster {
    client: Client,
    document: Value,
    system_id: Option<String>,
}

/// One member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: String,
    /// Its role in Patroni's words: `leader`, `sync_standby`, `replica`.
    pub(super) role: String,
    /// Its REST address; empty where it has told none.
    pub(super) url: String,
    /// PostgreSQL's host.
    pub(super) host: String,
    /// PostgreSQL's port.
    pub(super) port: u16,
    /// Whether a restart is needed before all its settings are in force.
    pub(super) pending_restart: bool,
    /// Whether a restart is planned.
    pub(super) scheduled_restart: bool,
    /// Whether its tags keep it from being promoted.
    pub(super) nofailover: bool,
}

impl Member {
    /// Whether it leads the cluster.
    pub(super) fn leads(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "standby_leader")
    }

    /// Whether a commit waits for it.
    pub(super) fn is_synchronous(&self) -> bool {
        matches!(self.role.as_str(), "sync_standby" | "quorum_standby")
    }
}

impl Cluster {
    /// The cluster of `target`; it must have the name that is asked for.
    pub(super) async fn find(
        target: &Target,
        wanted: Option<&str>,
        talk: &mut Talk<'_>,
    ) -> Result<Self, CliError> {
        let address = target.resolve(talk)?;
        let found = Self::of_client(Client::new(&address)).await?;
        match wanted.or(address.scope.as_deref()) {
            Some(wanted) if wanted != found.name() => Err(CliError::Target(format!(
                "the nodes that answer belong to cluster {}, not {wanted}",
                found.name()
            ))),
            _ => Ok(found),
        }
    }

    /// The cluster that these nodes belong to.
    pub(super) async fn of_client(mut client: Client) -> Result<Self, CliError> {
        let document = members_document(&mut client).await?;
        for member in array(&document, "members") {
            client.learn(text(member, "api_url"));
        }
        let status = client.get("/patroni").await?.document;
        let system_id = status.get("database_system_identifier").and_then(Value::as_str);
        Ok(Self {
            system_id: system_id.map(str::to_owned),
            client,
            document,
        })
    }

    /// Looks again.
    pub(super) async fn refresh(&mut self) -> Result<(), CliError> {
        self.document = members_document(&mut self.client).await?;
        Ok(())
    }

    /// What was seen.
    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    /// The nodes.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The identifier of the database cluster, once there is one.
    pub(super) fn system_id(&self) -> Option<&str> {
        self.system_id.as_deref()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        text(&self.document, "scope")
    }

    /// Whether it is in maintenance mode.
    pub(super) fn is_paused(&self) -> bool {
        flag(&self.document, "pause")
    }

    /// Whether a switchover is planned.
    pub(super) fn plans_switchover(&self) -> bool {
        self.document.get("scheduled_switchover").is_some()
    }

    /// Everybody, in the order of the document.
    pub(super) fn members(&self) -> Vec<Member> {
        array(&self.document, "members").iter().map(member).collect()
    }

    /// Whoever leads.
    pub(super) fn leader(&self) -> Option<Member> {
        self.members().into_iter().find(Member::leads)
    }

    /// The table that is shown before something is done.
    pub(super) fn table(&self, format: Format) -> String {
        let members = Members {
            name: self.name(),
            cluster: &self.document,
            witnesses: &[],
        };
        members.render(self.system_id(), false, format)
    }

    /// A document of any node.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, CliError> {
        self.client.get(path).await
    }

    /// A document of that member.
    pub(super) async fn get_from(&self, member: &Member, path: &str) -> Result<Value, String> {
        self.client.get_from(&member.url, path).await
    }

    /// Asks that member itself.
    pub(super) async fn send(&self, member: &Member, question: &Question<'_>) -> Result<Reply, Silence> {
        if member.url.is_empty() {
            return Err(Silence::NotReached("its address is not known".to_owned()));
        }
        self.client.send(&member.url, question).await
    }

    /// Asks any node, `first` and then the leader before all others: whoever does not lead passes it on.
    pub(super) async fn send_any(
        &self,
        first: Option<&Member>,
        question: &Question<'_>,
    ) -> Result<Reply, CliError> {
        let leader = self.leader();
        let urls: Vec<&str> = [first, leader.as_ref()]
            .into_iter()
            .flatten()
            .map(|member| member.url.as_str())
            .collect();
        self.client.send_any(&urls, question).await
    }
}

async fn members_document(client: &mut Client) -> Result<Value, CliError> {
    let answer = client.get("/cluster").await?;
    match answer.document.get("members") {
        Some(Value::Array(_)) => Ok(answer.document),
        _ => Err(CliError::Answer {
            url: answer.url,
            what: "a list of members",
        }),
    }
}

fn member(value: &Value) -> Member {
    let tag = |key: &str| value.get("tags").and_then(|tags| tags.get(key));
    let port = value.get("port").and_then(Value::as_u64);
    // The tag that says it outright wins over the one that gives an order.
    let nofailover = match tag("nofailover").and_then(Value::as_bool) {
        Some(word) => word,
        None => tag("failover_priority")
            .and_then(Value::as_i64)
            .is_some_and(|priority| priority <= 0),
    };
    Member {
        name: text(value, "name").to_owned(),
        role: text(value, "role").to_owned(),
        url: text(value, "api_url").to_owned(),
        host: text(value, "host").to_owned(),
        port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(5432),
        pending_restart: flag(value, "pending_restart"),
        scheduled_restart: value.get("scheduled_restart").is_some(),
        nofailover,
    }
}
