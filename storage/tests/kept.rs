//! What a store keeps: properties of the log, refusals, kill -9, power cuts (with their inversion), bounded disk use.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use matriarch_storage::{Log, Meta, Options, StorageError, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// The environment variable that turns this test binary into the process that is killed.
const VICTIM: &str = "MATRIARCH_STORAGE_VICTIM";

fn open(dir: &Path) -> Store {
    Store::open(dir, "herd", Options::default()).unwrap()
}

fn append_now(store: &Store, entries: Vec<(u64, Vec<u8>)>) -> Result<(), StorageError> {
    let (done, wait) = mpsc::sync_channel(1);
    store.append(entries, Box::new(move |result| done.send(result).unwrap()));
    wait.recv().unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Truncate(u64),
    Purge(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_usize..8).prop_map(Op::Append),
        2 => (0_u64..40).prop_map(Op::Truncate),
        2 => (0_u64..40).prop_map(Op::Purge),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_log_is_a_map_with_a_contiguous_range(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut next = 1_u64;
        for op in ops {
            match op {
                Op::Append(count) => {
                    let batch: Vec<_> = (0..count as u64).map(|n| (next + n, vec![n as u8; 20])).collect();
                    next += count as u64;
                    model.extend(batch.clone());
                    append_now(&store, batch).unwrap();
                }
                Op::Truncate(at) if model.first_key_value().is_some_and(|(first, _)| at > *first) => {
                    store.truncate_from(at).unwrap();
                    model.retain(|index, _| *index < at);
                    next = next.min(at.max(1));
                }
                Op::Purge(at) if at < next => {
                    store.purge_to(at, at.to_be_bytes().to_vec()).unwrap();
                    model.retain(|index, _| *index > at);
                }
                Op::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
                _ => {}
            }
            let all = store.read(0, u64::MAX, usize::MAX).unwrap();
            prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(store.last().unwrap(), all.last().cloned());
        }
    }
}

#[test]
fn reads_are_bounded_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_now(&store, (1..=10).map(|n| (n, vec![0; 100])).collect()).unwrap();
    assert_eq!(store.read(1, 11, 250).unwrap().len(), 2);
    assert_eq!(store.read(1, 11, 1).unwrap().len(), 1);
    assert!(store.read(5, 5, 100).unwrap().is_empty());
}

#[test]
fn refuses_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let locked = Store::open(dir.path(), "herd", Options::default()).err().unwrap();
    assert!(matches!(locked, StorageError::Locked { .. }), "{locked}");
    drop(store);
    let foreign = Store::open(dir.path(), "other", Options::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        foreign.contains("belongs to cluster 'herd', not to 'other'"),
        "{foreign}"
    );
    let identity = dir.path().join("identity");
    let mut bytes = std::fs::read(&identity).unwrap();
    bytes[4] = 9;
    std::fs::write(&identity, &bytes).unwrap();
    let newer = Store::open(dir.path(), "herd", Options::default()).err().unwrap();
    assert!(
        matches!(newer, StorageError::NewerFormat { found: 9, .. }),
        "{newer}"
    );
}

#[test]
fn a_damaged_store_is_refused_with_its_path_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 1..200 {
        append_now(&store, vec![(n, vec![n as u8; 300])]).unwrap();
    }
    store.put(Meta::Vote, b"term 7".to_vec()).unwrap();
    drop(store);
    let db = dir.path().join("log/db");
    let healthy = std::fs::read(&db).unwrap();
    let mut refused = 0;
    for at in (0..20).map(|n| 600 + n * 2_500) {
        let mut damaged = healthy.clone();
        for byte in &mut damaged[at..at + 64] {
            *byte ^= 0x5a;
        }
        std::fs::write(&db, &damaged).unwrap();
        match Store::open(dir.path(), "herd", Options::default()) {
            Err(why) => {
                refused += 1;
                assert!(why.to_string().contains(dir.path().to_str().unwrap()), "{why}");
            }
            // The damaged bytes were of no use any more; then everything must still be there.
            Ok(store) => {
                assert_eq!(
                    store.get(Meta::Vote).unwrap().expect("the vote is there"),
                    b"term 7"
                );
                assert_eq!(store.read(1, 200, usize::MAX).unwrap().len(), 199);
            }
        }
    }
    assert!(refused > 0, "no damage was ever noticed");
}

