//! Purging keeps the disk bounded: 300,000 entries pass through, the files stay small.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use matriarch_storage::{Log, Options, Store};

const ENTRIES: u64 = 300_000;
const BATCH: u64 = 500;

/// Entries kept, as a node keeps some for a peer that was away.
const KEEP: u64 = 2_000;

/// What the files may take, with less than 0.5 MB alive.
const BOUND: u64 = 16 << 20;

#[test]
fn the_disk_stays_bounded_over_300_000_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), "herd", Options::default()).unwrap();
    let mut sizes = Vec::new();
    for first in (1..=ENTRIES).step_by(BATCH as usize) {
        store.append(
            (first..first + BATCH)
                .map(|index| (index, vec![index as u8; 100]))
                .collect(),
            Box::new(|_| ()),
        );
        let last = first + BATCH - 1;
        if last.is_multiple_of(2_000) && last > KEEP {
            store.purge_to(last - KEEP, last.to_le_bytes().to_vec()).unwrap();
        }
        if last.is_multiple_of(30_000) {
            sizes.push(store.size_on_disk());
        }
        if last == ENTRIES / 2 {
            drop(store);
            store = Store::open(dir.path(), "herd", Options::default()).unwrap();
        }
    }
    store.sync().unwrap();
    println!("size after each 30,000 of {ENTRIES} entries of 100 bytes, the last {KEEP} kept: {sizes:?}");
    assert_eq!(store.last().unwrap().unwrap().0, ENTRIES);
    assert_eq!(store.read(0, u64::MAX, usize::MAX).unwrap().len() as u64, KEEP);
    let largest = sizes.iter().max().unwrap();
    assert!(*largest < BOUND, "{largest} bytes");
    let (early, late) = sizes.split_at(sizes.len() / 2);
    assert!(
        late.iter().max().unwrap() <= &(early.iter().max().unwrap() * 2),
        "it grows: {sizes:?}"
    );
}
