//! What a session carries that a new server would lack: settings, prepared statements, and reasons to stay.

use super::marks::{Fixed, Marks};
use super::parameters::Parameters;
use super::queue::Asked;
use super::reader::{Change, Reader, Reading};
use std::collections::BTreeMap;

/// Bytes of prepared statements that are kept of one session.
const STATEMENT_BYTES: usize = 256 << 10;
/// Bytes of SET that are kept of one session.
const SETTING_BYTES: usize = 8 << 10;

/// A name, and the SET that set it last.
type Setting = (Box<[u8]>, Box<[u8]>);

/// What was asked between two moments at which the session was idle.
#[derive(Debug, Default)]
struct Unit {
    /// Texts: Query, and Parse without a name.
    texts: u32,
    /// Execute.
    runs: u32,
    /// The newest text is a Query.
    simple: bool,
    /// Statements of the newest text.
    statements: usize,
    /// Those of them whose effect is followed.
    changes: Vec<Change>,
    /// CommandComplete.
    done: usize,
    failed: bool,
}

/// Where in the body of a Parse the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Name,
    Text,
    Rest,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Luggage {
    marks: Marks,
    reader: Reader,
    part: Part,
    /// The body of a message that names a statement.
    body: Vec<u8>,
    named: bool,
    begun: bool,
    /// The body is longer than what is kept, and nothing of it is.
    cut: bool,
    unit: Unit,
    settings: Vec<Setting>,
    setting_bytes: usize,
    statements: BTreeMap<Box<[u8]>, Box<[u8]>>,
    statement_bytes: usize,
}

impl Luggage {
    /// Why the session must stay where it is.
    pub(super) fn fixed(&self) -> Option<Fixed> {
        self.marks.first()
    }

    /// Every SET, in order.
    pub(super) fn settings(&self) -> impl Iterator<Item = &[u8]> {
        self.settings.iter().map(|(_, text)| &**text)
    }

    /// The body of the Parse of every statement with a name.
    pub(super) fn statements(&self) -> impl Iterator<Item = &[u8]> {
        self.statements.values().map(|body| &**body)
    }

    /// A Query, Parse, Close or Execute of the client begins.
    pub(super) fn begin(&mut self, kind: u8) {
        self.part = Part::Name;
        self.begun = false;
        self.named = false;
        self.cut = false;
        if kind == b'Q' {
            self.part = Part::Text;
        }
    }

    /// Part of its body.
    pub(super) fn take(&mut self, kind: u8, bytes: &[u8]) {
        match kind {
            b'Q' => self.text(bytes),
            b'P' => self.parse(bytes),
            b'C' => {
                let room = STATEMENT_BYTES.saturating_sub(self.body.len());
                self.body.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            }
            _ => {}
        }
    }

