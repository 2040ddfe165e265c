//! `recover`: one survivor goes on alone, because the majority is dead for good.
//!
//! Works on the Raft directory of a stopped daemon and asks nobody else. It is the one command by which acknowledged
//! decisions and writes can be lost, so it says so and wants the cluster's name typed.

use super::called::Done;
use super::out::CliError;
use super::talk::Talk;
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{MemberName, Pause, Settings, State};
use crate::config;
use crate::daemon::{DaemonError, raft_settings};
use crate::decide::lease;
use crate::node::machine::Replica;
use clap::Args;
use matriarch_raft::{Recovered, StartError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Go on with this node alone, when the majority is lost for good.
#[derive(Args, Debug)]
pub struct Recover {
    /// The node file of the survivor, whose daemon is stopped
    file: PathBuf,
    /// Ask nothing
    #[arg(long)]
    force: bool,
    /// Go on although writes that were acknowledged to clients may be missing here
    #[arg(long)]
    accept_data_loss: bool,
}

impl Recover {
    pub(super) fn execute(self, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let loaded = config::load(&self.file, &std::env::vars().collect())
            .map_err(|problems| CliError::Config(problems.iter().map(ToString::to_string).collect()))?;
        let settings = raft_settings(&loaded.config, false);
        let me = loaded.config.name.clone();
        let (state, _state) = watch::channel(Arc::new(State::default()));
        let (rules, _rules) = watch::channel(Arc::new(Settings::default()));
        let machine = Box::new(Replica::new(state, rules));
        let edit = |found: &Recovered, bytes: Vec<u8>| self.edit(talk, &settings.cluster, &me, found, &bytes);
        let recovered = match matriarch_raft::recover(&settings, machine, edit) {
            Ok(recovered) => recovered,
            Err(StartError::Declined(why)) => {
                talk.say(&why)?;
                return Ok(Done::Partly);
            }
            Err(error) => return Err(CliError::from(DaemonError::from(error))),
        };
        talk.say(&format!(
            "{me} is the only voter of cluster {} now. Start it: it becomes primary, if it holds data.",
            settings.cluster
        ))?;
        for addr in &recovered.given_up {
            talk.say(&format!(
                "The node at {addr} was given up. Before it starts again, move its raft.data_dir away: then it joins anew."
            ))?;
        }
        Ok(Done::Whole)
    }

    /// Shows what this means, asks, waits for leases to end, and makes the state that the survivor begins with.
    fn edit(
        &self,
        talk: &mut Talk<'_>,
        cluster: &str,
        me: &MemberName,
        found: &Recovered,
        bytes: &[u8],
    ) -> Result<Vec<u8>, String> {
        let mut state: State =
            envelope::open(Kind::State, bytes).map_err(|why| format!("the agreed state: {why}"))?;
        let lost = state.lost_with_others(me);
        let text = warning(cluster, me, &state, found, lost.as_deref());
        talk.print(&text).map_err(|e| e.to_string())?;
        if lost.is_some() && !self.accept_data_loss {
            return Err("Nothing was changed: say --accept-data-loss if that is accepted.".to_owned());
        }
        if !self.force {
            let typed = talk.ask(
                &format!("Type the name of the cluster to go on ({cluster})"),
                Some(""),
            );
            if typed.map_err(|e| e.to_string())? != cluster {
                return Err("Nothing was changed: that is not the name of the cluster.".to_owned());
            }
        }
        let wait = lease::move_at(crate::cluster::Moment(0), None, state.wait_ttl_ms).0;
        let line = format!("Waiting {wait} ms, until every lease that the others granted is over.");
        talk.say(&line).map_err(|e| e.to_string())?;
        std::thread::sleep(Duration::from_millis(wait));
        state.survive(me, clock::wall_ms());
        Ok(envelope::seal(Kind::State, &state))
    }
}

/// What the operator has to be sure of, and what it costs.
fn warning(cluster: &str, me: &MemberName, state: &State, found: &Recovered, lost: Option<&str>) -> String {
    let primary = match state.primacy.last() {
        Some((holder, _)) if holder == me => "this node was the last primary that it knows of".to_owned(),
        Some((holder, _)) => format!("the last primary that it knows of is {holder}"),
        None => "it knows of no primary".to_owned(),
    };
    let loss = match lost {
        Some(why) => format!("WRITES MAY BE LOST: {why}."),
        None => "Writes that only the others have are lost; in asynchronous mode that includes whatever the old primary had \
                 not sent yet."
            .to_owned(),
    };
    let paused = match state.pause {
        Pause::Off => "",
        _ => {
            "The cluster is paused: a primary elsewhere does not stop by itself, however long one waits. The pause ends here.\n"
        }
    };
    format!(
        "This makes {me} alone the whole of cluster {cluster}, and gives up: {}.\n\
         {primary}; its log ends at entry {}.\n\
         Be sure that the other nodes are down and stay down, PostgreSQL included. As long as two of them run they may still \
         have a primary of their own: then there are two, and this command cannot know.\n\
         What the others agreed on and this node has not heard of is lost.\n{paused}{loss}\n",
        found.given_up.join(", "),
        found.last_log,
    )
}
