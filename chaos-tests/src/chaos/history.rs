//! What the clients did and were told, operation by operation.

use crate::writer::Write;
use std::sync::{Arc, Mutex};

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The client was told that it is done.
    Ok,
    /// It certainly changed nothing.
    Failed,
    /// It was sent and no certain answer came.
    Unknown,
}

/// What all operations have in common. Times are nanoseconds of the boot-time clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The client.
    pub client: u32,
    /// Node it was sent to.
    pub node: usize,
    /// When it was begun.
    pub begin: u64,
    /// When its answer came or was given up.
    pub end: u64,
    /// What became of it.
    pub fate: Fate,
    /// Timeline the server was writing, zero where it did not say.
    pub timeline: i32,
    /// How far that server's WAL was then, in bytes.
    pub lsn: i64,
}

/// A step of a transaction on lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This value was appended to this list. No value is ever appended twice.
    Append(i64, i64),
    /// This list was read and held these values.
    Read(i64, Vec<i64>),
}

/// A serializable transaction on lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTxn {
    /// Who, when, and what became of it.
    pub call: Call,
    /// What it did, as far as it came.
    pub steps: Vec<Step>,
}

/// An operation on a register. Every successful change raises its version by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterOp {
    /// Who, when, and what became of it.
    pub call: Call,
    /// Which register.
    pub key: i64,
    /// The value that a compare-and-set put there; `None` is a read.
    pub wrote: Option<i64>,
    /// Value and version that the server showed; `None` when the comparison failed or no answer came.
    pub saw: Option<(i64, i64)>,
}

/// A transfer between two accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who, when, and what became of it.
    pub call: Call,
    /// Its number in the ledger.
    pub id: i64,
}

/// All money there is, as one statement saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Who, when, and what became of it.
    pub call: Call,
    /// The sum.
    pub sum: i64,
    /// Whether a standby was asked.
    pub on_standby: bool,
}

/// Lists that were read on a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyRead {
    /// Who, when, and what became of it.
    pub call: Call,
    /// Lists with their values.
    pub lists: Vec<(i64, Vec<i64>)>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Transactions on lists.
    pub lists: Vec<ListTxn>,
    /// Operations on registers.
    pub registers: Vec<RegisterOp>,
    /// Transfers.
    pub transfers: Vec<Transfer>,
    /// Sums.
    pub totals: Vec<Total>,
    /// Lists read on standbys.
    pub standby_reads: Vec<StandbyRead>,
    /// Numbered rows.
    pub rows: Vec<Write>,
    /// Commits that were acknowledged with a warning that no standby has them; they count as unknown.
    pub unwaited: u64,
}

impl History {
    /// Every commit that was acknowledged, with the timeline it was made on.
    pub fn acknowledged(&self) -> Vec<Call> {
        let lists = self.lists.iter().filter(|txn| txn.writes()).map(|txn| &txn.call);
        let registers = self
            .registers
            .iter()
            .filter(|op| op.wrote.is_some() && op.saw.is_some())
            .map(|op| &op.call);
        let transfers = self.transfers.iter().map(|transfer| &transfer.call);
        lists
            .chain(registers)
            .chain(transfers)
            .filter(|call| call.fate == Fate::Ok)
            .cloned()
            .chain(self.rows.iter().filter_map(row_call))
            .collect()
    }
}

fn row_call(row: &Write) -> Option<Call> {
    let crate::writer::Outcome::Acked { timeline } = row.outcome else {
        return None;
    };
    Some(Call {
        client: 1000 + u32::try_from(row.writer).unwrap(),
        node: row.node,
        begin: row.sent,
        end: row.ended,
        fate: Fate::Ok,
        timeline,
        lsn: 0,
    })
}

impl ListTxn {
    /// Whether it appended anything.
    pub fn writes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Append(..)))
    }
}

/// The history while it grows.
pub type Shared = Arc<Mutex<History>>;