    /// It is all there. What is asked by it, if that has an answer of its own.
    pub(super) fn end(&mut self, kind: u8, parameters: &Parameters) -> Option<Asked> {
        match kind {
            b'Q' => {
                let reading = self.reader.finish();
                self.heard(reading, true, parameters);
                Some(Asked::Query)
            }
            b'P' => {
                let reading = self.reader.finish();
                let body = self
                    .named
                    .then(|| std::mem::take(&mut self.body).into_boxed_slice());
                self.heard(reading, false, parameters);
                Some(Asked::Parse(body))
            }
            b'C' => {
                let body = std::mem::take(&mut self.body);
                let name = body.strip_prefix(b"S").and_then(|name| name.strip_suffix(&[0]));
                Some(Asked::Close(name.filter(|name| !name.is_empty()).map(Box::from)))
            }
            b'E' => {
                self.unit.runs = self.unit.runs.saturating_add(1);
                None
            }
            _ => None,
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        let end = bytes.iter().position(|byte| *byte == 0);
        self.reader
            .read(end.and_then(|end| bytes.get(..end)).unwrap_or(bytes));
        if end.is_some() {
            self.part = Part::Rest;
        }
    }

    /// Name, text, types. The first byte tells whether there is a name.
    fn parse(&mut self, mut bytes: &[u8]) {
        if !self.begun && !bytes.is_empty() {
            self.begun = true;
            self.named = bytes.first() != Some(&0);
            self.body = Vec::new();
        }
        if self.named {
            if self.cut || self.body.len() + bytes.len() > STATEMENT_BYTES {
                self.cut = true;
                self.body = Vec::new();
            } else {
                self.body.extend_from_slice(bytes);
            }
        }
        if self.part == Part::Name {
            let Some(end) = bytes.iter().position(|byte| *byte == 0) else {
                return;
            };
            bytes = bytes.get(end + 1..).unwrap_or_default();
            self.part = Part::Text;
        }
        if self.part == Part::Text {
            self.text(bytes);
        }
    }

    fn heard(&mut self, mut reading: Reading, simple: bool, parameters: &Parameters) {
        self.marks.add_all(reading.marks);
        // The server reports these itself, whatever happens to them.
        let reported = |name: &[u8]| parameters.get(name).is_some();
        if reading.configured.iter().any(|name| !reported(name)) {
            self.marks.add(Fixed::Settings);
        }
        if self.named {
            // It may be executed at any time.
            return self.doubt(&reading.changes, parameters);
        }
        let unit = &mut self.unit;
        unit.texts = unit.texts.saturating_add(1);
        unit.simple = simple;
        unit.statements = reading.statements;
        if unit.texts > 1 {
            let earlier = std::mem::take(&mut unit.changes);
            self.doubt(&earlier, parameters);
            self.doubt(&reading.changes, parameters);
        } else {
            unit.changes = std::mem::take(&mut reading.changes);
        }
    }

    /// It is not known whether, or when, these take place.
    fn doubt(&mut self, changes: &[Change], parameters: &Parameters) {
        for change in changes {
            match change {
                Change::Set(name, _) | Change::Reset(name) if parameters.get(name).is_some() => {}
                Change::Set(..) | Change::Reset(_) | Change::ResetAll => self.marks.add(Fixed::Settings),
                Change::Discard | Change::Deallocate(_) | Change::DeallocateAll => {
                    self.marks.add(Fixed::Statements);
                }
            }
        }
    }

    /// CommandComplete.
    pub(super) fn done(&mut self) {
        self.unit.done += 1;
    }

    /// ErrorResponse.
    pub(super) fn failed(&mut self) {
        self.unit.failed = true;
    }

    /// Everything was answered, and no transaction is open.
    pub(super) fn idle(&mut self, parameters: &Parameters) {
        let unit = std::mem::take(&mut self.unit);
        if unit.changes.is_empty() {
            return;
        }
        let alone = unit.texts == 1 && unit.changes.len() == unit.statements;
        let ran = if unit.simple {
            unit.runs == 0
        } else {
            unit.runs == 1 && unit.statements == 1
        };
        if alone && ran && !unit.failed && unit.done == unit.statements {
            for change in unit.changes {
                self.change(change, parameters);
            }
        } else if !(unit.simple && unit.texts == 1 && unit.runs == 0 && unit.failed) {
            self.doubt(&unit.changes, parameters);
        }
        // One text that failed has changed nothing: without a BEGIN it is one transaction.
    }

    fn change(&mut self, change: Change, parameters: &Parameters) {
        match change {
            Change::Set(name, _) if parameters.get(&name).is_some() => {}
            Change::Set(name, text) => {
                self.forget_setting(&name);
                self.setting_bytes += name.len() + text.len();
                if self.setting_bytes > SETTING_BYTES {
                    self.marks.add(Fixed::TooMuch);
                    self.setting_bytes -= name.len() + text.len();
                } else {
                    self.settings.push((name, text));
                }
            }
            Change::Reset(name) => self.forget_setting(&name),
            Change::ResetAll => self.forget_settings(),
            Change::Discard => {
                self.marks.discard();
                self.forget_settings();
                self.forget_statements();
            }
            Change::Deallocate(name) => self.closed(&name),
            Change::DeallocateAll => {
                self.marks.remove(Fixed::Statements);
                self.forget_statements();
            }
        }
    }

    fn forget_setting(&mut self, name: &[u8]) {
        let bytes = &mut self.setting_bytes;
        self.settings.retain(|(known, text)| {
            let other = **known != *name;
            if !other {
                *bytes -= known.len() + text.len();
            }
            other
        });
    }

    fn forget_settings(&mut self) {
        self.settings.clear();
        self.setting_bytes = 0;
    }

    fn forget_statements(&mut self) {
        self.statements.clear();
        self.statement_bytes = 0;
    }

    /// The server has taken in a statement with a name.
    pub(super) fn parsed(&mut self, body: Box<[u8]>) {
        let name = body.iter().position(|byte| *byte == 0);
        let Some(name) = name.and_then(|end| body.get(..end)).map(Box::<[u8]>::from) else {
            // It was too long to be kept.
            return self.marks.add(Fixed::TooMuch);
        };
        self.closed(&name);
        if self.statement_bytes + body.len() > STATEMENT_BYTES {
            return self.marks.add(Fixed::TooMuch);
        }
        self.statement_bytes += body.len();
        self.statements.insert(name, body);
    }

    /// A statement with this name exists no more.
    pub(super) fn closed(&mut self, name: &[u8]) {
        if let Some(body) = self.statements.remove(name) {
            self.statement_bytes -= body.len();
        }
    }
}
