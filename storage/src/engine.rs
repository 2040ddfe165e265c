//! Opening sled: first a rehearsal on a copy, so that refusing a damaged store changes nothing.
//!
//! sled repairs while it opens: it cuts what it takes for a torn end, zeroes segments, and some damage makes it
//! panic. So the copy is opened first, on a thread of its own, and everything in it is read once; only when nothing is
//! missing is the real one touched.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::entries::Entries;
use crate::facts::Facts;
use crate::progress::{self, Progress};
use crate::store::Options;
use crate::{StorageError, files};

/// How long the rehearsal may take before the store counts as damaged.
const REHEARSAL_PATIENCE: Duration = Duration::from_secs(60);

/// How often and how long to wait for sled to let go of its file after an earlier handle was dropped in this process.
const LET_GO_TRIES: u32 = 200;
const LET_GO_PAUSE: Duration = Duration::from_millis(10);

/// Opens sled in `log`, and its file once more for syncing.
pub(crate) fn open(log: &Path, options: &Options) -> Result<(sled::Db, File), StorageError> {
    files::create_dir(log)?;
    let path = log.join("db");
    let config = sled::Config::new()
        .path(log)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None);
    let mut tries = 0;
    let db = loop {
        match config.open() {
            Ok(db) => break db,
            // Our own lock says that nobody else has it: an earlier handle is still being torn down by sled.
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") && tries < LET_GO_TRIES => {
                tries += 1;
                std::thread::sleep(LET_GO_PAUSE);
            }
            Err(error) => return Err(StorageError::sled(&path, "open the log", &error)),
        }
    };
    let file = File::options().write(true).open(&path);
    let file = file.map_err(|error| StorageError::io(&path, "open the log", &error))?;
    // sled does not sync the small files it writes while opening, nor any name.
    files::sync_files(log)?;
    Ok((db, file))
}

/// Opens a copy of `log` and reads everything in it.
pub(crate) fn rehearse(dir: &Path, log: &Path, options: &Options) -> Result<(), StorageError> {
    let copy = dir.join("rehearsal");
    files::remove_dir(&copy)?;
    let database = log.join("db");
    if !database.exists() {
        // A store whose creation was interrupted has never synced anything.
        return match progress::beside(dir)? {
            None | Some(0) => Ok(()),
            Some(_) => Err(StorageError::corrupt(&database, "the file is missing")),
        };
    }
    files::copy_dir(log, &copy)?;
    let (answer, outcome) = sync_channel(1);
    let inspect = {
        let (dir, copy, database, options) =
            (dir.to_owned(), copy.clone(), database.clone(), options.clone());
        let subject = Subject {
            database: database.clone(),
            copy: copy.clone(),
        };
        move || {
            turn_panics_into_a_sentence();
            SUBJECT.replace(Some(subject));
            drop(answer.send(inspect(&dir, &copy, &database, &options)));
        }
    };
    std::thread::Builder::new()
        .name("storage-rehearsal".to_owned())
        .spawn(inspect)
        .map_err(|error| StorageError::io(dir, "start the rehearsal thread", &error))?;
    let outcome = outcome.recv_timeout(REHEARSAL_PATIENCE);
    files::remove_dir(&copy)?;
    match outcome {
        Ok(result) => result,
        Err(RecvTimeoutError::Disconnected) => {
            Err(StorageError::corrupt(&database, "sled cannot make sense of it"))
        }
        Err(RecvTimeoutError::Timeout) => Err(StorageError::corrupt(
            &database,
            "sled does not finish reading it",
        )),
    }
}

fn inspect(dir: &Path, copy: &Path, database: &Path, options: &Options) -> Result<(), StorageError> {
    let config = sled::Config::new()
        .path(copy)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(None);
    let failed =
        |error: &sled::Error| StorageError::corrupt(database, format!("sled cannot open it: {error}"));
    let db = config.open().map_err(|error| failed(&error))?;
    let meta = db.open_tree("meta").map_err(|error| failed(&error))?;
    let log = db.open_tree("log").map_err(|error| failed(&error))?;
    Progress::check(dir, &meta, database)?;
    let facts = Facts::new(meta, database);
    facts.check()?;
    Entries::new(log, database).check(facts.floor()?)
}

/// What the rehearsal thread is reading.
struct Subject {
    database: PathBuf,
    copy: PathBuf,
}

thread_local! {
    static SUBJECT: RefCell<Option<Subject>> = const { RefCell::new(None) };
}

fn senseless(database: &Path) -> StorageError {
    StorageError::corrupt(database, "sled cannot make sense of it")
}

/// sled panics over some damage. Where panics unwind, the rehearsal thread ends and its caller says so; where they
/// abort, this hook is the last that runs, so it says the sentence itself and leaves in order. Other threads panic as
/// before.
fn turn_panics_into_a_sentence() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let Ok(Some(subject)) = SUBJECT.try_with(RefCell::take) else {
                return before(panic);
            };
            tracing::debug!(%panic, "the rehearsal of opening the store ended early");
            if cfg!(panic = "abort") {
                let _ = files::remove_dir(&subject.copy);
                eprintln!("{}", senseless(&subject.database));
                std::process::exit(1);
            }
        }));
    });
}
