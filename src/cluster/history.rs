//! The list of timelines that this cluster made: who promoted, where, when, why.

use super::ids::{Epoch, Incarnation, MemberName};
use super::wal::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

/// One promotion: `parent` ended at `switch`, `timeline` began there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The new timeline.
    pub timeline: Timeline,
    /// The timeline it forked from.
    pub parent: Timeline,
    /// The position of the fork.
    pub switch: Lsn,
    /// Who was promoted.
    pub member: MemberName,
    /// Which copy of the data was promoted.
    pub incarnation: Option<Incarnation>,
    /// The epoch it was promoted in.
    pub epoch: Epoch,
    /// Name of the rule that decided it.
    pub rule: String,
    /// Wall time of the decision for people, milliseconds since 1970; nothing compares it.
    pub at_ms: u64,
}

/// Any change of primacy, with the rule that made it, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The revision that made the change.
    pub revision: u64,
    /// The epoch after the change.
    pub epoch: Epoch,
    /// Who holds primacy after the change.
    pub member: Option<MemberName>,
    /// Name of the rule.
    pub rule: String,
    /// What the rule saw.
    pub reason: String,
    /// Wall time for people, milliseconds since 1970.
    pub at_ms: u64,
}
