//! What the node knows of its data directory, and what it makes of leftovers of interrupted work.

use super::ledger::{Doing, Ledger, LedgerError};
use crate::clock;
use crate::cluster::{Fork, Incarnation, Moment, Timeline, WalEnd};
use crate::decide::duty::Data;
use crate::postgres::DataDir;

/// The data directory and what was last read from it.
#[derive(Debug)]
pub struct Holdings {
    /// What a duty is judged from.
    pub data: Data,
    /// The timeline of the control file, or of the server since.
    pub timeline: Option<Timeline>,
    /// How that timeline began.
    pub fork: Option<Fork>,
    /// When `end` was read.
    pub end_at: Moment,
    /// Where the log of the stopped server ends; read again after every stop.
    pub end: Option<WalEnd>,
    /// It was a standby when it last ran, or is to be one at its next start.
    pub standby: bool,
    /// The dynamic configuration of a cluster that is founded from this data, which was there before us.
    pub founding: Option<String>,
    /// The directory holds something that is not ours to touch.
    pub foreign: Option<String>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            data: Data::Unknown,
            timeline: None,
            fork: None,
            end_at: Moment(0),
            end: None,
            standby: false,
            founding: None,
            foreign: None,
        }
    }
}

impl Holdings {
    /// Takes in what an inspection found, together with what the ledger says was being done to it.
    pub fn inspected(&mut self, found: DataDir, ledger: &Ledger) {
        self.end = None;
        self.foreign = None;
        let unfinished = match ledger.facts().doing {
            Some(Doing::Bootstrap) => Some("the creation of the database cluster was interrupted"),
            Some(Doing::Clone) => Some("a copy was interrupted"),
            Some(Doing::Rewind) => Some("a rewind was interrupted"),
            None => None,
        };
        self.data = match found {
            DataDir::Absent | DataDir::Empty => Data::Absent,
            DataDir::Incomplete(why) => Data::Broken(why),
            DataDir::NotOurs(what) => {
                self.foreign = Some(what);
                Data::Unknown
            }
            DataDir::Present(control) => {
                self.timeline = Some(control.timeline);
                self.standby = control.standby;
                match unfinished {
                    Some(why) => Data::Broken(why.to_owned()),
                    None => Data::Present {
                        system_id: control.system_id,
                        end: None,
                    },
                }
            }
        };
    }

    /// Takes in where the log ends, as read from disk or as a running standby says.
    pub fn set_end(&mut self, end: Option<WalEnd>) {
        self.end = end;
        self.end_at = clock::now();
        if let Some(end) = end {
            self.timeline = Some(end.timeline);
        }
        if let Data::Present { end: known, .. } = &mut self.data {
            *known = end;
        }
    }

    /// The system identifier of usable data.
    pub fn system_id(&self) -> Option<u64> {
        match self.data {
            Data::Present { system_id, .. } => Some(system_id),
            _ => None,
        }
    }
}

/// Notes in the ledger that work begins which must not be mistaken for finished.
pub fn begin(ledger: &mut Ledger, doing: Doing) -> Result<(), LedgerError> {
    ledger.change(|facts| facts.doing = Some(doing))
}

/// The same for work that makes another copy of the data: what the old one acknowledged is forgotten from here on, and
/// an interrupted attempt must not speak for it either.
pub fn begin_anew(ledger: &mut Ledger, doing: Doing, copy: Incarnation) -> Result<(), LedgerError> {
    ledger.change(|facts| {
        facts.doing = Some(doing);
        facts.incarnation = Some(copy);
    })
}

/// Notes that it ended well.
pub fn finish(ledger: &mut Ledger) -> Result<(), LedgerError> {
    if ledger.facts().doing.is_none() {
        return Ok(());
    }
    ledger.change(|facts| facts.doing = None)
}