#[test]
fn disk_use_is_bounded_over_300_000_entries() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "herd", Options { fdatasync: false }).unwrap();
    let mut largest = 0;
    for batch in 0..300_u64 {
        let first = batch * 1_000 + 1;
        append_now(
            &store,
            (first..first + 1_000).map(|n| (n, vec![7; 120])).collect(),
        )
        .unwrap();
        if batch >= 2 {
            store.purge_to(first - 1_000, b"pointer".to_vec()).unwrap();
        }
        largest = largest.max(bytes_under(dir.path()));
    }
    println!(
        "largest: {} KiB, at the end: {} KiB",
        largest / 1024,
        bytes_under(dir.path()) / 1024
    );
    assert!(largest < 40 << 20, "{largest} bytes for a log of 2,000 entries");
}

fn bytes_under(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => std::os::unix::fs::MetadataExt::blocks(&meta) * 512,
            Err(_) => 0,
        })
        .sum()
}

// --- kill -9 ------------------------------------------------------------------------------------------------

/// Appends one entry and saves one vote after another, and prints each once it is acknowledged.
fn victim(dir: &Path, options: Options) -> ! {
    let store = Store::open(dir, "herd", options).unwrap();
    let mut next = store.last().unwrap().map_or(1, |(index, _)| index + 1);
    let mut out = std::io::stdout();
    loop {
        append_now(&store, vec![(next, next.to_be_bytes().to_vec())]).unwrap();
        store.put(Meta::Vote, next.to_be_bytes().to_vec()).unwrap();
        writeln!(out, "acked {next}").unwrap();
        out.flush().unwrap();
        next += 1;
    }
}

/// Not a test of its own: the other tests start this binary with this one selected.
#[test]
fn victim_process() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        let fdatasync = std::env::var_os("MATRIARCH_STORAGE_NO_SYNC").is_none();
        victim(&PathBuf::from(dir), Options { fdatasync });
    }
}

struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victim_command(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["victim_process", "--exact", "--nocapture"])
        .env(VICTIM, dir)
        .stdout(Stdio::piped());
    command
}

/// The test harness may have written in front of it on the same line.
fn acked_in(line: &str) -> Option<u64> {
    line.split_once("acked ")?.1.parse().ok()
}

/// Lets the victim acknowledge `count` entries, kills it, and answers the last one it acknowledged.
fn kill_after(mut victim: Victim, count: u64) -> u64 {
    let mut lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
    let mut acked = 0;
    for _ in 0..count {
        let line = lines
            .find(|line| line.as_ref().is_ok_and(|line| line.starts_with("acked ")))
            .unwrap()
            .unwrap();
        acked = line["acked ".len()..].parse().unwrap();
    }
    drop(victim);
    // What it still managed to say before it died counts as acknowledged.
    for line in lines.map_while(Result::ok) {
        if let Some(number) = acked_in(&line) {
            acked = number;
        }
    }
    acked
}

fn holds(store: &Store, acked: u64) -> Result<(), String> {
    let last = store
        .last()
        .map_err(|why| why.to_string())?
        .map_or(0, |(index, _)| index);
    let vote = store.get(Meta::Vote).map_err(|why| why.to_string())?;
    let vote = vote.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    match (last >= acked, vote >= acked) {
        (true, true) => Ok(()),
        _ => Err(format!(
            "acknowledged {acked}, but the log ends at {last} and the vote is {vote}"
        )),
    }
}

#[test]
fn two_hundred_kills_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200_u64 {
        let victim = Victim(victim_command(dir.path()).spawn().unwrap());
        let acked = kill_after(victim, 1 + round % 7);
        let store = open(dir.path());
        holds(&store, acked).unwrap_or_else(|why| panic!("round {round}: {why}"));
        if round % 20 == 19 {
            store
                .purge_to(acked.saturating_sub(5), b"pointer".to_vec())
                .unwrap();
        }
    }
}

// --- power cuts ---------------------------------------------------------------------------------------------

