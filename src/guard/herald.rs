//! Sends word that an epoch is fenced when the daemon does not: a short-lived program tells the peers.
//!
//! It is no child of the guard (a sweep would take it for PostgreSQL's) and is not waited for.

use super::launch::Inherited;
use super::process::say;
use super::state::Messenger;
use crate::cluster::{Epoch, Lsn, Moment};
use crate::sys::{self, Fork};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A daemon that lives takes the news within this time.
const DAEMON_MS: u64 = 100;
/// Between two looks whether it has.
pub(super) const LOOK_MS: u64 = 10;

/// What is to be told, and by whom.
#[derive(Debug, Default)]
pub(super) struct Herald {
    pub(super) messenger: Option<Messenger>,
    news: Option<(Epoch, Moment)>,
}

impl Herald {
    /// An epoch has just been fenced.
    pub(super) fn fenced(&mut self, epoch: Epoch, now: Moment) {
        self.news = Some((epoch, now));
    }

    /// Something waits to be told.
    pub(super) fn has_news(&self) -> bool {
        self.news.is_some()
    }

    /// Sends the messenger, unless the daemon is known to have taken the news, or may still do so.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        has_daemon: bool,
        knows: impl Fn(Epoch) -> bool,
        near: Lsn,
        inherited: &Inherited,
    ) {
        let Some((epoch, since)) = self.news else { return };
        if knows(epoch) {
            self.news = None;
            return;
        }
        if has_daemon && now.since(since) < DAEMON_MS {
            return;
        }
        self.news = None;
        let Some(messenger) = &self.messenger else { return };
        say(format_args!(
            "the daemon does not take the news: telling the peers that epoch {epoch} is over"
        ));
        if let Err(error) = send(messenger, epoch, near, inherited) {
            say(format_args!(
                "{} could not be started: {error}",
                messenger.program.display()
            ));
        }
    }
}

fn send(messenger: &Messenger, epoch: Epoch, near: Lsn, inherited: &Inherited) -> io::Result<()> {
    let program = CString::new(messenger.program.as_os_str().as_bytes())?;
    let dir = CString::new(messenger.dir.as_os_str().as_bytes())?;
    let words = [messenger.command.clone(), epoch.0.to_string(), near.to_string()];
    let args = words.iter().chain(&messenger.args);
    let args: Vec<CString> = std::iter::once(Ok(program.clone()))
        .chain(args.map(|arg| CString::new(arg.as_str())))
        .collect::<Result<_, _>>()?;
    let set = messenger
        .env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let env: Vec<CString> = inherited
        .env
        .iter()
        .cloned()
        .chain(set)
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec())
        })
        .collect::<Result<_, _>>()?;
    match sys::fork_sibling()? {
        Fork::Parent(_) => Ok(()),
        Fork::Child => {
            let _ = nix::unistd::setsid();
            let _ = std::fs::write("/proc/self/oom_score_adj", &inherited.oom_score);
            // Without it relative paths in the node file lead nowhere; the messenger says so itself.
            let _ = nix::unistd::chdir(dir.as_c_str());
            sys::default_signals();
            sys::close_on_exec_from(3);
            let Err(errno) = nix::unistd::execve(&program, &args, &env);
            say(format_args!("the messenger could not be executed: {errno}"));
            sys::exit_now(127)
        }
    }
}
