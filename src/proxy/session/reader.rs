//! Reads what a client asks, as far as it says what is left in the session; whatever is not known to leave nothing counts as
//! leaving something.
//!
//! The judgement is by words, not by a grammar: it is wrong on the safe side only. What runs unseen is not judged: a
//! trigger, a rule or a view that calls a function, a domain's check, a type's own operator.

use super::lexer::{Lexer, Token};
use super::marks::{Fixed, Marks};
use super::words::{Kind, Word, is_harmless};

/// A longer SET is not kept.
const LONGEST: usize = 1024;

/// A statement whose effect is known and is followed, once it is known to have succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// SET: the name of the setting, and the whole statement.
    Set(Box<[u8]>, Box<[u8]>),
    /// RESET of one name.
    Reset(Box<[u8]>),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    Discard,
    /// DEALLOCATE of one name.
    Deallocate(Box<[u8]>),
    /// DEALLOCATE ALL.
    DeallocateAll,
}

/// What a text says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// What it may leave behind.
    pub(super) marks: Marks,
    /// How many statements it has.
    pub(super) statements: usize,
    /// Those of them whose effect is followed.
    pub(super) changes: Vec<Change>,
    /// Names that set_config() sets for longer than the transaction, to whatever value.
    pub(super) configured: Vec<Box<[u8]>>,
}

/// What stood before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Nothing,
    Name,
    Dot,
}

/// Whether a name is one that a parenthesis does not call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Naming {
    #[default]
    No,
    Next,
    This,
}

/// What a SET, RESET, DISCARD or DEALLOCATE is about.
#[derive(Debug, Default)]
struct Subject {
    words: u16,
    name: Vec<u8>,
    /// The name is over.
    whole: bool,
    /// There is nothing to follow.
    idle: bool,
    all: bool,
}

/// The arguments of a set_config().
#[derive(Debug)]
struct Config {
    depth: u16,
    argument: u16,
    name: Option<Box<[u8]>>,
    tokens: u16,
    local: bool,
}

/// One statement.
#[derive(Debug, Default)]
struct Statement {
    kind: Option<Kind>,
    words: u16,
    depth: u16,
    calls: bool,
    before: Before,
    naming: Naming,
    word: Option<Word>,
    /// The name before a dot is `pg_catalog`.
    catalog: bool,
    /// The newest name belongs to a schema that is not.
    foreign: bool,
    subject: Subject,
    config: Option<Config>,
}

/// The position in a text.
#[derive(Debug, Default)]
pub(super) struct Reader {
    lexer: Lexer,
    statement: Statement,
    reading: Reading,
    /// A SET, as it came.
    text: Vec<u8>,
    copying: bool,
}

