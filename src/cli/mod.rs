//! The operator's door: one file per command.
//!
//! ```text
//! arguments -> target (which cluster, how) -> cluster (who answers, who is in it) -> a command's own judgement
//!   -> http (one question to one node) -> talk (what is printed, what is asked)
//! ```
//!
//! Every command of this folder asks a node's REST door and prints; none reads the Raft store. Only `query` opens a
//! database, because that is what it is for. Whoever does not lead passes an order on, so any node that answers will do.
//!
//! A new command is a file with a `clap::Args` struct that has `execute(self, &Target, &mut Talk)`, a variant in
//! [`Command`] and its two arms below it.
//!
//! Exit codes: 0 only when the command did what was asked, 1 with `Error: ...` on standard error or a line that says
//! what was refused, 2 when the arguments make no sense. Called by the name `patronictl` (a link is enough), a refusal
//! that is said on standard output is 0, as old scripts expect. A reader that goes away (`| head`) is no error.
//!
//! Caveats: prompts whose words scripts were seen to wait for are Patroni's, the others are ours. A password goes over
//! the wire only with a verb that changes something, and is never shown.

mod called;
mod check;
mod check_programs;
mod check_proxy;
mod choose;
mod client;
mod cluster;
mod demo;
mod document;
mod dsn;
mod edit_config;
mod editor;
mod explain;
mod explain_sync;
mod failover;
mod flush;
mod generate;
mod handover;
mod history;
mod http;
mod last_word;
mod list;
mod member;
mod members;
mod migrate;
mod out;
mod patch;
mod patroni;
mod pause;
mod pgpass;
mod planned;
mod query;
mod recover;
mod reinit;
mod reload;
mod remove;
mod restart;
mod role;
mod run;
mod sheet;
mod show_config;
mod sql;
mod switchover;
mod table;
mod talk;
mod target;
mod tls;
mod version;
mod watching;
mod yaml;

pub use out::CliError;
pub use sheet::Format;
pub use target::{ClusterAddress, Target};

use called::{Called, Done};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use talk::Talk;

/// The arguments make no sense.
const USAGE: u8 = 2;
/// What only `matriarch` can do, so that `patronictl --help` is as short as it was.
const OURS: [&str; 9] = [
    "run",
    "check",
    "migrate",
    "demo",
    "explain",
    "member",
    "recover",
    "completions",
    "man",
];

/// Keeps PostgreSQL available: one process per node, no other service.
#[derive(Debug, Parser)]
#[command(name = "matriarch", version, propagate_version = false)]
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
    List(At<list::List>),
    /// Show who follows whom
    Topology(At<list::Topology>),
    /// Switch over to a replica
    Switchover(At<switchover::Switchover>),
    /// Fail over to a replica, also without a healthy primary
    Failover(At<failover::Failover>),
    /// Restart PostgreSQL on members
    Restart(At<restart::Restart>),
    /// Have members read their node files again
    Reload(At<reload::Reload>),
    /// Have replicas make a new copy of the data
    Reinit(At<reinit::Reinit>),
    /// Switch automatic failover off
    Pause(At<pause::Pause>),
    /// Switch automatic failover on again
    Resume(At<pause::Resume>),
    /// Change the settings that all members share
    EditConfig(At<edit_config::EditConfig>),
    /// Show the settings that all members share
    ShowConfig(At<show_config::ShowConfig>),
    /// Show the timelines that ended, and why
    History(At<history::History>),
    /// Forget a planned restart or switchover
    Flush(At<flush::Flush>),
    /// Say where a member's PostgreSQL is
    Dsn(At<dsn::Dsn>),
    /// Run SQL on a member
    Query(query::Query),
    /// Say the version of this program, or what runs on the members
    Version(At<version::Version>),
    /// Say how a cluster is removed
    Remove(At<remove::Remove>),
    /// Say all that is wrong with a node file, and with this machine for it
    Check(check::Check),
    /// Say what becomes of a node file of Patroni, and make one for Matriarch of it
    Migrate(migrate::Migrate),
    /// Start three nodes on this machine and watch them heal
    Demo(demo::Demo),
    /// Show, add and remove members of the group
    Member(At<member::MemberCommand>),
    /// Go on with one survivor, when the majority is lost for good
    Recover(recover::Recover),
    /// Say which rule holds now, and who may be promoted
    Explain(At<explain::Explain>),
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Print the manual page
    Man(generate::Man),
    /// What a guard starts
    #[command(hide = true)]
    LastWord(last_word::Word),
}

