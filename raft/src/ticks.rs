//! openraft's ticks, beating only where something can come of them, and the leader's heartbeats.
//!
//! openraft looks at its timers every 13/64 of what it takes for a heartbeat (`form::config`), which is 41 times a second
//! where a leader's are 50 ms apart, on every node, for ever. That is most of what an idle cluster would cost. A follower's
//! tick does nothing but ask whether its leader has been silent for an election timeout, and a leader's does nothing but
//! send a heartbeat when one is due. So a follower does without ticks until the leader's next heartbeat is late (`beats`;
//! at three quarters of `election_min` at the latest), and a leader sends its heartbeats from here. Whoever is neither
//! ticks as openraft means it; and ticks return when this task ends, however it ends.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::sleep;

use crate::metronome::Metronome;
use crate::node::Node;
use crate::types::Raft;

/// What this node does until it looks again.
#[derive(Debug, PartialEq, Eq)]
enum Pace {
    /// It leads: a heartbeat now, and the next one after this long.
    Lead(Duration),
    /// Its leader has been heard: nothing can be due until its next heartbeat, or until that is late.
    Rest,
    /// Nobody leads, or the leader is silent: openraft's own ticks.
    Tick(Duration),
}

/// Runs until the node is closed.
pub(crate) async fn pace(node: Arc<Node>) {
    let heartbeat = Duration::from_millis(node.settings.heartbeat_ms);
    let patience = node.beats.patience();
    let raft = loop {
        match node.raft.get() {
            Some(raft) => break raft,
            None => sleep(heartbeat).await,
        }
    };
    let ticks = Ticks(raft);
    let trigger = raft.trigger();
    let mut leadership = raft.server_metrics();
    let mut metronome = None;
    loop {
        let strike = node.beats.strikes();
        let leads = leadership.borrow_and_update().state == ServerState::Leader;
        let silence = node.heard_at().map(|at| at.elapsed());
        if !leads {
            metronome = None;
        }
        let rest = match choose(leads, silence, heartbeat, patience) {
            Pace::Lead(next) => {
                ticks.beat(false);
                node.beats.strike();
                if trigger.heartbeat().await.is_err() {
                    return;
                }
                metronome.get_or_insert_with(|| Metronome::new(next)).tick().await;
                continue;
            }
            Pace::Rest => {
                ticks.beat(false);
                // Another node may have handed the lead over to this one.
                tokio::select! {
                    () = strike => {}
                    changed = leadership.changed() => if changed.is_err() {
                        return;
                    },
                }
                continue;
            }
            Pace::Tick(wait) => {
                ticks.beat(true);
                wait
            }
        };
        sleep(rest).await;
    }
}

fn choose(leads: bool, silence: Option<Duration>, heartbeat: Duration, patience: Duration) -> Pace {
    match silence {
        _ if leads => Pace::Lead(heartbeat),
        Some(silence) if silence < patience => Pace::Rest,
        _ => Pace::Tick(heartbeat),
    }
}

/// openraft's ticks, which beat again when this is dropped.
struct Ticks<'a>(&'a Raft);

impl Ticks<'_> {
    fn beat(&self, on: bool) {
        self.0.runtime_config().tick(on);
    }
}

impl Drop for Ticks<'_> {
    fn drop(&mut self) {
        self.beat(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_millis(150);

    fn pace(leads: bool, silence_ms: Option<u64>) -> Pace {
        choose(leads, silence_ms.map(Duration::from_millis), BEAT, PATIENCE)
    }

    #[test]
    fn ticks_rest_only_under_a_leader_that_was_just_heard() {
        let text: Vec<String> = [
            (false, None),
            (false, Some(0)),
            (false, Some(149)),
            (false, Some(150)),
            (false, Some(10_000)),
            (true, None),
            (true, Some(0)),
            (true, Some(10_000)),
        ]
        .into_iter()
        .map(|(leads, silence)| format!("{leads} {silence:?}: {:?}", pace(leads, silence)))
        .collect();
        assert_eq!(
            text.join("\n"),
            "false None: Tick(50ms)\n\
             false Some(0): Rest\n\
             false Some(149): Rest\n\
             false Some(150): Tick(50ms)\n\
             false Some(10000): Tick(50ms)\n\
             true None: Lead(50ms)\n\
             true Some(0): Lead(50ms)\n\
             true Some(10000): Lead(50ms)"
        );
    }
}
