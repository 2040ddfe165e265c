//! A store that is not whole, not ours or in use is refused with one sentence, and not a byte of it changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use matriarch_storage::{Log, Meta, Options, StorageError, Store};

const ENTRIES: u64 = 3000;

fn open(dir: &Path) -> Result<Store, StorageError> {
    Store::open(dir, "herd", Options::default())
}

fn bytes(index: u64) -> Vec<u8> {
    format!("<entry {index:08}>").repeat(12).into_bytes()
}

/// A closed store that has lived: several segments, a purged beginning, every fact.
fn lived(dir: &Path) -> Vec<(u64, Vec<u8>)> {
    let store = open(dir).unwrap();
    for batch in (1..=ENTRIES).collect::<Vec<_>>().chunks(50) {
        store.append(
            batch.iter().map(|index| (*index, bytes(*index))).collect(),
            Box::new(|_| ()),
        );
        store.put(Meta::Vote, batch[0].to_le_bytes().to_vec()).unwrap();
    }
    store.purge_to(500, b"five hundred".to_vec()).unwrap();
    store.put(Meta::Node, b"node".to_vec()).unwrap();
    store.snapshots().save(b"meta", b"data").unwrap();
    store.read(0, u64::MAX, usize::MAX).unwrap()
}

/// Every file's bytes.
fn picture(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap().flatten() {
        if item.path().is_dir() {
            files.extend(picture(&item.path()));
        } else {
            files.insert(item.path(), fs::read(item.path()).unwrap());
        }
    }
    files
}

/// Opening is refused, twice, with a sentence that names `path`, and changes nothing.
fn refused(dir: &Path, path: &str) -> StorageError {
    let before = picture(dir);
    let error = open(dir).map(drop).expect_err("this store must be refused");
    assert!(picture(dir) == before, "refusing changed the store: {error}");
    assert_eq!(open(dir).map(drop).unwrap_err(), error);
    let sentence = error.to_string();
    assert!(sentence.contains(dir.join(path).to_str().unwrap()), "{sentence}");
    assert!(!sentence.contains('\n'));
    println!("{sentence}");
    error
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A value as another format version would have written it.
fn sealed(version: u16, name: &[u8], payload: &[u8]) -> Vec<u8> {
    let version = version.to_le_bytes();
    let crc = crc32c::crc32c(&[name, &version, payload].concat());
    [b"MtrS".as_slice(), &version, &crc.to_le_bytes(), payload].concat()
}

#[test]
fn a_store_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), "flock", Options::default()).unwrap());
    let error = refused(dir.path(), "identity");
    assert!(
        matches!(&error, StorageError::OtherCluster { found, expected, .. } if found == "flock" && expected == "herd")
    );
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    fs::write(dir.path().join("identity"), sealed(2, b"identity", b"herd")).unwrap();
    let error = refused(dir.path(), "identity");
    assert!(
        matches!(
            error,
            StorageError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    fs::write(dir.path().join("identity"), sealed(1, b"identity", b"herd")).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn two_cannot_have_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).map(drop).unwrap_err();
    assert_eq!(
        error,
        StorageError::Locked {
            path: dir.path().join("lock")
        }
    );
    first.put(Meta::Vote, b"1".to_vec()).unwrap();
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_damaged_identity_or_count_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    for (name, at) in [
        ("identity", 0),
        ("identity", 5),
        ("identity", 12),
        ("synced", 2),
        ("synced", 11),
    ] {
        let path = dir.path().join(name);
        change(&path, |bytes| bytes[at] ^= 0x10);
        assert!(matches!(refused(dir.path(), name), StorageError::Corrupt { .. }));
        change(&path, |bytes| bytes[at] ^= 0x10);
    }
    for name in ["identity", "synced", "log/db"] {
        let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(refused(dir.path(), name), StorageError::Corrupt { .. }));
        fs::rename(&aside, &path).unwrap();
    }
    open(dir.path()).unwrap();
}

#[test]
fn a_shortened_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let path = dir.path().join("log/db");
    let whole = fs::read(&path).unwrap();
    for part in [0, 1, 30, 50, 70, 90] {
        fs::write(&path, &whole[..whole.len() * part / 100]).unwrap();
        assert!(matches!(
            refused(dir.path(), "log/db"),
            StorageError::Corrupt { .. }
        ));
    }
}

