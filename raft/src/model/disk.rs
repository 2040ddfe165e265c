//! A disk with a crash in it: what was written lives at once, what was synced survives.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use matriarch_storage::{Done, Entry, Log, Meta, Snapshot, StorageError};

use crate::model::dice::Dice;
use crate::model::world::{Bend, World};
use crate::wire::envelope::open;
use crate::wire::stored::{EntryBytes, LogIdBytes, PayloadBytes, VoteBytes};

/// The contents at one moment.
#[derive(Clone, Default)]
pub(crate) struct Image {
    log: BTreeMap<u64, Vec<u8>>,
    facts: HashMap<Meta, Vec<u8>>,
    snapshot: Option<Snapshot>,
}

/// One write.
enum Write {
    Append(Vec<Entry>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
    Put(Meta, Vec<u8>),
    Snapshot(Snapshot),
}

impl Image {
    fn take(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => self.log.extend(entries.iter().cloned()),
            Write::Truncate(from) => drop(self.log.split_off(from)),
            Write::Purge(to, pointer) => {
                self.facts.insert(Meta::Purged, pointer.clone());
                self.log = self.log.split_off(&(to + 1));
            }
            Write::Put(key, value) => drop(self.facts.insert(*key, value.clone())),
            Write::Snapshot(snapshot) => self.snapshot = Some(snapshot.clone()),
        }
    }

    fn id_at(&self, index: u64) -> Option<LogIdBytes> {
        let bytes = self.log.get(&index)?;
        Some(open::<EntryBytes>(bytes).unwrap().id)
    }

    /// Every command that this log and its snapshot hold.
    fn commands(&self) -> Vec<u64> {
        let data = self.snapshot.iter().flat_map(|(_, data)| commands(data));
        let logged = self
            .log
            .values()
            .filter_map(|bytes| match open::<EntryBytes>(bytes).unwrap().payload {
                PayloadBytes::Command(command) => commands(&command).next(),
                _ => None,
            });
        data.chain(logged).collect()
    }
}

/// Numbers written one after the other.
pub(crate) fn commands(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let number = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().unwrap());
    bytes.chunks_exact(8).map(number)
}

/// What outlives the node.
#[derive(Default)]
pub(crate) struct Disk(Mutex<State>);

#[derive(Default)]
struct State {
    /// What a crash leaves.
    durable: Image,
    /// Written since, oldest first.
    pending: VecDeque<Write>,
    /// Writes so far; the pending ones are the newest of them.
    written: u64,
    current: Image,
    /// Who waits for which write.
    waiting: VecDeque<(u64, Done)>,
    /// Which life of the node may write.
    life: u64,
}

impl State {
    fn write(&mut self, write: Write) -> u64 {
        self.current.take(&write);
        self.pending.push_back(write);
        self.written += 1;
        self.written
    }

    /// Makes everything up to that write durable; answers whom to tell, in order.
    fn sync(&mut self, upto: u64) -> Vec<Done> {
        while self.written - (self.pending.len() as u64) < upto {
            let write = self.pending.pop_front().unwrap();
            self.durable.take(&write);
        }
        let told = self.waiting.partition_point(|(write, _)| *write <= upto);
        self.waiting.drain(..told).map(|(_, done)| done).collect()
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The node dies: of what was not synced a part is there, from the beginning on.
    pub(crate) fn crash(&self, dice: &mut Dice) {
        let mut state = self.state();
        let kept = dice.within(0, state.pending.len() as u64);
        let upto = state.written - (state.pending.len() as u64) + kept;
        state.sync(upto);
        state.pending.clear();
        state.current = state.durable.clone();
        state.life += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting
            .into_iter()
            .for_each(|(_, done)| done(Err(StorageError::Closed)));
    }

    /// A new disk in the old one's place.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        (state.durable, state.current) = Default::default();
        state.pending.clear();
    }

    pub(crate) fn open(self: &Arc<Self>, world: Arc<World>, site: usize) -> Handle {
        let life = self.state().life;
        Handle {
            disk: self.clone(),
            world,
            site,
            life,
        }
    }
}

/// The disk as one life of a node sees it.
pub(crate) struct Handle {
    disk: Arc<Disk>,
    world: Arc<World>,
    site: usize,
    life: u64,
}

