//! The hidden subcommand `matriarch guard`: from the command line to a detached, hardened guard process.

use super::door::Door;
use super::keeper::Keeper;
use super::launch::Inherited;
use super::wire::NAMES;
use crate::sys::{self, Fork};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code: another guard lives in that directory; connect to it.
pub(crate) const ANOTHER_LIVES: u8 = 3;

/// Runs a guard: `--dir DIR [--data-dir DIR]`. The caller must not have opened anything before.
///
/// Comes back when the guard is ready to be connected to (success) or could not start; the guard itself goes on
/// as a process of its own in a session of its own.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    sys::close_from(3);
    let Some(options) = Options::parse(args) else {
        say(format_args!("usage: matriarch guard --dir DIR [--data-dir DIR]"));
        return ExitCode::from(2);
    };
    match detach() {
        Ok(Side::Starter(code)) => ExitCode::from(code),
        Ok(Side::Stayer(ready)) => guard(options, ready),
        Err(error) => {
            say(format_args!("cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Options {
    dir: PathBuf,
    data_dir: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut dir, mut data_dir) = (None, None);
        while let Some(name) = args.next() {
            let place = std::path::absolute(args.next()?).ok()?;
            match name.to_str()? {
                "--dir" => dir = Some(place),
                "--data-dir" => data_dir = Some(place),
                _ => return None,
            }
        }
        Some(Self { dir: dir?, data_dir })
    }
}

/// Which of the two processes goes on after [`detach`].
pub(crate) enum Side {
    /// The process that was started; its exit code is known now.
    Starter(u8),
    /// The one that stays; it writes its exit code once, or zero when it is ready.
    Stayer(OwnedFd),
}

/// Leaves the parent and its session: who stays is nobody's child and belongs to no terminal.
pub(crate) fn detach() -> io::Result<Side> {
    let (answer, ready) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    match sys::fork_single_threaded()? {
        Fork::Child => {
            nix::unistd::setsid()?;
            Ok(Side::Stayer(ready))
        }
        Fork::Parent(_) => {
            drop(ready);
            let mut code = [1];
            nix::unistd::read(&answer, &mut code)?;
            let [code] = code;
            Ok(Side::Starter(code))
        }
    }
}

fn guard(options: Options, ready: OwnedFd) -> ExitCode {
    match prepare(options) {
        Ok(keeper) => {
            let _ = nix::unistd::write(&ready, &[0]);
            drop(ready);
            keeper.run();
            ExitCode::SUCCESS
        }
        Err(code) => {
            let _ = nix::unistd::write(&ready, &[code]);
            ExitCode::from(code)
        }
    }
}

fn prepare(options: Options) -> Result<Keeper, u8> {
    let dir = options.dir.clone();
    set_up(options).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ANOTHER_LIVES,
        _ => {
            say(format_args!("cannot guard from {}: {error}", dir.display()));
            1
        }
    })
}

fn set_up(options: Options) -> io::Result<Keeper> {
    let inherited = Inherited::take();
    // A working directory of its own would keep a file system from being unmounted.
    nix::unistd::chdir(Path::new("/"))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let door = Door::open(&options.dir, NAMES)?;
    // Looks through the process table once: the fence path has been walked before memory is locked.
    let keeper = Keeper::new(door, options.data_dir, inherited)?;
    harden();
    Ok(keeper)
}

/// What only a privileged guard gets; the others do without and lose only some promptness under pressure.
fn harden() {
    let _ = nix::sys::prctl::set_name(c"matriarch-guard");
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = sys::lock_memory();
    let _ = sys::real_time();
}

/// Writes one line to standard error, if there is room for it: a full pipe must never stop the guard.
pub(super) fn say(words: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; 512],
        length: 0,
    };
    let _ = writeln!(line, "matriarch guard: {words}");
    let stderr = io::stderr();
    let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO) == Ok(1) {
        let _ = nix::unistd::write(&stderr, line.bytes.get(..line.length).unwrap_or_default());
    }
}

/// A line without allocation; what is too long is cut.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}
