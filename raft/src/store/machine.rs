//! The replicated machine as openraft drives it: applies entries, remembers how far, makes and takes snapshots.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use matriarch_storage::Log;
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::machine::{Halt, Machine};
use crate::status::Lead;
use crate::types::{Answer, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::wire::envelope::{open, seal};
use crate::wire::stored::SnapshotHead;

/// The machine and how far it has come.
pub(crate) struct StateMachine {
    // The mutex is never contended: openraft drives the machine from one task, but wants it `Sync`.
    machine: Mutex<Box<dyn Machine>>,
    store: Arc<dyn Log>,
    last: Option<LogId>,
    membership: StoredMembership,
}

fn halted(halt: Halt) -> io::Error {
    io::Error::other(halt.why)
}

impl StateMachine {
    /// Starts from the newest snapshot; openraft applies the committed entries after it again.
    pub(crate) fn load(machine: Box<dyn Machine>, store: Arc<dyn Log>) -> io::Result<StateMachine> {
        let saved = load_snapshot(store.as_ref())?;
        let mut this = StateMachine {
            machine: Mutex::new(machine),
            store,
            last: None,
            membership: StoredMembership::default(),
        };
        if let Some(snapshot) = saved {
            this.replace(&snapshot.meta, &snapshot.snapshot)?;
        }
        Ok(this)
    }

    fn with<T>(&self, act: impl FnOnce(&mut dyn Machine) -> T) -> T {
        act(self
            .machine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut())
    }

    fn replace(&mut self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        self.with(|machine| machine.restore(bytes)).map_err(halted)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    /// The index of the newest applied entry, and the whole state.
    pub(crate) fn whole(&self) -> (u64, Vec<u8>) {
        (
            self.last.as_ref().map_or(0, |id| id.index),
            self.with(|machine| machine.snapshot()),
        )
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        }
    }
}

pub(crate) fn load_snapshot(store: &dyn Log) -> io::Result<Option<Snapshot>> {
    let Some((head, bytes)) = store.load_snapshot().map_err(io::Error::other)? else {
        return Ok(None);
    };
    let meta = SnapshotMeta::try_from(open::<SnapshotHead>(&head)?)?;
    Ok(Some(Snapshot {
        meta,
        snapshot: bytes,
    }))
}

pub(crate) fn save_snapshot(store: &dyn Log, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
    let head = seal(&SnapshotHead::from(meta))?;
    store.save_snapshot(&head, bytes).map_err(io::Error::other)
}

/// Runs disk work away from the runtime's threads.
#[cfg(not(test))]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// The same on one thread, and on the runtime's own clock: what waits for another thread cannot be replayed (`model`).
#[cfg(test)]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = work();
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    done
}

/// A snapshot taken in memory, not yet on disk.
pub(crate) struct Builder {
    store: Arc<dyn Log>,
    snapshot: Snapshot,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (store, snapshot) = (self.store.clone(), self.snapshot.clone());
        blocking(move || {
            save_snapshot(store.as_ref(), &snapshot.meta, &snapshot.snapshot)?;
            Ok(snapshot)
        })
        .await
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let leader = &entry.log_id.leader_id;
            let lead = Lead {
                term: leader.term,
                node: leader.node_id,
            };
            let answer = match &entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(command) => self
                    .with(|machine| machine.apply(lead, &command.0))
                    .map_err(halted)?,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Vec::new()
                }
            };
            self.last = Some(entry.log_id);
            // Answered only now: an acknowledged command is an applied one.
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let bytes = self.with(|machine| machine.snapshot());
        Builder {
            store: self.store.clone(),
            snapshot: Snapshot {
                meta: self.meta(),
                snapshot: bytes,
            },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let (store, saved) = (
            self.store.clone(),
            Snapshot {
                meta: meta.clone(),
                snapshot,
            },
        );
        let saved = blocking(move || {
            save_snapshot(store.as_ref(), &saved.meta, &saved.snapshot)?;
            Ok(saved)
        })
        .await?;
        self.replace(&saved.meta, &saved.snapshot)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let store = self.store.clone();
        blocking(move || load_snapshot(store.as_ref())).await
    }
}