#[test]
fn an_older_log_put_in_place_of_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let log = dir.path().join("log");
    let older = picture(&log);
    let store = open(dir.path()).unwrap();
    store.put(Meta::Vote, b"newer".to_vec()).unwrap();
    drop(store);
    fs::remove_dir_all(&log).unwrap();
    fs::create_dir_all(log.join("blobs")).unwrap();
    older
        .iter()
        .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    assert!(matches!(
        refused(dir.path(), "log/db"),
        StorageError::Corrupt { .. }
    ));
}

#[test]
fn a_flipped_byte_in_an_entry_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path());
    let path = dir.path().join("log/db");
    let whole = fs::read(&path).unwrap();
    for index in [501_u64, 1500, 2500, ENTRIES] {
        let needle = format!("<entry {index:08}>");
        let mut damaged = whole.clone();
        let places: Vec<_> = whole
            .windows(needle.len())
            .enumerate()
            .filter(|(_, w)| *w == needle.as_bytes())
            .collect();
        assert!(!places.is_empty());
        for (place, _) in places {
            damaged[place + 3] ^= 0x01;
        }
        fs::write(&path, damaged).unwrap();
        assert!(matches!(
            refused(dir.path(), "log/db"),
            StorageError::Corrupt { .. }
        ));
    }
}

#[test]
fn a_flipped_byte_anywhere_is_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let expected = lived(dir.path());
    let keep = picture(dir.path());
    let files: Vec<_> = keep
        .iter()
        .filter(|(path, bytes)| path.starts_with(dir.path().join("log")) && !bytes.is_empty())
        .collect();
    let database = files.iter().find(|(path, _)| path.ends_with("db")).unwrap();
    let (mut refusals, mut harmless) = (0, 0);
    for round in 0..60_usize {
        // sled's small files now and then, else its large one.
        let (path, bytes) = if round % 4 == 0 {
            files[round / 4 % files.len()]
        } else {
            *database
        };
        let at = bytes.len() * (round * 7919 % 1000) / 1000;
        change(path, |bytes| bytes[at] ^= 1 << (round % 8));
        match open(dir.path()) {
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        StorageError::Corrupt { .. } | StorageError::NewerFormat { .. }
                    ),
                    "{error}"
                );
                refusals += 1;
            }
            Ok(store) => {
                assert!(
                    store.read(0, u64::MAX, usize::MAX).unwrap() == expected,
                    "{} at {at}",
                    path.display()
                );
                assert_eq!(
                    store.get(Meta::Node).unwrap().as_deref(),
                    Some(b"node".as_slice())
                );
                assert_eq!(
                    store.get(Meta::Purged).unwrap().as_deref(),
                    Some(b"five hundred".as_slice())
                );
                harmless += 1;
            }
        }
        fs::remove_dir_all(dir.path().join("log")).unwrap();
        fs::create_dir_all(dir.path().join("log/blobs")).unwrap();
        keep.iter()
            .for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
    println!("{refusals} flips refused, {harmless} hit nothing that was needed");
    assert!(refusals > 0);
}

#[test]
fn a_damaged_snapshot_is_an_error_and_the_older_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path()).unwrap().snapshots();
    assert_eq!(snapshots.load().unwrap(), None);
    for number in 1..=4_u8 {
        snapshots.save(&[number], &[number; 1000]).unwrap();
        assert_eq!(
            snapshots.load().unwrap(),
            Some((vec![number], vec![number; 1000]))
        );
    }
    let kept = picture(&dir.path().join("snapshots"));
    let names: Vec<_> = kept
        .keys()
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["0000000000000003.snapshot", "0000000000000004.snapshot"]);
    let newest = dir.path().join("snapshots/0000000000000004.snapshot");
    for at in [0, 5, 8, 15, 500] {
        change(&newest, |bytes| bytes[at] ^= 1);
        let error = snapshots.load().unwrap_err();
        assert!(
            matches!(&error, StorageError::Corrupt { path, .. } if *path == newest),
            "{error}"
        );
        change(&newest, |bytes| bytes[at] ^= 1);
    }
    change(&newest, |bytes| bytes.truncate(700));
    assert!(matches!(snapshots.load(), Err(StorageError::Corrupt { .. })));
    fs::write(&newest, sealed(9, b"snapshot", b"")).unwrap();
    assert!(matches!(
        snapshots.load(),
        Err(StorageError::NewerFormat {
            found: 9,
            known: 1,
            ..
        })
    ));
}