impl Handle {
    fn alive(&self) -> Result<MutexGuard<'_, State>, StorageError> {
        let state = self.disk.state();
        match state.life == self.life {
            true => Ok(state),
            false => Err(StorageError::Closed),
        }
    }

    fn durably(&self, write: Write) -> Result<(), StorageError> {
        let mut state = self.alive()?;
        let number = state.write(write);
        let told = state.sync(number);
        drop(state);
        told.into_iter().for_each(|done| done(Ok(())));
        Ok(())
    }

    /// What the judge hears of entries that are about to be written.
    fn tell(&self, state: &State, entries: &[Entry]) {
        let own = self.world.id_of(self.site);
        let vote = state.current.facts.get(&Meta::Vote);
        let vote = vote.map(|bytes| open::<VoteBytes>(bytes).unwrap());
        let mut judge = self.world.judge();
        let mut before = None;
        for (index, bytes) in entries {
            let entry: EntryBytes = open(bytes).unwrap();
            let previous = before
                .take()
                .or_else(|| state.current.id_at(index.wrapping_sub(1)));
            let by_itself = vote
                .as_ref()
                .is_some_and(|v| (v.term, v.node) == (entry.id.term, entry.id.node) && v.node == own);
            if by_itself && entry.payload == PayloadBytes::Blank {
                judge.reigns(&entry.id, state.current.commands());
            }
            before = Some(entry.id.clone());
            judge.appended(self.site, entry, previous);
        }
    }
}

impl Log for Handle {
    fn append(&self, entries: Vec<Entry>, done: Done) {
        let mut state = match self.alive() {
            Ok(state) => state,
            Err(e) => return done(Err(e)),
        };
        self.tell(&state, &entries);
        let number = state.write(Write::Append(entries));
        if self.world.bend == Bend::AnswersBeforeSync {
            drop(state);
            return done(Ok(()));
        }
        state.waiting.push_back((number, done));
        drop(state);
        let pause = Duration::from_millis(self.world.dice().within(0, 4));
        let (disk, life) = (self.disk.clone(), self.life);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut state = disk.state();
            if state.life == life {
                let told = state.sync(number);
                drop(state);
                told.into_iter().for_each(|done| done(Ok(())));
            }
        });
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let state = self.alive()?;
        let mut room = max_bytes;
        let fits = |(_, bytes): &(&u64, &Vec<u8>)| {
            let fits = room == max_bytes || bytes.len() <= room;
            room = room.saturating_sub(bytes.len());
            fits
        };
        let range = state.current.log.range(from..to.max(from)).take_while(fits);
        Ok(range.map(|(index, bytes)| (*index, bytes.clone())).collect())
    }

    fn last(&self) -> Result<Option<Entry>, StorageError> {
        let state = self.alive()?;
        Ok(state.current.log.last_key_value().map(|(i, b)| (*i, b.clone())))
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.durably(Write::Truncate(index))
    }

    fn purge_to(&self, index: u64, pointer: Vec<u8>) -> Result<(), StorageError> {
        self.durably(Write::Purge(index, pointer))
    }

    fn put(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        if key == Meta::Vote {
            drop(self.alive()?);
            let vote: VoteBytes = open(&value).unwrap();
            self.world.judge().voted(self.site, &vote);
            if vote.node != self.world.id_of(self.site) {
                self.world.voted(self.site);
            }
            if self.world.bend == Bend::VoteNotSynced {
                return self.put_lazy(key, value);
            }
        }
        self.durably(Write::Put(key, value))
    }

    fn put_lazy(&self, key: Meta, value: Vec<u8>) -> Result<(), StorageError> {
        self.alive()?.write(Write::Put(key, value));
        Ok(())
    }

    fn get(&self, key: Meta) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.alive()?.current.facts.get(&key).cloned())
    }

    fn save_snapshot(&self, meta: &[u8], data: &[u8]) -> Result<(), StorageError> {
        self.durably(Write::Snapshot((meta.to_vec(), data.to_vec())))
    }

    fn load_snapshot(&self) -> Result<Option<Snapshot>, StorageError> {
        Ok(self.alive()?.current.snapshot.clone())
    }

    fn sync(&self) -> Result<(), StorageError> {
        let mut state = self.alive()?;
        let upto = state.written;
        let told = state.sync(upto);
        drop(state);
        told.into_iter().for_each(|done| done(Ok(())));
        Ok(())
    }
}
