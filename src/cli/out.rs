//! Standard output and standard error: what is printed, when it is coloured, how an error reads.

use super::demo::DemoError;
use crate::daemon::DaemonError;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Whoever read our output has gone; there is nobody to tell.
    #[error("nobody reads the output")]
    ReaderGone,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// No node of the cluster answered.
    #[error("no node answers: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// The arguments or the file do not say enough.
    #[error("{0}")]
    Target(String),
    /// The configuration file cannot be used.
    #[error("{}", .0.join("\n  "))]
    Config(Vec<String>),
    /// A node's answer makes no sense.
    #[error("{url} answers something else than {what}")]
    Answer {
        /// Who answered.
        url: String,
        /// What was expected.
        what: &'static str,
    },
    /// The demo.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The daemon did not start, or ended by itself.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// Writes `text` as it is.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => CliError::ReaderGone,
            _ => CliError::Output(error),
        })
}

/// Says on standard error what went wrong.
pub(super) fn complain(error: &CliError) {
    let _ = writeln!(io::stderr(), "Error: {error}");
}

/// Empties the screen, where there is one.
pub(super) fn clear() -> Result<(), CliError> {
    if io::stdout().is_terminal() {
        print("\x1b[2J\x1b[H")
    } else {
        Ok(())
    }
}

/// The few colours; none when nobody looks at a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    coloured: bool,
}

impl Style {
    /// No colours.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { coloured: false };

    /// What fits standard output; `NO_COLOR` is obeyed.
    pub(super) fn of_stdout() -> Self {
        Self {
            coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// A heading.
    pub(super) fn bold(self, text: &str) -> String {
        self.wrapped("1", text)
    }

    /// Something that needs a look.
    pub(super) fn warning(self, text: &str) -> String {
        self.wrapped("33", text)
    }

    fn wrapped(self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
