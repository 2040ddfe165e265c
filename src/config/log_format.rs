//! `log.format` as Python's logging has it, `%(levelname)-8s`: which of its fields we know, and how each is laid out.

use std::fmt;

/// What a log line may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogField {
    /// When, as `log.dateformat` says.
    Time,
    /// Seconds since 1970 with a fraction.
    Created,
    /// Milliseconds within the second.
    Milliseconds,
    /// `INFO`.
    Level,
    /// 20 for `INFO`.
    LevelNumber,
    /// What happened.
    Message,
    /// The module that speaks.
    Name,
    /// Its last part.
    Module,
    /// Its source file.
    Path,
    /// The file's name alone.
    File,
    /// The line there.
    Line,
    /// The process id.
    Process,
    /// The program's name.
    ProcessName,
    /// The thread's name.
    Thread,
}

const FIELDS: &[(&str, LogField)] = &[
    ("asctime", LogField::Time),
    ("created", LogField::Created),
    ("msecs", LogField::Milliseconds),
    ("levelname", LogField::Level),
    ("levelno", LogField::LevelNumber),
    ("message", LogField::Message),
    ("name", LogField::Name),
    ("module", LogField::Module),
    ("pathname", LogField::Path),
    ("filename", LogField::File),
    ("lineno", LogField::Line),
    ("process", LogField::Process),
    ("processName", LogField::ProcessName),
    ("threadName", LogField::Thread),
];

impl LogField {
    /// The field of a Python name.
    pub fn named(name: &str) -> Option<Self> {
        FIELDS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, field)| *field)
    }

    /// Its Python name.
    pub fn name(self) -> &'static str {
        FIELDS
            .iter()
            .find(|(_, field)| *field == self)
            .map_or("", |(name, _)| *name)
    }
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// As it stands.
    Text(String),
    /// A field in its column.
    Field {
        /// Which.
        field: LogField,
        /// At least so many characters.
        width: usize,
        /// Filled up on the right.
        left: bool,
        /// A number is filled up with zeros.
        zeros: bool,
        /// At most so many characters.
        most: Option<usize>,
    },
}

/// A whole line.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LogFormat {
    text: String,
    /// Its parts, in their order.
    pub pieces: Vec<LogPiece>,
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl LogFormat {
    /// Patroni's own.
    pub fn usual() -> Self {
        Self::parse("%(asctime)s %(levelname)s: %(message)s")
            .map(|(format, _)| format)
            .unwrap_or_default()
    }

    /// Reads a format; beside it the names of fields that we do not have, which are left out of the line.
    ///
    /// # Errors
    /// What of the text is no format.
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let (mut pieces, mut unknown, mut plain) = (Vec::new(), Vec::new(), String::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (name, after) = after
                .strip_prefix('(')
                .and_then(|after| after.split_once(')'))
                .ok_or_else(|| format!("\"{text}\" has a % that begins no field; write fields like %(message)s, and %% for a percent sign"))?;
            let layout: String = after.chars().take_while(|c| !c.is_ascii_alphabetic()).collect();
            let after = after.get(layout.len()..).unwrap_or_default();
            let mut kind = after.chars();
            if !matches!(kind.next(), Some('s' | 'd' | 'i' | 'f' | 'r')) {
                return Err(format!(
                    "%({name}) does not say how it is written; write %({name})s"
                ));
            }
            rest = kind.as_str();
            match LogField::named(name) {
                None => unknown.push(name.to_owned()),
                Some(field) => {
                    if !plain.is_empty() {
                        pieces.push(LogPiece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(laid_out(field, &layout).ok_or_else(|| {
                        format!("%({name}){layout} is no layout; write it like %({name})-8s")
                    })?);
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(LogPiece::Text(plain));
        }
        let format = Self {
            text: text.to_owned(),
            pieces,
        };
        Ok((format, unknown))
    }

    /// The fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = LogField> {
        self.pieces.iter().filter_map(|piece| match piece {
            LogPiece::Field { field, .. } => Some(*field),
            LogPiece::Text(_) => None,
        })
    }
}

/// `-08.3`: flags, width, precision.
fn laid_out(field: LogField, layout: &str) -> Option<LogPiece> {
    let (columns, most) = match layout.split_once('.') {
        Some((columns, most)) => (columns, Some(most.parse().ok()?)),
        None => (layout, None),
    };
    let width = columns.trim_start_matches(['-', '0', '+', ' ', '#']);
    let flags = columns.get(..columns.len() - width.len())?;
    let width = if width.is_empty() { 0 } else { width.parse().ok()? };
    Some(LogPiece::Field {
        field,
        width,
        left: flags.contains('-'),
        zeros: flags.contains('0'),
        // The precision of a number counts its digits, which is not cut.
        most: most.filter(|_| !matches!(field, LogField::Created | LogField::Milliseconds)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_format_is_told() {
        for (text, told) in [
            ("100%", "has a % that begins no field"),
            ("%(message", "has a % that begins no field"),
            ("%(message)", "%(message) does not say how it is written"),
            ("%(message)*s", "%(message)* is no layout"),
        ] {
            let error = LogFormat::parse(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let (format, unknown) = LogFormat::parse("%(taskName)s|%(message).3s %%").unwrap();
        assert_eq!(unknown, ["taskName"]);
        assert_eq!(format.fields().collect::<Vec<_>>(), [LogField::Message]);
    }
}
