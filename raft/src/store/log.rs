//! openraft's log storage over the storage crate's log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use matriarch_storage::{Log, Meta};
use openraft::RaftLogReader;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};

use crate::store::machine::blocking;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use crate::wire::envelope::{Sealed, open, seal};
use crate::wire::stored::{EntryBytes, LogIdBytes, VoteBytes};

/// Bytes of entries read for one append; far below a frame's limit.
const BATCH: usize = 4 << 20;

/// The log; clones read and write the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Arc<dyn Log>,
}

impl LogStore {
    pub(crate) fn new(store: Arc<dyn Log>) -> LogStore {
        LogStore { store }
    }

    fn entries(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.store.read(from, to, max_bytes).map_err(io::Error::other)?;
        records
            .into_iter()
            .map(|(index, bytes)| decode(index, &bytes))
            .collect()
    }

    /// Waits for the disk: a vote that is not durable was never given.
    async fn put<T: Sealed>(&self, key: Meta, value: &T) -> io::Result<()> {
        let (store, bytes) = (self.store.clone(), seal(value)?);
        blocking(move || store.put(key, bytes).map_err(io::Error::other)).await
    }

    /// The durable vote.
    pub(crate) fn stored_vote(&self) -> io::Result<Option<Vote>> {
        Ok(self.get::<VoteBytes>(Meta::Vote)?.map(Into::into))
    }

    fn get<T: Sealed>(&self, key: Meta) -> io::Result<Option<T>> {
        match self.store.get(key).map_err(io::Error::other)? {
            Some(bytes) => Ok(Some(open(&bytes)?)),
            None => Ok(None),
        }
    }
}

fn decode(index: u64, bytes: &[u8]) -> io::Result<Entry> {
    let entry = open::<EntryBytes>(bytes)?.into_entry()?;
    if entry.log_id.index != index {
        let why = format!("entry {index} of the log says it is entry {}", entry.log_id.index);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(entry)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: B,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, BATCH)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.stored_vote()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged: Option<LogId> = self.get::<LogIdBytes>(Meta::Purged)?.map(Into::into);
        let last = match self.store.last().map_err(io::Error::other)? {
            Some((index, bytes)) => Some(decode(index, &bytes)?.log_id),
            None => purged,
        };
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.put(Meta::Vote, &VoteBytes::from(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Only spares work after a restart, so it need not wait for the disk.
        if let Some(id) = committed {
            let bytes = seal(&LogIdBytes::from(&id))?;
            self.store
                .put_lazy(Meta::Committed, bytes)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.get::<LogIdBytes>(Meta::Committed)?.map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut records = Vec::new();
        for entry in entries {
            records.push((entry.log_id.index, seal(&EntryBytes::from(&entry))?));
        }
        self.store.append(
            records,
            Box::new(move |done| callback.io_completed(done.map_err(io::Error::other))),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let store = self.store.clone();
        let from = last_log_id.map_or(0, |id| id.index + 1);
        blocking(move || store.truncate_from(from).map_err(io::Error::other)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let (store, pointer) = (self.store.clone(), seal(&LogIdBytes::from(&log_id))?);
        blocking(move || store.purge_to(log_id.index, pointer).map_err(io::Error::other)).await
    }
}