/// Replays what the victim's system calls did to sled's file, but only what was before the last sync of it.
fn power_cut(no_sync: bool) -> Option<Result<(), String>> {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let before = std::fs::read(dir.path().join("log/db")).unwrap();
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    let calls = "trace=pwrite64,fdatasync,fsync,sync_file_range,ftruncate";
    command
        .args([
            "-f",
            "-qq",
            "-xx",
            "-s",
            "10000000",
            "-y",
            "-e",
            calls,
            "-e",
            "signal=none",
            "-o",
        ])
        .arg(&trace);
    command.arg(std::env::current_exe().unwrap());
    command
        .args(["victim_process", "--exact", "--nocapture"])
        .env(VICTIM, dir.path())
        .stdout(Stdio::piped());
    if no_sync {
        command.env("MATRIARCH_STORAGE_NO_SYNC", "1");
    }
    command.stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        println!("skipped: strace is not installed");
        return None;
    };
    let acked = kill_traced(child, 12);
    let mut text = String::new();
    std::fs::File::open(&trace)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let survived = replay(&before, &text);
    std::fs::write(dir.path().join("log/db"), survived).unwrap();
    Some(match Store::open(dir.path(), "herd", Options::default()) {
        Ok(store) => holds(&store, acked),
        Err(why) => Err(why.to_string()),
    })
}

/// strace does not pass a SIGKILL on, so the traced process is ended through its own pid.
fn kill_traced(child: std::process::Child, count: u64) -> u64 {
    let pid = child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut victim = Victim(child);
    let mut lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
    let mut acked = 0;
    while acked < count {
        let line = lines.next().expect("the victim acknowledges").unwrap();
        if let Some(number) = acked_in(&line) {
            acked = number;
        }
    }
    let late = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in late.or(children).unwrap_or_default().split_whitespace() {
        let _ = Command::new("kill").args(["-9", child]).status();
    }
    let _ = victim.0.wait();
    for line in lines.map_while(Result::ok) {
        if let Some(number) = acked_in(&line) {
            acked = number;
        }
    }
    acked
}

/// The file as a disk that keeps nothing unsynced would have it.
fn replay(before: &[u8], trace: &str) -> Vec<u8> {
    let scratch = tempfile::tempfile().unwrap();
    scratch.write_all_at(before, 0).unwrap();
    let mut pending: Vec<(u64, Vec<u8>)> = Vec::new();
    // strace -xx shows names in hexadecimal too.
    let name: String = "/log/db"
        .bytes()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect::<String>()
        + ">";
    for line in unite(trace).iter().filter(|line| line.contains(&name)) {
        if line.contains("pwrite64(") {
            let Some((offset, bytes)) = parse_pwrite(line) else {
                continue;
            };
            pending.push((offset, bytes));
        } else if (line.contains("fdatasync(") || line.contains("fsync(")) && line.ends_with("= 0") {
            for (offset, bytes) in pending.drain(..) {
                scratch.write_all_at(&bytes, offset).unwrap();
            }
        }
    }
    let mut survived = vec![0; usize::try_from(scratch.metadata().unwrap().len()).unwrap()];
    scratch.read_exact_at(&mut survived, 0).unwrap();
    survived
}

/// Joins the two halves of calls that strace shows interrupted by another thread, in order of their completion.
fn unite(trace: &str) -> Vec<String> {
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    let mut whole = Vec::new();
    for line in trace.lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or(("", line));
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid.to_owned(), head.to_owned());
        } else if let Some(tail) = rest.strip_prefix("<... ") {
            let tail = tail.split_once("resumed>").map_or(tail, |(_, tail)| tail);
            whole.push(open.remove(pid).unwrap_or_default() + tail);
        } else {
            whole.push(rest.to_owned());
        }
    }
    whole
}

fn parse_pwrite(line: &str) -> Option<(u64, Vec<u8>)> {
    let (_, rest) = line.split_once(", \"")?;
    let (hex, rest) = rest.split_once('"')?;
    let bytes = hex
        .split("\\x")
        .skip(1)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let offset = rest
        .trim_start_matches("...")
        .split([',', ')'])
        .nth(2)?
        .trim()
        .parse()
        .ok()?;
    Some((offset, bytes))
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    for _ in 0..5 {
        match power_cut(false) {
            Some(result) => result.unwrap(),
            None => return,
        }
    }
}

/// The inversion: without the sync the same check must fail, or it would prove nothing.
#[test]
fn without_fdatasync_a_power_cut_is_seen_to_lose() {
    for _ in 0..5 {
        match power_cut(true) {
            Some(Err(_)) | None => return,
            Some(Ok(())) => {}
        }
    }
    panic!("five power cuts without fdatasync lost nothing: the check is blind");
}
