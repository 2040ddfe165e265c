//! A child process that writes to a store, says on a pipe what was acknowledged, and is made to die; and the judge
//! of what must still be there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;

use matriarch_storage::{Log, Meta, Options, StorageError, Store};

/// The environment variable that makes the test `child` the child, and the one that switches the protection off.
const DIR: &str = "MATRIARCH_STORAGE_CHILD";
const UNSAFE: &str = "MATRIARCH_STORAGE_NO_FDATASYNC";

/// Splitmix: enough chance for a test, the same in every run of the same seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Starts this test binary again as the writing child.
pub(crate) fn spawn(dir: &Path, fdatasync: bool) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if !fdatasync {
        command.env(UNSAFE, "1");
    }
    let mut child = command.spawn().unwrap();
    let mut pipe = BufReader::new(child.stdout.take().unwrap());
    let lines = std::iter::from_fn(move || {
        let mut line = String::new();
        // A line without its end was cut off by the kill: it says nothing.
        pipe.read_line(&mut line).ok()?;
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    });
    (child, lines)
}

/// The child's life, if this process is the child; it ends only by being killed or by an error of the store.
pub(crate) fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let options = Options {
        fdatasync: std::env::var_os(UNSAFE).is_none(),
        ..Options::default()
    };
    let store = Store::open(Path::new(&dir), "herd", options).unwrap();
    say("open");
    let failed = write(&store).unwrap_err();
    say(&format!("failed {failed}"));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write, so that a kill cannot separate a line from its end. A closed pipe is the end of the test.
    if out
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

fn write(store: &Store) -> Result<(), StorageError> {
    let mut chance = Chance(u64::from(std::process::id()));
    let mut next = store.last()?.map_or(0, |(index, _)| index + 1);
    if next == 0 {
        next = store.get(Meta::Purged)?.map_or(0, |pointer| number(&pointer) + 1);
    }
    let mut vote = store.get(Meta::Vote)?.map_or(0, |vote| number(&vote));
    let mut generation = vote << 20;
    let (answer, answers) = sync_channel(64);
    loop {
        // A burst in flight, then its acknowledgements: several share a sync.
        let burst = chance.below(6);
        for _ in 0..burst {
            generation += 1;
            let (index, bytes) = (next, entry(next, generation, chance.below(40)));
            next += 1;
            let (answer, line) = (answer.clone(), format!("append {index} {generation}"));
            store.append(
                vec![(index, bytes)],
                Box::new(move |result| drop(answer.send(result.map(|()| line)))),
            );
        }
        for line in answers.iter().take(burst as usize) {
            say(&line?);
        }
        match chance.below(12) {
            0 | 1 => {
                vote += 1;
                store.put(Meta::Vote, vote.to_le_bytes().to_vec())?;
                say(&format!("vote {vote}"));
            }
            2 => store.put_lazy(Meta::Committed, next.to_le_bytes().to_vec())?,
            3 if next > 10 => {
                let purged = store.get(Meta::Purged)?.map_or(0, |pointer| number(&pointer) + 1);
                next = (next - chance.below(9)).max(purged);
                say(&format!("truncating {next}"));
                store.truncate_from(next)?;
                say(&format!("truncated {next}"));
            }
            4 if next > 60
                && store
                    .get(Meta::Purged)?
                    .is_none_or(|pointer| number(&pointer) < next - 50) =>
            {
                let index = next - 50;
                say(&format!("purging {index}"));
                store.purge_to(index, index.to_le_bytes().to_vec())?;
                say(&format!("purged {index}"));
            }
            _ => {}
        }
    }
}

/// An entry's bytes, all of which follow from its index and generation; one in ten is long.
fn entry(index: u64, generation: u64, lot: u64) -> Vec<u8> {
    let length = if lot < 4 {
        3000 * (lot as usize + 1)
    } else {
        20 + 7 * lot as usize
    };
    let mut bytes = [
        index.to_le_bytes(),
        generation.to_le_bytes(),
        (length as u64).to_le_bytes(),
    ]
    .concat();
    bytes.resize(24 + length, (index ^ generation) as u8);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// What the child said, and what must therefore be in the store.
#[derive(Default)]
pub(crate) struct Judge {
    acknowledged: BTreeMap<u64, u64>,
    vote: u64,
    purged: Option<u64>,
    /// A purge that was begun: what is below may be gone.
    purging: Option<u64>,
    /// Acknowledgements heard.
    pub(crate) lines: usize,
}

impl Judge {
    pub(crate) fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let verb = words.next().unwrap();
        let mut argument = || words.next().and_then(|word| word.parse::<u64>().ok());
        match (verb, argument(), argument()) {
            ("append", Some(index), Some(generation)) => drop(self.acknowledged.insert(index, generation)),
            ("vote", Some(vote), _) => self.vote = vote,
            ("truncating", Some(index), _) => drop(self.acknowledged.split_off(&index)),
            ("purging", Some(index), _) => self.purging = Some(index),
            ("purged", Some(index), _) => self.purged = Some(index),
            _ => return,
        }
        self.lines += 1;
    }

    /// Opens the store and says what is missing; what it finds beyond that becomes the new expectation.
    pub(crate) fn verdict(&mut self, dir: &Path) -> Result<(), String> {
        let store = Store::open(dir, "herd", Options::default()).map_err(|error| error.to_string())?;
        let facts = |key| store.get(key).map(|value| value.map(|value| number(&value)));
        let entries = store
            .read(0, u64::MAX, usize::MAX)
            .map_err(|error| error.to_string())?;
        let vote = facts(Meta::Vote).map_err(|error| error.to_string())?.unwrap_or(0);
        let purged = facts(Meta::Purged).map_err(|error| error.to_string())?;
        if vote < self.vote {
            return Err(format!("the vote went back from {} to {vote}", self.vote));
        }
        if purged < self.purged {
            return Err(format!(
                "the purged pointer went back from {:?} to {purged:?}",
                self.purged
            ));
        }
        if purged > self.purging {
            return Err(format!(
                "purged to {purged:?}, but only {:?} was asked for",
                self.purging
            ));
        }
        let found: BTreeMap<u64, u64> = entries
            .iter()
            .map(|(index, bytes)| (*index, number(&bytes[8..])))
            .collect();
        for (index, bytes) in &entries {
            let whole = number(bytes) == *index && bytes.len() as u64 == 24 + number(&bytes[16..]);
            if !whole
                || bytes[24..]
                    .iter()
                    .any(|byte| *byte != (index ^ found[index]) as u8)
            {
                return Err(format!("entry {index} is not what was written"));
            }
        }
        let floor = purged.map_or(0, |index| index + 1);
        for (index, generation) in self.acknowledged.range(floor..) {
            if found.get(index) != Some(generation) {
                return Err(format!(
                    "acknowledged entry {index} ({generation}) is {:?}",
                    found.get(index)
                ));
            }
        }
        (self.acknowledged, self.vote, self.purged, self.purging) = (found, vote, purged, purged);
        Ok(())
    }
}
