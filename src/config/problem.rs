//! One thing that is wrong with what was typed: where it stands and what would be right.

use std::fmt;

/// A mistake (or, in a list of warnings, an oddity) in a file, a variable or the dynamic configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file, the environment variable or "dynamic configuration".
    pub source_name: String,
    /// The line in that file, where one is known.
    pub line: Option<usize>,
    /// The key's path, such as `postgresql.listen`; empty when it concerns the whole source.
    pub key: String,
    /// What is wrong and what would be right, in a sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source_name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}
