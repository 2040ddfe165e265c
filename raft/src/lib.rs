//! Agreement: openraft carrying opaque bytes over one authenticated peer port.

mod errors;
mod group;
mod machine;
mod settings;
mod status;

pub use errors::{AskError, NotLeading, ProposeError, StartError};
pub use group::Group;
pub use machine::{Halt, Inbox, Machine, Peer};
pub use settings::{Settings, TlsFiles};
pub use status::{Lead, Status};
