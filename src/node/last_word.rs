//! What the guard's messenger says: this node's epoch is over, nothing of it lives, and its log ends here.
//!
//! It runs in place of a daemon that is dead, stopped or hung, so it opens nothing of the daemon's: no store, no
//! socket. It speaks as the member it comes from, by the group's password or certificates, to every voter, because
//! nobody knows here who leads, and who leads next must have heard it too.

use super::hands::Hands;
use crate::clock;
use crate::cluster::envelope::{self, Kind};
use crate::cluster::{
    Epoch, Lsn, MemberInfo, PeerMessage, PeerReply, PostgresReport, PostgresState, Report, Role, Tenure,
    WalEnd,
};
use crate::config::Config;
use matriarch_raft::{Courier, Settings};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Reading the end of the log may take as long as a part of what telling it saves.
const READ_END: Duration = Duration::from_millis(1_000);
/// One attempt at one voter.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// After this time the lease has done what this word would have done.
const GIVE_UP_MS: u64 = 5_000;

/// What the daemon left for this day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The member that it comes from.
    pub info: MemberInfo,
    /// Peer addresses of the other voters.
    pub peers: Vec<String>,
}

impl Note {
    /// As an argument of a command line.
    pub fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// The word: an epoch that its guard has fenced.
pub struct LastWord {
    /// The node file, as the daemon read it.
    pub config: Config,
    /// How the peers are spoken to.
    pub raft: Settings,
    /// What the daemon left.
    pub note: Note,
    /// The epoch.
    pub epoch: Epoch,
    /// A position near the end of the log.
    pub near: Option<Lsn>,
}

impl LastWord {
    /// Reads the end of the log and tells every voter; the number of those that heard it.
    pub async fn speak(self) -> Result<usize, String> {
        let courier = Arc::new(Courier::new(&self.raft).map_err(|why| why.to_string())?);
        let message = Arc::new(self.message().await);
        let tasks: Vec<_> = self
            .note
            .peers
            .into_iter()
            .map(|peer| tokio::spawn(tell(courier.clone(), peer, message.clone())))
            .collect();
        let mut heard = 0;
        for task in tasks {
            heard += usize::from(task.await.unwrap_or(false));
        }
        Ok(heard)
    }

    async fn message(&self) -> PeerMessage {
        let end = self.end().await;
        let mut report = Report::first(self.note.info.clone());
        report.run = super::random_run();
        report.tenure = Tenure::Ended {
            epoch: self.epoch,
            end,
            why: "its guard ended PostgreSQL, the daemon does not answer".to_owned(),
        };
        // Without this the leader would have the node start its PostgreSQL again.
        report.unpromotable = Some("its daemon does not answer".to_owned());
        report.postgres = Some(PostgresReport {
            state: PostgresState::Crashed,
            role: Role::Demoted,
            timeline: end.map(|end| end.timeline),
            ..PostgresReport::default()
        });
        PeerMessage::Report(Box::new(report))
    }

    /// Without the end the word is still true; what may be lost is then unknown.
    async fn end(&self) -> Option<WalEnd> {
        let section = self.config.postgresql.as_ref()?;
        let read = async {
            Hands::check(&self.config, section)
                .ok()?
                .wal_end(self.near)
                .await
                .ok()?
        };
        tokio::time::timeout(READ_END, read).await.ok().flatten()
    }
}

async fn tell(courier: Arc<Courier>, peer: String, message: Arc<PeerMessage>) -> bool {
    let begun = clock::now();
    loop {
        let mut message = PeerMessage::clone(&message);
        if let PeerMessage::Report(report) = &mut message {
            report.sent_at = clock::now();
        }
        let bytes = envelope::seal(Kind::Message, &message);
        match courier.deliver(&peer, bytes, ATTEMPT).await {
            Ok(reply) if envelope::open::<PeerReply>(Kind::Reply, &reply).is_ok() => return true,
            Ok(_) => {}
            Err(why) => tracing::debug!("{why}"),
        }
        if clock::now().since(begun) > GIVE_UP_MS {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
