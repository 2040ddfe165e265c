//! The one way to run one of PostgreSQL's programs: as the right user, with a deadline, its last words kept.

use super::{Postgres, PostgresError, sys};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

/// Lines of standard error that an error shows.
const LAST_LINES: usize = 6;

/// A program about to run.
pub(super) struct Program {
    name: &'static str,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    locale: bool,
    stdin: Option<File>,
    deadline: Duration,
}

impl Program {
    /// A program of the set, with a bound for its whole run.
    pub(super) fn new(name: &'static str, deadline: Duration) -> Self {
        Self {
            name,
            args: Vec::new(),
            env: Vec::new(),
            locale: false,
            stdin: None,
            deadline,
        }
    }

    /// One more argument.
    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub(super) fn args(mut self, args: impl IntoIterator<Item = String>) -> Self {
        self.args.extend(args.into_iter().map(OsString::from));
        self
    }

    /// One more variable of its environment.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// What it reads on standard input, instead of nothing.
    pub(super) fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Keeps the locale of our environment: it becomes that of a new database cluster.
    pub(super) fn in_our_locale(mut self) -> Self {
        self.locale = true;
        self
    }

    /// The environment starts empty: `PG*` variables of the daemon must not lead a program elsewhere.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let kept = |name: &str| {
            matches!(name, "PATH" | "TMPDIR" | "TZ")
                || (self.locale && (name.starts_with("LC_") || name == "LANG"))
        };
        let mut all: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(kept))
            .collect();
        if !self.locale {
            all.push(("LC_ALL".into(), "C".into()));
        }
        all.extend(
            self.env
                .iter()
                .map(|(name, value)| ((*name).into(), value.clone())),
        );
        all
    }

    /// What went wrong with it.
    pub(super) fn failed(name: &'static str, why: impl Into<String>) -> PostgresError {
        PostgresError::Program {
            program: name,
            why: why.into(),
        }
    }
}

/// Everything a program said at its end.
pub(super) struct Finished {
    pub(super) good: bool,
    /// Its last lines on standard error.
    pub(super) words: String,
}

impl Postgres {
    /// Runs a program and shows each line of its output and of its standard error; failing is not an error yet.
    pub(super) async fn watch_program(
        &self,
        program: Program,
        output: impl FnMut(&str) + Send,
        errors: impl FnMut(&str) + Send,
    ) -> Result<Finished, PostgresError> {
        let path = self.program(program.name);
        let mut command = Command::new(&path);
        command
            .args(&program.args)
            .env_clear()
            .envs(program.environment());
        command
            .current_dir("/")
            .stdin(program.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.kill_on_drop(true);
        if let Some(owner) = self.owner() {
            command.uid(owner.uid).gid(owner.gid);
        }
        // A group of its own: what the program starts (pg_rewind runs a server) ends with it.
        command.process_group(0);
        sys::die_with_parent(&mut command);
        let mut child = command
            .spawn()
            .map_err(PostgresError::file("run the program", &path))?;
        let mut group = Group::of(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut errors = errors;
        let mut last = VecDeque::with_capacity(LAST_LINES);
        let keep = |line: &str| {
            errors(line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line.trim().to_owned());
        };
        let work = async {
            tokio::join!(lines(out, output), lines(err, keep));
            child.wait().await
        };
        let status = tokio::time::timeout(program.deadline, work).await;
        match status {
            Ok(Ok(status)) => {
                if status.code().is_some() {
                    group.disband();
                }
                let words = reason(last.into()).unwrap_or_else(|| status.to_string());
                Ok(Finished {
                    good: status.success(),
                    words,
                })
            }
            Ok(Err(why)) => Err(PostgresError::file("wait for the program", &path)(why)),
            Err(_) => {
                let _ = child.kill().await;
                let seconds = program.deadline.as_secs();
                Err(PostgresError::Late {
                    what: program.name.to_owned(),
                    seconds,
                })
            }
        }
    }

    /// Runs a program that must succeed.
    pub(super) async fn run_program(&self, program: Program) -> Result<(), PostgresError> {
        let name = program.name;
        let finished = self.watch_program(program, |_| (), |_| ()).await?;
        if finished.good {
            Ok(())
        } else {
            Err(Program::failed(name, finished.words))
        }
    }
}

/// Why a program failed, from what it said. A program that runs a server passes on the server's log, in which the reason
/// would drown.
fn reason(mut said: Vec<String>) -> Option<String> {
    let is_log = |line: &String| line.contains(" LOG:  ");
    if !said.iter().all(is_log) {
        said.retain(|line| !is_log(line));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// The processes of a program that has not ended by itself; killed when dropped.
pub(super) struct Group(Option<u32>);

impl Group {
    /// The group that this process leads.
    pub(super) fn of(leader: Option<u32>) -> Self {
        Self(leader)
    }

    /// It has ended by itself; what it left running on purpose stays.
    pub(super) fn disband(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Nobody of it may be left, which is as good.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

async fn lines(stream: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(&str)) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    // A pipe that fails has ended; what it said before is still worth something.
    while let Ok(length) = reader.read_until(b'\n', &mut line).await {
        if length == 0 {
            return;
        }
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_server_is_no_reason_unless_there_is_no_other() {
        let log = "2026-11-21 14:00:00.000 UTC [1] LOG:  redo starts at 0/3000028";
        let fatal = "2026-11-21 14:00:00.001 UTC [1] FATAL:  could not open file";
        let error = "pg_rewind: error: postgres single-user mode in target cluster failed";
        let of = |lines: &[&str]| reason(lines.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(of(&[log, fatal, log, error]), Some(format!("{fatal}; {error}")));
        assert_eq!(of(&[log]), Some(log.to_owned()));
        assert_eq!(of(&[]), None);
    }
}
