//! The few facts a node must not forget, kept in one small file outside the data directory, replaced atomically.

use crate::cluster::{Epoch, Incarnation, Timeline};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "node.json";
const VERSION: u32 = 1;

/// Work on the data directory that must not be mistaken for finished when it was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doing {
    /// Creating the database cluster.
    Bootstrap,
    /// Copying it from another member.
    Clone,
    /// Rewinding it.
    Rewind,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    version: u32,
    /// The highest epoch that a primary was started or promoted in here, or might have been.
    pub used: Epoch,
    /// Nothing older than this epoch is ever streamed from again.
    #[serde(default)]
    pub promised: Epoch,
    /// Which copy of the data this is.
    pub incarnation: Option<Incarnation>,
    /// The database cluster that the data belongs to.
    pub system_id: Option<u64>,
    /// The newest timeline that this copy reached as, or following, an agreed primary.
    #[serde(default)]
    pub reached: Option<Timeline>,
    /// The PostgreSQL that runs here was there before us, and nothing of this cluster's has been asked of it yet.
    #[serde(default)]
    pub guest: bool,
    /// Unfinished work.
    pub doing: Option<Doing>,
}

/// The file could not be read or written; the node cannot go on safely.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Its content makes no sense.
    #[error(
        "{path} is damaged ({why}); stop this node, remove its Raft directory and start it: it joins again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The file and its content.
pub struct Ledger {
    dir: PathBuf,
    facts: Facts,
    /// No file was there: whatever this node did before is unknown.
    fresh: bool,
}

impl Ledger {
    /// Reads the file, or begins an empty one.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let facts: Facts = serde_json::from_slice(&bytes).map_err(|why| LedgerError::Damaged {
                    path: path.clone(),
                    why: why.to_string(),
                })?;
                if facts.version != VERSION {
                    let why = format!("version {}, this program knows {VERSION}", facts.version);
                    return Err(LedgerError::Damaged { path, why });
                }
                Ok(Self {
                    dir: dir.to_owned(),
                    facts,
                    fresh: false,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let facts = Facts {
                    version: VERSION,
                    ..Facts::default()
                };
                Ok(Self {
                    dir: dir.to_owned(),
                    facts,
                    fresh: true,
                })
            }
            Err(source) => Err(LedgerError::Io { path, source }),
        }
    }

    /// What is known.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// A ledger that was lost cannot say which epochs were used: all up to the agreed one count as used.
    /// Does nothing when the ledger was there.
    pub fn first_sight(&mut self, agreed: Epoch) -> Result<(), LedgerError> {
        if !self.fresh {
            return Ok(());
        }
        self.change(|facts| facts.used = agreed)?;
        self.fresh = false;
        Ok(())
    }

    /// Whether this node has never belonged to a cluster, as far as it knows.
    pub fn is_newcomer(&self) -> bool {
        let Facts {
            used,
            promised,
            system_id,
            doing,
            ..
        } = &self.facts;
        (*used, *promised, system_id, doing) == (Epoch(0), Epoch(0), &None, &None)
    }

    /// Changes the facts; they are on disk when this returns.
    pub fn change(&mut self, change: impl FnOnce(&mut Facts)) -> Result<(), LedgerError> {
        let mut facts = self.facts.clone();
        change(&mut facts);
        let path = self.dir.join(FILE);
        write_durably(&self.dir, &path, &facts).map_err(|source| LedgerError::Io { path, source })?;
        self.facts = facts;
        Ok(())
    }
}

fn write_durably(dir: &Path, path: &Path, facts: &Facts) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(facts)?)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_ledger_never_reuses_an_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.first_sight(Epoch(7)).unwrap();
        assert_eq!(ledger.facts().used, Epoch(7));
        let mut again = Ledger::open(dir.path()).unwrap();
        again.first_sight(Epoch(9)).unwrap();
        assert_eq!(
            again.facts().used,
            Epoch(7),
            "a ledger that was there is believed"
        );
    }

    #[test]
    fn facts_survive_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        ledger.change(|facts| facts.doing = Some(Doing::Clone)).unwrap();
        assert_eq!(
            Ledger::open(dir.path()).unwrap().facts().doing,
            Some(Doing::Clone)
        );
        fs::write(dir.path().join(FILE), b"{").unwrap();
        let why = Ledger::open(dir.path()).err().unwrap().to_string();
        assert!(why.contains("node.json is damaged"), "{why}");
    }
}
