//! Bytes that survive: a log, a few facts and snapshots, durable before they are acknowledged.
//!
//! This crate knows neither Raft nor what runs above it. It offers the small trait [`Log`] and one
//! engine behind it, [`Store`], on sled; another engine can take its place by passing the same tests.
//!
//! ```text
//!  append / put / truncate          dir/
//!     | insert inline                 lock        one process at a time
//!     v                               identity    which cluster this is, which format
//!  sled's buffers  <---- readers      synced      how many syncs had been completed
//!     | queue, bounded                log/db      sled: trees `log` and `meta`
//!     v                               snapshots/  NUMBER.snapshot, the newest and one older
//!  flush thread: count, flush, fdatasync, count, answer all in order
//! ```
//!
//! Invariants, each with a test that breaks it on purpose or a process that is killed for it:
//!
//! 1. What was acknowledged is on the device. sled's `flush` only hands bytes to the kernel, so the flush thread
//!    follows it with `fdatasync` on the same file; one sync serves every request that waits.
//! 2. Acknowledgements come in the order of the appends, and none after one that failed: the first failed sync ends
//!    the store, because nobody knows what the disk holds after it.
//! 3. What is on disk after a crash is a prefix of what was written. Deletions go from the top when the end is cut
//!    and from the bottom when the beginning is purged, so a prefix never has a hole; the purged pointer is durable
//!    before the first deletion.
//! 4. Everything lives in sled's one file. Values are cut into pieces (`entries`), because sled moves large pages
//!    to files it does not sync.
//! 5. Every value carries magic, version and checksum over its key and bytes. A store that is damaged, of a newer
//!    format, of another cluster or in use is refused with one sentence, and not a byte of it is changed: sled would
//!    repair by forgetting, so a copy is opened and read first (`engine`), and a count of syncs (`progress`) tells a
//!    shortened file from one that ended there.
//!
//! Caveats: opening reads the whole log once and needs the room for a second copy meanwhile; keep the log short by
//! purging. Callbacks run on the flush thread: they must be quick and must not call the store. A
//! disk that fails is reported within about two seconds (`nudge`), a disk that hangs only to those who wait for a
//! durable call, after a minute; appends that hang are never answered. The handles of one process may overlap for a
//! moment while sled lets go, those of two processes are told apart by the file `lock`.

mod engine;
mod entries;
mod envelope;
mod error;
mod facts;
mod files;
mod flusher;
mod identity;
mod log;
mod nudge;
mod progress;
mod snapshots;
mod store;

pub use error::StorageError;
pub use log::{Done, Entry, Log, Meta};
pub use snapshots::{Snapshot, Snapshots};
pub use store::{Options, Store};
