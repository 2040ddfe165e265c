//! `remove`: Patroni's command for wiping a cluster out of its store. There is no store here that could outlive its
//! cluster, and what the nodes agree on cannot be taken from under them: after the three confirmations a cluster that
//! answers is left as it is, and the person learns what to do instead.

use super::called::Done;
use super::cluster::Cluster;
use super::out::CliError;
use super::sheet::Format;
use super::talk::Talk;
use super::target::Target;
use clap::Args;

const PHRASE: &str = "Yes I am aware";

/// Say how a cluster is removed (its nodes keep its state, so that nothing is removed from here).
#[derive(Args, Debug)]
pub struct Remove {
    /// Name of the cluster
    cluster: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

impl Remove {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let cluster = match Cluster::find(target, Some(&self.cluster), talk).await {
            Err(CliError::Unreachable(silent)) => return Err(nobody(&silent)),
            found => found?,
        };
        talk.print(&cluster.table(self.format))?;
        let refused = |why: String| Err(CliError::Refused(why));
        if talk.ask("Please confirm the cluster name to remove", None)? != self.cluster {
            return refused("Cluster names specified do not match".to_owned());
        }
        let question = format!(
            "Everything the nodes agree on for {} would be lost; type \"{PHRASE}\"",
            self.cluster
        );
        if talk.ask(&question, None)? != PHRASE {
            return refused(format!("You did not exactly type \"{PHRASE}\""));
        }
        if let Some(leader) = cluster.leader() {
            let question = "The cluster has a leader; type its name to go on";
            if talk.ask(question, None)? != leader.name {
                return refused("You did not specify the current leader of the cluster".to_owned());
            }
        }
        refused(format!(
            "Cluster {} runs and is left as it is: its state is kept by its nodes and nowhere else. To remove it, stop \
             matriarch on every node, then remove each node's raft.data_dir, and its data_dir once the data is no \
             longer needed",
            self.cluster
        ))
    }
}

fn nobody(silent: &[String]) -> CliError {
    CliError::Refused(format!(
        "no node answers ({}), and nothing is stored outside of the nodes: a cluster that is stopped on every node is \
         removed by removing each node's raft.data_dir, and its data_dir once the data is no longer needed",
        silent.join("; ")
    ))
}
