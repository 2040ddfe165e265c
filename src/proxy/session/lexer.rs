//! Cuts SQL into words, literals and signs, from text that comes in pieces.
//!
//! It knows as much of PostgreSQL's lexical rules as is needed never to take a literal or a comment for a word: quotes
//! with their doubling, escape strings, dollar quotes, quoted names, both kinds of comment. Plain strings are read as
//! with `standard_conforming_strings = on`; a session that has it off is not judged by its text at all.

/// PostgreSQL cuts longer names off; of longer literals only the beginning is kept.
const KEPT: usize = 63;

/// What the text consists of. Its content is [`Lexer::content`] until the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word that is not quoted, in lower case.
    Word,
    /// A quoted name.
    Quoted,
    /// A string.
    Literal,
    /// A number or a parameter's number.
    Number,
    /// Anything else.
    Sign(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Gap,
    Word,
    Number,
    /// Behind a dollar sign.
    Dollar,
    /// In a dollar quote; so many bytes of its end have been seen.
    DollarQuote(u8),
    Quoted,
    /// Behind a quotation mark in a quoted name: its end, or half of a doubled one.
    QuotedEnd,
    Literal {
        escapes: bool,
    },
    /// Behind a backslash.
    Escape,
    LiteralEnd {
        escapes: bool,
    },
    Dash,
    Line,
    Slash,
    Block,
    /// In a block comment, behind this sign.
    BlockSign(u8),
}

/// The position in a text.
#[derive(Debug)]
pub(super) struct Lexer {
    mode: Mode,
    /// Of a block comment: they nest.
    depth: u32,
    content: [u8; KEPT],
    length: u8,
    /// The content is longer than what was kept.
    cut: bool,
    /// The newest token was an escape string.
    escaped: bool,
    /// The text cannot be read with certainty.
    unreadable: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self {
            mode: Mode::Gap,
            depth: 0,
            content: [0; KEPT],
            length: 0,
            cut: false,
            escaped: false,
            unreadable: false,
        }
    }
}

impl Lexer {
    /// Of the newest token; of a sign, that of the token before it.
    pub(super) fn content(&self) -> &[u8] {
        self.content.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The newest token's content was not kept whole.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// There is something in the text that this lexer does not understand for certain.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// The next token of `bytes` from `at` on, which is moved behind it; `None` at the end of the bytes.
    pub(super) fn next(&mut self, bytes: &[u8], at: &mut usize) -> Option<Token> {
        while let Some(byte) = bytes.get(*at) {
            let mode = self.mode;
            let (used, token) = self.step(*byte);
            if used {
                *at += 1;
            }
            if token.is_some() {
                self.escaped = matches!(mode, Mode::LiteralEnd { escapes: true });
                return token;
            }
        }
        None
    }

    /// The token that the end of the text ends.
    pub(super) fn finish(&mut self) -> Option<Token> {
        let token = match self.mode {
            Mode::Word => Some(Token::Word),
            Mode::Number => Some(Token::Number),
            Mode::QuotedEnd => Some(Token::Quoted),
            Mode::LiteralEnd { .. } => Some(Token::Literal),
            _ => None,
        };
        self.mode = Mode::Gap;
        token
    }

    fn push(&mut self, byte: u8) {
        match self.content.get_mut(usize::from(self.length)) {
            Some(place) => {
                *place = byte;
                self.length += 1;
            }
            None => self.cut = true,
        }
    }

    fn begin(&mut self, mode: Mode) {
        self.mode = mode;
        self.length = 0;
        self.cut = false;
    }

    /// A token has ended, before this byte.
    fn ended(&mut self, token: Token) -> (bool, Option<Token>) {
        self.mode = Mode::Gap;
        (false, Some(token))
    }

    fn sign(&mut self, byte: u8) -> (bool, Option<Token>) {
        self.mode = Mode::Gap;
        (true, Some(Token::Sign(byte)))
    }

    /// Takes one byte: whether it is used up, and the token that has ended.
    fn step(&mut self, byte: u8) -> (bool, Option<Token>) {
        match self.mode {
            Mode::Gap => return self.open(byte),
            Mode::Word => match byte {
                b'\'' if self.content() == b"e" => self.begin(Mode::Literal { escapes: true }),
                _ if is_name(byte) || byte.is_ascii_digit() || byte == b'$' => {
                    self.push(byte.to_ascii_lowercase());
                }
                _ => return self.ended(Token::Word),
            },
            Mode::Number => match byte {
                b'0'..=b'9' | b'.' => {}
                _ => return self.ended(Token::Number),
            },
            Mode::Dollar => return self.dollar(byte),
            Mode::DollarQuote(matched) => return (true, self.in_dollar_quote(byte, matched)),
            Mode::Quoted if byte == b'"' => self.mode = Mode::QuotedEnd,
            Mode::Quoted => self.push(byte),
            Mode::QuotedEnd if byte == b'"' => {
                self.push(byte);
                self.mode = Mode::Quoted;
            }
            Mode::QuotedEnd => return self.ended(Token::Quoted),
            Mode::Literal { escapes } => match byte {
                b'\'' => self.mode = Mode::LiteralEnd { escapes },
                b'\\' if escapes => {
                    // What the escape means is not looked at.
                    self.cut = true;
                    self.mode = Mode::Escape;
                }
                _ => self.push(byte),
            },
            Mode::Escape => self.mode = Mode::Literal { escapes: true },
            Mode::LiteralEnd { escapes } if byte == b'\'' => {
                self.push(byte);
                self.mode = Mode::Literal { escapes };
            }
            Mode::LiteralEnd { .. } => return self.ended(Token::Literal),
            Mode::Dash if byte == b'-' => self.mode = Mode::Line,
            Mode::Dash => return self.ended(Token::Sign(b'-')),
            Mode::Line if byte == b'\n' || byte == b'\r' => self.mode = Mode::Gap,
            Mode::Line => {}
            Mode::Slash if byte == b'*' => {
                self.depth = 1;
                self.mode = Mode::Block;
            }
            Mode::Slash => return self.ended(Token::Sign(b'/')),
            Mode::Block if matches!(byte, b'*' | b'/') => self.mode = Mode::BlockSign(byte),
            Mode::Block => {}
            Mode::BlockSign(before) => self.in_block(before, byte),
        }
        (true, None)
    }

    /// Between two tokens.
    fn open(&mut self, byte: u8) -> (bool, Option<Token>) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {}
            b'\'' => {
                // Behind an escape string and a line break, this goes on as one.
                self.unreadable |= self.escaped;
                self.begin(Mode::Literal { escapes: false });
            }
            b'"' => self.begin(Mode::Quoted),
            b'-' => self.mode = Mode::Dash,
            b'/' => self.mode = Mode::Slash,
            b'$' => self.begin(Mode::Dollar),
            b'0'..=b'9' => self.begin(Mode::Number),
            _ if is_name(byte) => {
                self.begin(Mode::Word);
                self.push(byte.to_ascii_lowercase());
            }
            _ => return self.sign(byte),
        }
        (true, None)
    }

    fn dollar(&mut self, byte: u8) -> (bool, Option<Token>) {
        match byte {
            b'$' if self.cut => self.unreadable = true,
            b'$' => self.mode = Mode::DollarQuote(0),
            b'0'..=b'9' if self.length == 0 => self.mode = Mode::Number,
            _ if is_name(byte) || byte.is_ascii_digit() => self.push(byte),
            _ => return self.ended(Token::Sign(b'$')),
        }
        (true, None)
    }

    /// In a dollar quote the content is its tag; `matched` counts the first dollar sign of its end too.
    fn in_dollar_quote(&mut self, byte: u8, matched: u8) -> Option<Token> {
        let tag = self.content();
        let place = usize::from(matched);
        let next = match (byte, place) {
            (b'$', 0) => 1,
            (b'$', _) if place == tag.len() + 1 => {
                self.begin(Mode::Gap);
                self.cut = true;
                return Some(Token::Literal);
            }
            (b'$', _) => 1,
            (_, 1..) if tag.get(place - 1) == Some(&byte) => matched + 1,
            _ => 0,
        };
        self.mode = Mode::DollarQuote(next);
        None
    }

    fn in_block(&mut self, before: u8, byte: u8) {
        self.mode = Mode::Block;
        match (before, byte) {
            (b'*', b'/') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.mode = Mode::Gap;
                }
            }
            (b'/', b'*') => self.depth = self.depth.saturating_add(1),
            (_, b'*' | b'/') => self.mode = Mode::BlockSign(byte),
            _ => {}
        }
    }
}

