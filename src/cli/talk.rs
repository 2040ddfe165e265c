//! A command's conversation with whoever typed it: what it prints, what it asks.

use super::called::Called;
use super::out::{CliError, Style};
use crate::clock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// How often a turning sign turns.
const TURN: Duration = Duration::from_millis(120);

/// The three streams, and who is listening.
pub(super) struct Talk<'a> {
    /// As whom the program was called.
    pub(super) called: Called,
    /// Answers to questions.
    pub(super) input: &'a mut dyn BufRead,
    /// What was asked for.
    pub(super) output: &'a mut dyn Write,
    /// What went wrong, or should be known.
    pub(super) notes: &'a mut dyn Write,
    /// Whether a person looks at the output.
    pub(super) watched: bool,
}

impl Talk<'_> {
    /// Writes `text` as it is.
    pub(super) fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.output
            .write_all(text.as_bytes())
            .and_then(|()| self.output.flush())
            .map_err(unwritable)
    }

    /// Writes a line.
    pub(super) fn say(&mut self, line: &str) -> Result<(), CliError> {
        self.print(&format!("{line}\n"))
    }

    /// Something worth knowing that is not part of the output.
    pub(super) fn note(&mut self, line: &str) {
        let _ = writeln!(self.notes, "{line}");
    }

    /// Colours, where a person looks.
    pub(super) fn style(&self) -> Style {
        if self.watched {
            Style::of_stdout()
        } else {
            Style::PLAIN
        }
    }

    /// Empties the screen, where there is one.
    pub(super) fn clear(&mut self) -> Result<(), CliError> {
        if self.watched {
            self.print("\x1b[2J\x1b[H")
        } else {
            Ok(())
        }
    }

    /// Asks for a text. An empty answer takes `default`; without one it is asked again.
    pub(super) fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, CliError> {
        let shown = default.map_or_else(String::new, |default| format!(" [{default}]"));
        loop {
            self.print(&format!("{question}{shown}: "))?;
            let answer = self.answer()?;
            match (answer.is_empty(), default) {
                (false, _) => return Ok(answer),
                (true, Some(default)) => return Ok(default.to_owned()),
                (true, None) => {}
            }
        }
    }

    /// Asks for a yes; no answer is a no.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool, CliError> {
        loop {
            self.print(&format!("{question} [y/N]: "))?;
            match self.answer()?.to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "" | "n" | "no" => return Ok(false),
                _ => self.say("Error: invalid input")?,
            }
        }
    }

    /// Asks for a text that must not be seen.
    pub(super) fn ask_secretly(&mut self, question: &str) -> Result<String, CliError> {
        let _blind = Blind::new();
        let answer = self.ask(question, None)?;
        self.say("")?;
        Ok(answer)
    }

    fn answer(&mut self) -> Result<String, CliError> {
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(0) => {
                self.say("")?;
                Err(CliError::Aborted)
            }
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(CliError::Input(error)),
        }
    }

    /// A sign that something long goes on, seen only on a terminal. It goes when it is dropped.
    pub(super) fn turning(&self, text: &str) -> Turning {
        let target = if self.watched {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(text.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TURN);
        Turning(bar)
    }
}

/// See [`Talk::turning`].
pub(super) struct Turning(ProgressBar);

impl Turning {
    /// Shows how far it is, where that is known in hundredths, and what is being done.
    pub(super) fn show(&self, text: &str) {
        if let Some(percent) = percent(text) {
            self.0.set_length(100);
            self.0.set_position(percent);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] ({elapsed})") {
                self.0.set_style(style.progress_chars("=> "));
            }
        }
        self.0.set_message(text.to_owned());
    }

    /// Does something that prints, with the sign out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Turning {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The number before the first `%`.
fn percent(text: &str) -> Option<u64> {
    let (before, _) = text.split_once('%')?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|percent| *percent <= 100)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Blind(Option<nix::sys::termios::Termios>);

impl Blind {
    fn new() -> Self {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Self(None);
        }
        let Ok(usual) = tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut blind = usual.clone();
        blind.local_flags.remove(LocalFlags::ECHO);
        let _ = tcsetattr(&stdin, SetArg::TCSAFLUSH, &blind);
        Self(Some(usual))
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        if let Some(usual) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, usual);
        }
    }
}

fn unwritable(error: io::Error) -> CliError {
    match error.kind() {
        ErrorKind::BrokenPipe => CliError::ReaderGone,
        _ => CliError::Output(error),
    }
}

/// The time on this machine's clock, with so many digits of a second.
pub(super) fn local_time(digits: usize) -> String {
    let time = i64::try_from(clock::wall_ms())
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zoned = time.map(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    let pattern = match digits {
        0 => "%Y-%m-%d %H:%M:%S".to_owned(),
        digits => format!("%Y-%m-%d %H:%M:%S.%{digits}f"),
    };
    zoned
        .map(|zoned| zoned.strftime(&pattern).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn how_far_a_copy_is() {
        assert_eq!(percent("copying the data 42%: there is no data yet"), Some(42));
        assert_eq!(percent("copying the data"), None);
        assert_eq!(percent("100%"), Some(100));
        assert_eq!(percent("a value of 900%"), None);
    }
}
