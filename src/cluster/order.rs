//! What an operator asks of the cluster, and the answer as the door will say it.
//!
//! An order travels at most once from the node that was asked to the node that leads Raft, which checks it against what
//! is agreed and proposes; nothing here is replicated. What is asked of one node alone is `node/orders.rs`.

use super::ids::Revision;
use serde::{Deserialize, Serialize};

/// What is asked. Append variants and fields at the end only: peers of another version read the bytes too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Change the dynamic configuration.
    Configure {
        /// JSON text of an object.
        config: String,
        /// It replaces the configuration instead of being merged into it.
        whole: bool,
        /// Only if the configuration is one of these (`If-Match`); absent: whatever it is.
        if_match: Option<String>,
    },
    /// Move primacy to another member, now or at a time.
    Handover(HandoverOrder),
    /// Forget the scheduled switchover.
    CancelHandover,
    /// Take a member out of the cluster.
    Remove {
        /// Its name.
        member: String,
        /// Also where no further loss would be survived.
        force: bool,
    },
    /// Let a member that was taken out join again.
    Add {
        /// Its name.
        member: String,
    },
    /// Nothing: whoever asks wants to see all that was agreed before, whichever node it was asked of.
    Look,
}

/// A switchover or a failover as it was asked for: words, not judged yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverOrder {
    /// `POST /failover`, not `POST /switchover`.
    pub failover: bool,
    /// From whom.
    pub leader: Option<String>,
    /// To whom.
    pub candidate: Option<String>,
    /// When, ISO 8601 with a zone; at once if absent.
    pub scheduled_at: Option<String>,
    /// What was acknowledged to clients may be lost.
    pub accept_data_loss: bool,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// HTTP status.
    pub status: u16,
    /// One sentence for people, or a JSON document.
    pub text: String,
    /// The text is JSON.
    pub json: bool,
    /// What was changed holds from this revision on; whoever asked may look once it has it too.
    pub revision: Revision,
}

impl Done {
    /// A sentence.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            json: false,
            revision: Revision(0),
        }
    }

    /// A JSON document.
    pub fn json(status: u16, text: impl Into<String>) -> Self {
        Self {
            json: true,
            ..Self::text(status, text)
        }
    }

    /// The same, once this revision is there.
    pub fn at(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }
}