/// Whether a name may begin with this byte.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn tokens(text: &str, size: usize) -> String {
        let (mut lexer, mut told) = (Lexer::default(), String::new());
        let mut tell = |lexer: &Lexer, token| {
            let content = String::from_utf8_lossy(lexer.content());
            match token {
                Token::Word => write!(told, "{content} "),
                Token::Quoted => write!(told, "\"{content}\" "),
                Token::Literal if lexer.is_cut() => write!(told, "'..' "),
                Token::Literal => write!(told, "'{content}' "),
                Token::Number => write!(told, "0 "),
                Token::Sign(byte) => write!(told, "{} ", char::from(byte)),
            }
            .unwrap();
        };
        for piece in text.as_bytes().chunks(size) {
            let mut at = 0;
            while let Some(token) = lexer.next(piece, &mut at) {
                tell(&lexer, token);
            }
        }
        if let Some(token) = lexer.finish() {
            tell(&lexer, token);
        }
        if lexer.is_unreadable() {
            told.push('?');
        }
        told.trim_end().to_owned()
    }

    #[test]
    fn literals_and_comments_are_no_words() {
        for (text, expected) in [
            (
                "SELECT a.B, c1$ FROM \"T\"\"x\"",
                "select a . b , c1$ from \"T\"x\"",
            ),
            ("'it''s' 'x' 12.5 $1", "'it's' 'x' 0 0"),
            ("E'a\\'b' x e'' 'y'", "'..' x '' 'y' ?"),
            ("e'a' || 'b'", "'a' | | 'b'"),
            ("-- a'b\nc /* d /* e */ ' */ f--", "c f"),
            ("/**/a/***/b/*/* * / */*/c", "a b c"),
            ("a-b/c*d - -1", "a - b / c * d - - 0"),
            ("$$ a ' $ $x$ $$ b $q$ $$ $ $q $qq$ $q$ c", "'..' b '..' c"),
            ("$a$$$a$ $1$2", "'..' 0 0"),
            ("x'12' U&'d' n'a' Été", "x '12' u & 'd' n 'a' \u{c9}t\u{e9}"),
            ("1into temp", "0 into temp"),
        ] {
            for size in 1..=text.len() {
                assert_eq!(tokens(text, size), expected, "{text}, in pieces of {size}");
            }
        }
    }
}
