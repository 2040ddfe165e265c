//! The hidden subcommand `matriarch proxy`: from the command line to a detached process that serves clients.

use super::counter::Counter;
use super::doors::Hands;
use super::house::House;
use super::terms::NAMES;
use crate::guard::door::Door;
use crate::guard::process::{ANOTHER_LIVES, Side, detach};
use crate::sys;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Threads that move bytes, at most. More only share the same sockets' work.
const MOST_THREADS: usize = 8;
/// Below the daemon: it must get its turn while the proxy saturates every core.
const NICE: i32 = 2;

/// Runs a proxy: `--dir DIR`. The caller must not have opened anything before.
///
/// Comes back when the proxy is ready to be connected to (success) or could not start; the proxy itself goes on as a
/// process of its own in a session of its own.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    sys::close_from(3);
    let Some(dir) = parse(args) else {
        eprintln!("usage: matriarch proxy --dir DIR");
        return ExitCode::from(2);
    };
    match detach() {
        Ok(Side::Starter(code)) => ExitCode::from(code),
        Ok(Side::Stayer(ready)) => stay(&dir, ready),
        Err(error) => {
            eprintln!("matriarch proxy: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let name = args.next()?;
    let dir = std::path::absolute(args.next()?).ok()?;
    (name == "--dir" && args.next().is_none()).then_some(dir)
}

fn stay(dir: &Path, ready: OwnedFd) -> ExitCode {
    match Door::open(dir, NAMES).and_then(|door| {
        settle()?;
        Ok(door)
    }) {
        Ok(door) => {
            let _ = nix::unistd::write(&ready, &[0]);
            drop(ready);
            match serve(door) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            let code = if error.kind() == ErrorKind::WouldBlock {
                ANOTHER_LIVES
            } else {
                eprintln!("matriarch proxy: cannot serve from {}: {error}", dir.display());
                1
            };
            let _ = nix::unistd::write(&ready, &[code]);
            ExitCode::from(code)
        }
    }
}

fn settle() -> io::Result<()> {
    // A working directory of its own would keep a file system from being unmounted.
    nix::unistd::chdir(Path::new("/"))?;
    let _ = nix::sys::prctl::set_name(c"matriarch-proxy");
    sys::be_nice(NICE);
    // Where memory runs out it is the proxy that has to go, before the daemon and the guard.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    // Two descriptors for each client.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    Ok(())
}

fn serve(door: Door) -> io::Result<()> {
    // With fewer the processor time of a query is less, and so is what comes through: one thread waits for its turn.
    let threads = std::thread::available_parallelism()?.get().min(MOST_THREADS);
    let house = Arc::new(House::new(threads));
    let hands = Arc::new(Hands::start(&house)?);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(Counter::new(house, hands).run(door))
}
