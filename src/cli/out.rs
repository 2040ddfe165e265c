//! Standard output and standard error: what is printed, when it is coloured, how an error reads.

use super::demo::DemoError;
use crate::daemon::DaemonError;
use crate::journal::JournalError;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

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
    /// A node was asked to do something and its answer never came.
    #[error(
        "{url} was asked and has not answered ({reason}): whether it happened is not known, look with `list`"
    )]
    Unheard {
        /// Who was asked.
        url: String,
        /// Why there is no answer.
        reason: String,
    },
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The cluster cannot do what was asked, or the person has decided otherwise.
    #[error("{0}")]
    Refused(String),
    /// A file of the person's cannot be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The person's answers cannot be read.
    #[error("cannot read the answer: {0}")]
    Input(io::Error),
    /// A question was not answered.
    #[error("Aborted!")]
    Aborted,
    /// The log cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// Says what went wrong.
pub(super) fn complain(notes: &mut dyn Write, error: &CliError) {
    let _ = match error {
        CliError::Aborted => writeln!(notes, "{error}"),
        error => writeln!(notes, "Error: {error}"),
    };
}

/// The few colours; none when nobody looks at a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    coloured: bool,
}

impl Style {
    /// No colours.
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

    /// Something that comes.
    pub(super) fn added(self, text: &str) -> String {
        self.wrapped("32", text)
    }

    /// Something that goes.
    pub(super) fn removed(self, text: &str) -> String {
        self.wrapped("31", text)
    }

    /// Where something stands.
    pub(super) fn place(self, text: &str) -> String {
        self.wrapped("36", text)
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
