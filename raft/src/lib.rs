//! Agreement: openraft carrying opaque bytes over one authenticated peer port.

mod errors;
mod form;
mod group;
mod join;
mod machine;
mod net;
mod node;
mod observe;
mod propose;
mod serve;
mod settings;
mod start;
mod status;
mod store;
mod types;
mod wire;

pub use errors::{AskError, NotLeading, ProposeError, StartError};
pub use group::Group;
pub use machine::{Halt, Inbox, Machine, Peer};
pub use settings::{Settings, TlsFiles};
pub use status::{Lead, Status};
