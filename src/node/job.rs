//! One long piece of work on PostgreSQL, run beside the node loop: at most one at a time, dropped when duty changes.

use crate::cluster::{Epoch, Incarnation, Promise, Synced, WalEnd};
use crate::postgres::DataDir;
use std::future::Future;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a job is for; a duty that asks for the same goes on with it, another one aborts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Look at the data directory.
    Inspect,
    /// Read where the log ends.
    ReadEnd,
    /// Create the database cluster and serve in this epoch.
    Bootstrap(Epoch),
    /// Start as primary in this epoch.
    Restart(Epoch),
    /// Promote in this epoch.
    Promote(Epoch),
    /// Start as a standby.
    Standby,
    /// Point a running standby at another primary, or take in changed settings.
    Configure,
    /// What a serving primary owes: checkpoint, slots.
    Chores,
    /// Keep the promise of this epoch, and read where the log ends.
    Promise(Epoch),
    /// Prove that the synchronous standbys have everything.
    Prove(Synced),
    /// Start a standby again, as an operator asked.
    Again,
    /// Give a standby what its primary has, if its replay waits for that.
    Raise,
    /// The slots that a standby keeps for the others, and those that it need not keep.
    Tidy,
    /// Write a checkpoint before another member becomes primary after this epoch.
    Prepare(Epoch),
    /// Stop at once.
    Fence,
    /// Stop in order to rewind or clone, or because the daemon stops.
    Stop,
    /// Copy the data.
    Clone,
    /// Rewind the data.
    Rewind,
}

impl Purpose {
    /// Work that may be dropped half-way when something more urgent is owed.
    pub fn may_abort(&self) -> bool {
        !matches!(self, Self::Fence | Self::Stop | Self::Inspect | Self::ReadEnd)
    }
}

/// How a job ended.
#[derive(Debug)]
pub enum Done {
    /// The data directory was looked at; the dynamic configuration that goes with it, if it was there before us.
    Inspected(Result<(DataDir, Option<String>), String>),
    /// The end of the log was read.
    End(Result<Option<WalEnd>, String>),
    /// A primary runs in this epoch.
    Risen(Epoch),
    /// It could not be; what was started has been stopped again.
    NotRisen(Epoch, String),
    /// The operator's script was against the promotion; nothing was changed.
    Declined(Epoch, String),
    /// A promise is kept.
    Promised(Promise),
    /// A change of the synchronous standbys is proved.
    Proved(Synced),
    /// A standby was started, perhaps with higher values than its file says: they wait for another start then.
    Started {
        /// Whether they are higher.
        raised: bool,
    },
    /// Something without a result succeeded.
    Good,
    /// The data was copied: which copy this is now.
    Cloned(Incarnation),
    /// Something without a result failed.
    Failed(String),
}

/// A running job.
pub struct Job {
    /// What it is for.
    pub purpose: Purpose,
    /// How far it is, for people.
    pub progress: watch::Receiver<Option<String>>,
    task: JoinHandle<Done>,
}

impl Job {
    /// Starts a job.
    pub fn spawn<F>(purpose: Purpose, work: impl FnOnce(watch::Sender<Option<String>>) -> F) -> Self
    where
        F: Future<Output = Done> + Send + 'static,
    {
        let (sender, progress) = watch::channel(None);
        Self {
            purpose,
            progress,
            task: tokio::spawn(work(sender)),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resolves with the job's result; never without a job.
pub async fn finished(job: &mut Option<Job>) -> Done {
    match job {
        Some(job) => (&mut job.task)
            .await
            .unwrap_or_else(|why| Done::Failed(why.to_string())),
        None => std::future::pending().await,
    }
}
