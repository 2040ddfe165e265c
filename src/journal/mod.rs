//! The log: what happens is told to one thread, which writes it as the operator wants to read it.
//!
//! ```text
//! tracing -> filter (levels) -> layer -> Record -> bounded queue -> writer thread -> style -> standard error
//!                                                                                          -> patroni.log, .1, .2
//! ```
//!
//! Invariants: whoever logs never waits for a disk or a terminal, because a lease is worth more than a line; lines
//! that did not fit into the queue are counted, and the number is told. The last lines before an end are written:
//! [`Journal::flush`] waits for them, with a deadline.
//!
//! The file in `log.dir` is called `patroni.log`, because that key is Patroni's, and what collects logs on people's
//! machines looks for that name.

mod file;
mod layer;
mod style;
mod writer;

pub use file::LOG_NAME;

use crate::config::Log;
use layer::Layer;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The last lines have this long to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// The log file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("log.dir: {path} cannot be written: {source}", path = path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

/// The running log.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<writer::Word>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Journal {
    /// Opens the log, and lets the whole program speak to it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(log: &Log) -> Result<Self, JournalError> {
        let (queue, words) = sync_channel(log.queue.max(1));
        let lost = writer::start(log, words)?;
        let (filter, handle) = reload::Layer::new(EnvFilter::new(directives(log)));
        let layer = Layer::new(queue.clone(), lost);
        let subscriber = Registry::default().with(filter).with(layer);
        // A second subscriber in one process is a test's doing, and it keeps the first.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(Self {
            queue,
            filter: handle,
        })
    }

    /// From now on as this section says; the file is opened again.
    ///
    /// # Errors
    /// The file cannot be written: everything stays as it was.
    pub fn reload(&self, log: &Log) -> Result<(), JournalError> {
        let (done, answered) = sync_channel(1);
        let wish = writer::Word::Change(Box::new(log.clone()), done);
        if self.queue.try_send(wish).is_ok() {
            // A writer that has gone has nobody to write for.
            answered.recv_timeout(FLUSH).unwrap_or(Ok(()))?;
        }
        let _ = self.filter.reload(EnvFilter::new(directives(log)));
        Ok(())
    }

    /// Waits until all that was said so far is written, for two seconds at most.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        let mut word = writer::Word::Flush(done);
        // A full queue is given the time it needs to take one more word.
        for _ in 0..FLUSH.as_millis() / 10 {
            match self.queue.try_send(word) {
                Ok(()) => {
                    let _ = written.recv_timeout(FLUSH);
                    return;
                }
                Err(TrySendError::Full(back)) => word = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Our own level from the file; openraft tells a lot at INFO that only its developers need, and a node without a
/// leader makes it repeat that a hundred times a second.
fn directives(log: &Log) -> String {
    if let Ok(own) = std::env::var("MATRIARCH_LOG") {
        return own;
    }
    let level = level(&log.level);
    let raft = if level == "debug" {
        "openraft=info"
    } else {
        matriarch_raft::LOG_FILTER
    };
    let mut all = format!("{level},{raft},sled=warn,tokio_postgres=warn,hyper=warn,rustls=warn");
    for (name, wanted) in &log.loggers {
        all.push_str(&format!(",{}={}", name.replace('.', "::"), self::level(wanted)));
    }
    all
}

/// A level's name in Patroni's words, as the filter has it.
fn level(word: &str) -> &'static str {
    match word.to_ascii_uppercase().as_str() {
        "DEBUG" | "NOTSET" => "debug",
        "WARNING" | "WARN" => "warn",
        "ERROR" | "CRITICAL" | "FATAL" => "error",
        _ => "info",
    }
}
