//! The end of a node's part in its group, by the group's word: it was taken out, or the group was given up.
//!
//! Who was taken out leaves a note beside its store and stops for good. The next start finds the note, puts the store
//! aside and is an empty node: it asks to join under a new id, and is refused until the members let it in again. Its old
//! id is never used again, because nobody can know what it forgot.
//!
//! Who belongs to a group that was given up (`recover`) stops too, but keeps its store: only a person can know that what
//! is in it is not wanted.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::errors::StartError;
use crate::net::pool::Goodbye;
use crate::settings::Settings;
use crate::types::Identity;

/// Beside the store; holds the sentence.
const NOTE: &str = "removed";
/// What the store keeps in the Raft directory.
const STORE: [&str; 4] = ["synced", "log", "snapshots", "identity"];
/// Where a store is put aside; one is enough for people.
const ASIDE: &str = "removed-store";

/// What the group said last about this node's place, where it has none.
#[derive(Default)]
pub(crate) struct Expelled(Mutex<Option<String>>);

impl Expelled {
    fn said(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.said().clone()
    }

    pub(crate) fn set(&self, why: Option<String>) {
        *self.said() = why;
    }
}

/// Ends this node's part. A node that has none yet takes note and goes on asking.
pub(crate) fn part(
    settings: &Settings,
    me: Identity,
    fatal: &OnceLock<String>,
    expelled: &Expelled,
    goodbye: &Goodbye,
) {
    if fatal.get().is_some() {
        return;
    }
    if let (0, Goodbye::Removed(why)) = (me.foundation, goodbye) {
        expelled.set(Some(why.clone()));
    }
    if me.foundation == 0 {
        return;
    }
    let dir = &settings.data_dir;
    let why = match goodbye {
        Goodbye::Removed(_) if me.id == 0 => return,
        Goodbye::Removed(why) => {
            // Without the note the next start hears the same again.
            if let Err(e) = leave_note(dir, why) {
                tracing::warn!("the note in {} cannot be written: {e}", dir.display());
            }
            why.clone()
        }
        Goodbye::GivenUp { newer, at } => given_up(dir, *newer, at),
    };
    tracing::error!("{why}");
    expelled.set(Some(why.clone()));
    let _ = fatal.set(why);
}

fn given_up(dir: &Path, newer: u64, at: &str) -> String {
    let dir = dir.display();
    format!(
        "the cluster was recovered without this node: {at} belongs to its foundation {newer:x}, the Raft directory {dir} to \
         one that was given up. To let this node join again, run `mv {dir} {dir}.old` and start it; \
         its data directory is then compared with the primary's, and rewound or copied anew where it differs"
    )
}

fn leave_note(dir: &Path, why: &str) -> std::io::Result<()> {
    let path = dir.join(NOTE);
    std::fs::write(&path, why)?;
    std::fs::File::open(&path)?.sync_all()?;
    std::fs::File::open(dir)?.sync_all()
}

/// Before the store is opened: whoever was taken out begins anew.
pub(crate) fn put_aside(dir: &Path) -> Result<(), StartError> {
    let note = dir.join(NOTE);
    if !note.exists() {
        return Ok(());
    }
    let failed = |e: std::io::Error| StartError::Store {
        dir: dir.to_owned(),
        why: format!("this node was taken out of its group, but its old store cannot be put aside: {e}"),
    };
    let aside = dir.join(ASIDE);
    let mut moves: Vec<(PathBuf, PathBuf)> = Vec::new();
    for name in STORE {
        let from = dir.join(name);
        if from.exists() {
            moves.push((from, aside.join(name)));
        }
    }
    // A crash in between finds the note again, and what was moved already.
    if moves.len() == STORE.len() && aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(failed)?;
    }
    std::fs::create_dir_all(&aside).map_err(failed)?;
    for (from, to) in moves {
        std::fs::rename(from, to).map_err(failed)?;
    }
    std::fs::remove_file(note).map_err(failed)?;
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}
