//! The operator's door: one file per command.
//!
//! ```text
//! arguments -> target (which cluster, how) -> client (one GET, 2 s) -> a command's own judgement, pure
//!                                                                   -> sheet / table / yaml -> out
//! ```
//!
//! Every command of this folder asks a node's REST door and prints; none reads the Raft store or opens a
//! database. What a command prints is a pure function of the documents it was given, so it is tested as text.
//!
//! A new command is a file with a `clap::Args` struct that has `execute(self, &Target)`, a variant in
//! [`Command`] and its arm below it.
//!
//! Exit codes: 0 only when the command did what was asked, 1 with `Error: ...` on standard error, 2 when the
//! arguments make no sense. A reader that goes away (`| head`) is no error.

pub mod check;
mod client;
mod demo;
mod document;
mod explain;
mod explain_sync;
mod history;
mod last_word;
mod list;
mod out;
mod run;
mod sheet;
mod table;
mod target;
mod tls;
mod yaml;

pub use out::CliError;
pub use sheet::Format;
pub use target::{ClusterAddress, Target};

use clap::{Parser, Subcommand};
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps PostgreSQL available: one process per node, no other service.
#[derive(Debug, Parser)]
#[command(name = "matriarch", version)]
pub struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this node's daemon until SIGTERM
    Run(run::Run),
    /// Show the members of the cluster
    List(list::List),
    /// Show the timelines that ended, and why
    History(history::History),
    /// Say all that is wrong with a node file, and with this machine for it
    Check {
        /// The node file, or a directory of them
        file: PathBuf,
    },
    /// Start three nodes on this machine and watch them heal
    Demo(demo::Demo),
    /// Say which rule holds now, and who may be promoted
    Explain(explain::Explain),
    /// What a guard starts
    #[command(hide = true)]
    LastWord(last_word::Word),
}

impl Command {
    fn execute(self, target: &Target) -> Result<ExitCode, CliError> {
        let done = match self {
            Self::Run(command) => command.execute(),
            Self::Check { file } => {
                let (report, code) = check::check(&file, &std::env::vars().collect());
                out::print(&report)?;
                return Ok(ExitCode::from(code));
            }
            Self::List(command) => command.execute(target),
            Self::History(command) => command.execute(target),
            Self::Demo(command) => command.execute(),
            Self::Explain(command) => command.execute(target),
            Self::LastWord(command) => command.execute(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Does what the arguments of the process ask for; its exit code is the answer.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Usage errors are 2, `--help` and `--version` are 0. Nobody to read them is no error.
        Err(usage) => {
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match cli.command.execute(&cli.target) {
        Ok(code) => code,
        Err(CliError::ReaderGone) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs what a command waits for; each command that needs the network calls this once.
fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?
        .block_on(future)
}

#[cfg(test)]
mod door_tests;
#[cfg(test)]
mod golden_tests;
