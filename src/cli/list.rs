//! `list`: the members of a cluster, in the table everybody knows.

use super::called::Done;
use super::client::Client;
use super::cluster::Cluster;
use super::document::{array, text};
use super::members::Members;
use super::out::{self, CliError};
use super::sheet::Format;
use super::talk::{Talk, local_time};
use super::target::Target;
use super::watching::Watching;
use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

/// Show the members of the cluster.
#[derive(Args, Debug)]
pub struct List {
    /// Names of clusters; the one that answers when left out
    cluster: Vec<String>,
    /// Show every column, and witnesses too
    #[arg(short, long)]
    extended: bool,
    /// Say the time first
    #[arg(short, long)]
    timestamp: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    watching: Watching,
}

/// Show who follows whom.
#[derive(Args, Debug)]
pub struct Topology {
    /// Names of clusters; the one that answers when left out
    cluster: Vec<String>,
    #[command(flatten)]
    watching: Watching,
}

impl List {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let look = Look {
            wanted: self.cluster,
            extended: self.extended,
            timestamp: self.timestamp,
            format: self.format,
            tree: false,
        };
        look.again_and_again(&self.watching, target, talk).await
    }
}

impl Topology {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let look = Look {
            wanted: self.cluster,
            extended: false,
            timestamp: false,
            format: Format::Pretty,
            tree: true,
        };
        look.again_and_again(&self.watching, target, talk).await
    }
}

/// What both commands show.
struct Look {
    wanted: Vec<String>,
    extended: bool,
    timestamp: bool,
    format: Format,
    tree: bool,
}

impl Look {
    async fn again_and_again(
        &self,
        watching: &Watching,
        target: &Target,
        talk: &mut Talk<'_>,
    ) -> Result<Done, CliError> {
        let address = target.resolve(talk)?;
        let mut client = Client::new(&address);
        let Some(period) = watching.period() else {
            let text = self.text(&mut client, address.scope.as_deref()).await?;
            talk.print(&text)?;
            return Ok(Done::Whole);
        };
        loop {
            let text = self.text(&mut client, address.scope.as_deref()).await;
            talk.clear()?;
            match text {
                Ok(text) => talk.print(&text)?,
                // A watcher is there to see the cluster come back.
                Err(error) => out::complain(talk.notes, &error),
            }
            sleep(period).await;
        }
    }

    async fn text(&self, client: &mut Client, scope: Option<&str>) -> Result<String, CliError> {
        let cluster = Cluster::of_client(client.clone()).await?;
        *client = cluster.client().clone();
        let explained = if self.extended {
            client.get("/explain").await.ok()
        } else {
            None
        };
        let witnesses = explained
            .as_ref()
            .map_or(&[][..], |answer| array(&answer.document, "members"));
        let answering = text(cluster.document(), "scope");
        let mut wanted: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
        if wanted.is_empty() {
            wanted.push(scope.unwrap_or(answering));
        }
        let mut shown = String::new();
        if self.timestamp {
            shown.push_str(&(local_time(0) + "\n"));
        }
        for name in wanted {
            let known = name == answering;
            let members = Members {
                name,
                cluster: if known { cluster.document() } else { &Value::Null },
                witnesses: if known { witnesses } else { &[] },
            };
            let system_id = cluster.system_id().filter(|_| known);
            shown.push_str(&if self.tree {
                members.topology(system_id)
            } else {
                members.render(system_id, self.extended, self.format)
            });
        }
        Ok(shown)
    }
}
