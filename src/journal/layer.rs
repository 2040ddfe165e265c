//! From an event of the program to a [`Record`] in the queue.

use super::writer::Word;
use crate::clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;

/// One thing that was said.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) level: Level,
    /// The module that speaks, as `matriarch.node.agent`.
    pub(super) name: String,
    pub(super) file: &'static str,
    pub(super) line: u32,
    pub(super) thread: String,
    pub(super) message: String,
    /// What was said beside the message.
    pub(super) fields: Vec<(&'static str, String)>,
}

pub(super) struct Layer {
    queue: SyncSender<Word>,
    /// Records that found the queue full.
    lost: Arc<AtomicU64>,
}

impl Layer {
    pub(super) fn new(queue: SyncSender<Word>, lost: Arc<AtomicU64>) -> Self {
        Self { queue, lost }
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut record = Record {
            at_ms: clock::wall_ms(),
            level: *about.level(),
            name: about.target().replace("::", "."),
            file: about.file().unwrap_or_default(),
            line: about.line().unwrap_or(0),
            thread: std::thread::current().name().unwrap_or_default().to_owned(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut record);
        if self.queue.try_send(Word::Record(Box::new(record))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.fields.push((name, value.to_owned())),
        }
    }
}