/// A command that asks a cluster: which one may be said before the command or behind it.
#[derive(Args, Debug)]
pub struct At<C: Args> {
    #[command(flatten)]
    command: C,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    group: Group,
}

/// What Patroni asks of clusters that are made of several; there is nothing of that kind here.
#[derive(Args, Debug)]
pub(crate) struct Group {
    /// Accepted and ignored
    #[arg(long = "group", hide = true, value_name = "NUMBER")]
    _group: Option<String>,
}

impl Command {
    fn execute(self, outer: &Target, talk: &mut Talk<'_>) -> Result<u8, CliError> {
        let done = match self {
            Self::Run(command) => command.execute().map(|()| Done::Whole)?,
            Self::Check(command) => return command.execute(&std::env::vars().collect(), talk),
            Self::Migrate(command) => return command.execute(&std::env::vars().collect(), talk),
            Self::Demo(command) => command.execute().map(|()| Done::Whole)?,
            Self::Recover(command) => command.execute(talk)?,
            Self::LastWord(command) => command.execute().map(|()| Done::Whole)?,
            Self::Completions(command) => command.execute(definition(talk.called), talk)?,
            Self::Man(command) => command.execute(definition(talk.called), talk)?,
            asks => block_on(asks.ask(outer, talk))?,
        };
        Ok(talk.called.code(done))
    }

    /// The commands that ask a cluster.
    async fn ask(self, outer: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        macro_rules! asked {
            ($at:expr) => {
                $at.command.execute(&$at.target.or(outer), talk).await
            };
        }
        match self {
            Self::List(at) => asked!(at),
            Self::Topology(at) => asked!(at),
            Self::Switchover(at) => asked!(at),
            Self::Failover(at) => asked!(at),
            Self::Restart(at) => asked!(at),
            Self::Reload(at) => asked!(at),
            Self::Reinit(at) => asked!(at),
            Self::Pause(at) => asked!(at),
            Self::Resume(at) => asked!(at),
            Self::EditConfig(at) => asked!(at),
            Self::ShowConfig(at) => asked!(at),
            Self::History(at) => asked!(at),
            Self::Flush(at) => asked!(at),
            Self::Dsn(at) => asked!(at),
            Self::Query(command) => command.execute(outer, talk).await,
            Self::Version(at) => asked!(at),
            Self::Remove(at) => asked!(at),
            Self::Explain(at) => asked!(at),
            Self::Member(at) => asked!(at),
            Self::Run(_)
            | Self::Check(_)
            | Self::Migrate(_)
            | Self::Demo(_)
            | Self::LastWord(_)
            | Self::Recover(_)
            | Self::Completions(_)
            | Self::Man(_) => Ok(Done::Whole),
        }
    }
}

/// Does what the arguments of the process ask for; its exit code is the answer.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut talk = Talk {
        called: Called::of(arguments.first().map(OsString::as_os_str)),
        input: &mut io::stdin().lock(),
        // Not locked: the daemon's threads write there too.
        output: &mut io::stdout(),
        notes: &mut io::stderr(),
        watched: io::stdout().is_terminal(),
    };
    ExitCode::from(run(&arguments, &mut talk))
}

/// The same for any arguments and streams.
fn run(arguments: &[OsString], talk: &mut Talk<'_>) -> u8 {
    let matches = patroni::translated(arguments)
        .and_then(|arguments| definition(talk.called).try_get_matches_from(arguments));
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        // Usage errors are 2, `--help` and `--version` are 0. Nobody to read them is no error.
        Err(usage) => {
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).unwrap_or(USAGE);
        }
    };
    match cli.command.execute(&cli.target, talk) {
        Ok(code) => code,
        Err(CliError::ReaderGone) => 0,
        Err(error) => {
            out::complain(talk.notes, &error);
            if matches!(error, CliError::Usage(_)) {
                USAGE
            } else {
                1
            }
        }
    }
}

/// The command line as the name of the program has it.
fn definition(called: Called) -> clap::Command {
    let command = Cli::command();
    match called {
        Called::Matriarch => command,
        Called::Patronictl => {
            let command = command.name(called.program()).bin_name(called.program());
            let command = OURS.into_iter().fold(command, |command, name| {
                command.mut_subcommand(name, |ours| ours.hide(true))
            });
            command.mut_subcommand("flush", |flush| {
                flush.override_usage(flush::usage(called.program()))
            })
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
#[cfg(test)]
mod prompt_tests;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod replay_tests;
