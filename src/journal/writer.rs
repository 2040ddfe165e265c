//! The thread that writes: takes words from the queue, one after the other, and is alone with the file.

use super::JournalError;
use super::file::Files;
use super::layer::Record;
use super::style::Style;
use crate::config::Log;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use tracing::Level;

/// What the writer is told.
pub(super) enum Word {
    Record(Box<Record>),
    /// From now on like this.
    Change(Box<Log>, SyncSender<Result<(), JournalError>>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// Begins to write; answers the count of lines that were lost.
pub(super) fn start(log: &Log, words: Receiver<Word>) -> Result<Arc<AtomicU64>, JournalError> {
    let lost = Arc::new(AtomicU64::new(0));
    let mut writer = Writer {
        output: Output::open(log)?,
        style: Style::new(log),
        lost: lost.clone(),
    };
    // Without a thread there is no log, and nothing else that could be told that.
    let _ = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.run(&words));
    Ok(lost)
}

enum Output {
    Stderr,
    Files(Files),
}

impl Output {
    fn open(log: &Log) -> Result<Self, JournalError> {
        match &log.dir {
            None => Ok(Self::Stderr),
            Some(dir) => Ok(Self::Files(Files::open(dir, log)?)),
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stderr => std::io::stderr().lock().write_all(line),
            Self::Files(files) => files.write(line),
        }
    }
}

struct Writer {
    output: Output,
    style: Style,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(&mut self, words: &Receiver<Word>) {
        while let Ok(word) = words.recv() {
            match word {
                Word::Record(record) => self.write(&record),
                Word::Change(log, done) => {
                    let _ = done.try_send(self.change(&log));
                }
                Word::Flush(done) => {
                    let _ = done.try_send(());
                }
            }
        }
    }

    fn change(&mut self, log: &Log) -> Result<(), JournalError> {
        self.output = Output::open(log)?;
        self.style = Style::new(log);
        Ok(())
    }

    fn write(&mut self, record: &Record) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let told = Record {
                level: Level::WARN,
                name: "matriarch.journal".to_owned(),
                message: format!(
                    "{lost} lines of the log were lost: they came faster than they could be written"
                ),
                fields: Vec::new(),
                ..record.clone()
            };
            self.line(&told);
        }
        self.line(record);
    }

    fn line(&mut self, record: &Record) {
        let mut line = self.style.render(record);
        line.push('\n');
        if self.output.write(line.as_bytes()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