impl Reader {
    /// Takes in the next part of the text.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let (mut at, mut from) = (0, 0);
        while let Some(token) = self.lexer.next(bytes, &mut at) {
            let begun = self.statement.kind.is_some();
            if token == Token::Sign(b';') && self.statement.depth == 0 {
                self.copy(bytes.get(from..at.saturating_sub(1)));
                self.end();
                continue;
            }
            self.token(token);
            if !begun && self.statement.kind == Some(Kind::Set) {
                self.copying = true;
                self.text.clear();
                self.text.extend_from_slice(b"SET");
                from = at;
            }
        }
        self.copy(bytes.get(from..));
    }

    /// The text is over.
    pub(super) fn finish(&mut self) -> Reading {
        if let Some(token) = self.lexer.finish() {
            self.token(token);
        }
        self.end();
        if self.lexer.is_unreadable() {
            self.reading.marks.add(Fixed::Unreadable);
        }
        self.lexer = Lexer::default();
        std::mem::take(&mut self.reading)
    }

    fn copy(&mut self, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes.filter(|_| self.copying) {
            let room = (LONGEST + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
    }

    fn end(&mut self) {
        let statement = std::mem::take(&mut self.statement);
        self.copying = false;
        if let Some(kind) = statement.kind {
            self.reading.statements += 1;
            self.conclude(kind, statement.subject);
        }
    }

    fn conclude(&mut self, kind: Kind, subject: Subject) {
        let name = || subject.name.clone().into_boxed_slice();
        let change = match kind {
            _ if subject.idle => return,
            Kind::Set if subject.name.is_empty() || self.text.len() > LONGEST => {
                return self.reading.marks.add(Fixed::Settings);
            }
            Kind::Set => Change::Set(name(), std::mem::take(&mut self.text).into()),
            Kind::Reset if subject.all => Change::ResetAll,
            Kind::Reset => Change::Reset(name()),
            Kind::Discard if subject.all => Change::Discard,
            Kind::Deallocate if subject.all => Change::DeallocateAll,
            Kind::Deallocate => Change::Deallocate(name()),
            _ => return,
        };
        self.reading.changes.push(change);
    }

    fn token(&mut self, token: Token) {
        if self.statement.kind.is_none() {
            return self.open(token);
        }
        self.configure(token);
        match token {
            Token::Word | Token::Quoted => self.name(token == Token::Quoted),
            Token::Sign(b'(') => self.parenthesis(),
            Token::Sign(b'.') => {
                self.statement.before = Before::Dot;
                self.part(b".", true);
            }
            Token::Sign(_) | Token::Literal | Token::Number => {
                if token == Token::Sign(b')') {
                    self.statement.depth = self.statement.depth.saturating_sub(1);
                }
                self.statement.subject.whole = !self.statement.subject.name.is_empty();
                self.between();
            }
        }
    }

    /// Behind something that is no part of a name.
    fn between(&mut self) {
        self.statement.before = Before::Nothing;
        self.statement.naming = Naming::No;
        self.statement.word = None;
    }

    fn open(&mut self, token: Token) {
        let kind = match token {
            Token::Word => Kind::of(self.lexer.content()),
            Token::Sign(b'(') => {
                self.statement.depth += 1;
                return;
            }
            _ => Kind::Unknown,
        };
        let word = Word::of(self.lexer.content());
        self.statement.kind = Some(kind);
        self.statement.calls = kind == Kind::Rows;
        self.statement.word = Some(word);
        self.statement.before = Before::Name;
        if word.names() {
            self.statement.naming = Naming::Next;
        }
        match kind {
            Kind::Unknown => self.reading.marks.add(Fixed::Calls),
            Kind::Listen => self.reading.marks.add(Fixed::Listens),
            Kind::Load => self.reading.marks.add(Fixed::Loaded),
            _ => {}
        }
    }

    /// A word that is not the first, or a quoted name.
    fn name(&mut self, quoted: bool) {
        let content = self.lexer.content();
        let word = if quoted { Word::Other } else { Word::of(content) };
        let statement = &mut self.statement;
        let dotted = statement.before == Before::Dot;
        statement.foreign = dotted && !statement.catalog;
        statement.catalog = content == b"pg_catalog";
        if content.starts_with(b"pg_temp") {
            self.reading.marks.add(Fixed::Temporary);
        }
        statement.naming = match statement.naming {
            Naming::Next => Naming::This,
            Naming::This if dotted => Naming::This,
            _ => Naming::No,
        };
        if word.names() {
            statement.naming = Naming::Next;
        }
        statement.calls |= matches!(word, Word::Query | Word::Insert | Word::Merge);
        let before = statement.word;
        match (statement.kind, word) {
            (_, Word::Temp)
                if matches!(
                    before,
                    Some(Word::Create | Word::Into | Word::Local | Word::Global | Word::Replace)
                ) =>
            {
                self.reading.marks.add(Fixed::Temporary);
            }
            (Some(Kind::Declare), Word::Hold) if before == Some(Word::With) => {
                self.reading.marks.add(Fixed::Cursor);
            }
            (Some(Kind::Prepare), _) if statement.words == 0 && word != Word::Transaction => {
                self.reading.marks.add(Fixed::Statements);
            }
            _ => {}
        }
        // INSERT INTO and MERGE INTO name a table; any other INTO makes one.
        let inserts = word == Word::Into && matches!(before, Some(Word::Insert | Word::Merge));
        statement.word = Some(if inserts { Word::Other } else { word });
        statement.before = Before::Name;
        statement.words = statement.words.saturating_add(1);
        match statement.kind {
            Some(Kind::Set) => self.set(word),
            Some(Kind::Reset | Kind::Discard | Kind::Deallocate) => self.clear(word),
            _ => {}
        }
    }

    fn parenthesis(&mut self) {
        let statement = &mut self.statement;
        statement.depth = statement.depth.saturating_add(1);
        let called = statement.before == Before::Name && statement.naming != Naming::This && statement.calls;
        let (foreign, depth) = (statement.foreign, statement.depth);
        self.between();
        if !called {
            return;
        }
        let name = self.lexer.content();
        let why = match name {
            _ if foreign => Fixed::Calls,
            b"set_config" if self.statement.config.is_some() => Fixed::Settings,
            b"set_config" => {
                self.statement.config = Some(Config {
                    depth,
                    argument: 0,
                    name: None,
                    tokens: 0,
                    local: false,
                });
                return;
            }
            b"currval" | b"lastval" => Fixed::Sequence,
            _ if is_harmless(name) => return,
            _ if name.starts_with(b"pg_advisory_lock") || name.starts_with(b"pg_try_advisory_lock") => {
                Fixed::Locks
            }
            _ => Fixed::Calls,
        };
        self.reading.marks.add(why);
    }

    /// Follows the arguments of a set_config().
    fn configure(&mut self, token: Token) {
        let depth = self.statement.depth;
        let Some(config) = &mut self.statement.config else {
            return;
        };
        match token {
            Token::Sign(b')') if depth == config.depth => {
                let config = self.statement.config.take();
                match config.map(|config| (config.local, config.name)) {
                    Some((true, _)) | None => {}
                    Some((false, Some(name))) => self.reading.configured.push(name),
                    Some((false, None)) => self.reading.marks.add(Fixed::Settings),
                }
            }
            Token::Sign(b',') if depth == config.depth => {
                config.argument += 1;
                config.tokens = 0;
            }
            _ => {
                config.tokens = config.tokens.saturating_add(1);
                let alone = config.tokens == 1;
                match (config.argument, token) {
                    (0, Token::Literal) if alone && !self.lexer.is_cut() => {
                        config.name = Some(self.lexer.content().to_ascii_lowercase().into());
                    }
                    (0, _) => config.name = None,
                    (2, Token::Word) if alone => config.local = self.lexer.content() == b"true",
                    (2, _) => config.local = false,
                    _ => {}
                }
            }
        }
    }

    /// Adds to the name that a statement is about.
    fn part(&mut self, part: &[u8], dot: bool) {
        let subject = &mut self.statement.subject;
        if subject.whole || (dot && subject.name.is_empty()) {
            return;
        }
        let joined = dot || subject.name.is_empty() || subject.name.ends_with(b".");
        if joined {
            subject.name.extend_from_slice(part);
        } else {
            subject.whole = true;
        }
    }

    /// A word of a SET behind the first.
    fn set(&mut self, word: Word) {
        let subject = &mut self.statement.subject;
        if subject.whole || subject.idle {
            return;
        }
        subject.words += 1;
        let first = subject.words == 1;
        let name: &[u8] = match word {
            Word::Local | Word::Transaction | Word::Constraints if first => {
                subject.idle = true;
                return;
            }
            Word::Session if first => {
                // SESSION may stand before any name.
                return subject.words = 1;
            }
            Word::Authorization | Word::Role if subject.name.is_empty() => {
                self.reading.marks.add(Fixed::Role);
                subject.idle = true;
                return;
            }
            Word::Characteristics if subject.name.is_empty() => b"session characteristics",
            Word::Time if subject.name.is_empty() => b"timezone",
            Word::Names if subject.name.is_empty() => b"client_encoding",
            Word::Schema if subject.name.is_empty() => b"search_path",
            Word::Xml if subject.name.is_empty() => b"xmloption",
            Word::Seed if subject.name.is_empty() => b"",
            Word::To => {
                subject.whole = true;
                return;
            }
            _ => {
                let part = self.lexer.content().to_ascii_lowercase();
                self.part(&part, false);
                let why = match self.statement.subject.name.as_slice() {
                    b"session_authorization" => Fixed::Role,
                    b"standard_conforming_strings" => Fixed::Unreadable,
                    _ => return,
                };
                return self.reading.marks.add(why);
            }
        };
        subject.name = name.to_vec();
        subject.whole = true;
    }

    /// A word of a RESET, DISCARD or DEALLOCATE behind the first.
    fn clear(&mut self, word: Word) {
        let subject = &mut self.statement.subject;
        if subject.whole {
            return;
        }
        subject.words += 1;
        let first = subject.words == 1;
        let kind = self.statement.kind;
        match word {
            Word::All if subject.name.is_empty() => (subject.all, subject.whole) = (true, true),
            _ if kind == Some(Kind::Discard) => subject.idle = true,
            Word::Prepare if first && kind == Some(Kind::Deallocate) => {}
            Word::Role | Word::Session if first && kind == Some(Kind::Reset) => {
                (subject.idle, subject.whole) = (true, true);
            }
            Word::Time if first && kind == Some(Kind::Reset) => {
                (subject.name, subject.whole) = (b"timezone".to_vec(), true);
            }
            _ => {
                let mut part = self.lexer.content().to_vec();
                if kind == Some(Kind::Reset) {
                    part.make_ascii_lowercase();
                }
                self.part(&part, false);
            }
        }
    }
}

#[cfg(test)]
#[path = "reader_test.rs"]
mod tests;
