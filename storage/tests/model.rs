//! The log against a model: any sequence of calls and reopenings leaves what a BTreeMap would hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

use matriarch_storage::{Log, Meta, Options, Store};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Call {
    Append {
        count: usize,
        size: usize,
    },
    Truncate {
        back: u64,
    },
    Purge {
        keep: u64,
    },
    /// What a node does that was sent a snapshot from beyond the end of its log.
    PurgeBeyond {
        ahead: u64,
    },
    Put {
        key: Meta,
        size: usize,
    },
    PutLazy {
        size: usize,
    },
    Reopen,
}

fn call() -> impl Strategy<Value = Call> {
    let size = prop_oneof![8 => 0_usize..300, 2 => 4000_usize..4200, 1 => 0_usize..200_000];
    prop_oneof![
        8 => (1_usize..20, size).prop_map(|(count, size)| Call::Append { count, size }),
        2 => (0_u64..15).prop_map(|back| Call::Truncate { back }),
        2 => (0_u64..15).prop_map(|keep| Call::Purge { keep }),
        1 => (1_u64..9).prop_map(|ahead| Call::PurgeBeyond { ahead }),
        2 => (prop_oneof![Just(Meta::Vote), Just(Meta::Node), Just(Meta::Formation)], 0_usize..8192)
            .prop_map(|(key, size)| Call::Put { key, size }),
        1 => (0_usize..100).prop_map(|size| Call::PutLazy { size }),
        1 => Just(Call::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Vec<u8>>,
    facts: BTreeMap<&'static str, Vec<u8>>,
    next: u64,
    /// The first index that has not been purged.
    floor: u64,
    /// Makes every value differ from what stood there before.
    serial: u8,
}

impl Model {
    fn bytes(&mut self, size: usize) -> Vec<u8> {
        self.serial = self.serial.wrapping_add(1);
        vec![self.serial; size]
    }

    fn apply(&mut self, store: &Store, call: Call) {
        match call {
            Call::Append { count, size } => {
                let entries: Vec<_> = (self.next..)
                    .take(count)
                    .map(|index| (index, self.bytes(size)))
                    .collect();
                self.next += count as u64;
                self.entries.extend(entries.clone());
                let (answer, outcome) = sync_channel(1);
                store.append(entries, Box::new(move |result| answer.send(result).unwrap()));
                assert_eq!(store.last().unwrap(), self.last(), "visible before it is durable");
                outcome.recv().unwrap().unwrap();
            }
            Call::Truncate { back } => {
                self.next = self.next.saturating_sub(back).max(self.floor);
                self.entries.split_off(&self.next);
                store.truncate_from(self.next).unwrap();
            }
            Call::Purge { keep } => self.purge(store, self.next.saturating_sub(keep)),
            Call::PurgeBeyond { ahead } => {
                self.next += ahead;
                self.purge(store, self.next);
            }
            Call::Put { key, size } => {
                let bytes = self.bytes(size);
                self.facts.insert(name(key), bytes.clone());
                store.put(key, bytes).unwrap();
            }
            Call::PutLazy { size } => {
                let bytes = self.bytes(size);
                self.facts.insert(name(Meta::Committed), bytes.clone());
                store.put_lazy(Meta::Committed, bytes).unwrap();
            }
            Call::Reopen => {}
        }
    }

    fn purge(&mut self, store: &Store, next: u64) {
        if next <= self.floor {
            return;
        }
        self.floor = next;
        self.entries = self.entries.split_off(&next);
        let pointer = self.bytes(16);
        self.facts.insert(name(Meta::Purged), pointer.clone());
        store.purge_to(next - 1, pointer).unwrap();
    }

    fn last(&self) -> Option<(u64, Vec<u8>)> {
        self.entries
            .iter()
            .next_back()
            .map(|(index, bytes)| (*index, bytes.clone()))
    }

    fn compare(&self, store: &Store) {
        let all: Vec<_> = self.entries.clone().into_iter().collect();
        assert_eq!(store.read(0, u64::MAX, usize::MAX).unwrap(), all);
        assert_eq!(store.last().unwrap(), self.last());
        for key in [
            Meta::Vote,
            Meta::Committed,
            Meta::Purged,
            Meta::Node,
            Meta::Formation,
        ] {
            assert_eq!(
                store.get(key).unwrap().as_ref(),
                self.facts.get(name(key)),
                "{key:?}"
            );
        }
    }
}

fn name(key: Meta) -> &'static str {
    match key {
        Meta::Vote => "vote",
        Meta::Committed => "committed",
        Meta::Purged => "purged",
        Meta::Node => "node",
        Meta::Formation => "formation",
    }
}

fn open(dir: &std::path::Path) -> Store {
    Store::open(dir, "herd", Options::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_behaves_like_an_ordered_map(calls in prop::collection::vec(call(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut store = open(dir.path());
        for call in calls {
            if matches!(call, Call::Reopen) {
                drop(store);
                store = open(dir.path());
            }
            model.apply(&store, call);
            model.compare(&store);
        }
        drop(store);
        model.compare(&open(dir.path()));
        let blobs = dir.path().join("log/blobs");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0, "sled never syncs its blobs: there must be none");
    }
}

#[test]
fn a_read_stops_at_its_limits_but_never_returns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(
        (1..=9).map(|index| (index, vec![7; 100])).collect(),
        Box::new(|_| ()),
    );
    store.sync().unwrap();
    let indices = |from, to, max| -> Vec<u64> {
        store
            .read(from, to, max)
            .unwrap()
            .into_iter()
            .map(|(index, _)| index)
            .collect()
    };
    assert_eq!(indices(3, 6, 10_000), [3, 4, 5]);
    assert_eq!(indices(3, 9, 250), [3, 4]);
    assert_eq!(indices(3, 9, 0), [3]);
    assert_eq!(indices(5, 5, 1000), [0_u64; 0]);
    assert_eq!(indices(6, 5, 1000), [0_u64; 0]);
    assert_eq!(indices(10, 20, 1000), [0_u64; 0]);
}

#[test]
fn acknowledgements_come_in_order_and_after_a_bad_request_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (answer, answers) = sync_channel(500);
    for index in 0..500 {
        let answer = answer.clone();
        let done = Box::new(move |result: Result<(), _>| answer.send((index, result.is_ok())).unwrap());
        store.append(vec![(index, vec![1; 50])], done);
    }
    store.sync().unwrap();
    let heard: Vec<_> = answers.try_iter().collect();
    assert_eq!(heard, (0..500).map(|index| (index, true)).collect::<Vec<_>>());
    let error = store.put(Meta::Node, vec![0; 9000]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a value of 9000 bytes for node is larger than the 8192 bytes the store keeps beside its log"
    );
    store.put(Meta::Node, vec![0; 8192]).unwrap();
}
