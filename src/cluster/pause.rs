//! Maintenance mode: whether the cluster is left to its operators.
//!
//! A committed pause is a grant without an end: the primary's deadline is taken off, so no time that passes proves that
//! it does not write. It ends only when the primary says that its deadline stands again, at the revision of the resume;
//! until then primacy moves only on its own word, on the copies' proof, or on an operator's explicit word.

use super::ids::Revision;
use serde::{Deserialize, Serialize};

/// Whether automatic actions are suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    /// They are not.
    #[default]
    Off,
    /// They are.
    On,
    /// They are not any more, but the primary's deadline may not stand yet.
    Ending {
        /// The revision of the resume.
        since: Revision,
    },
}

impl Pause {
    /// Hands off.
    pub fn is_on(self) -> bool {
        self == Self::On
    }

    /// The primary may have no deadline.
    pub fn is_unbounded(self) -> bool {
        self != Self::Off
    }
}
