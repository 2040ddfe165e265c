//! The one system call the hands need that has no safe form: children that die with us.

use tokio::process::Command;

/// Has the kernel kill the child when the thread that spawned it ends.
///
/// Tokio's worker threads live as long as the runtime, so in effect the child dies with the daemon. Never spawn such
/// a child from `spawn_blocking`, whose threads end when idle.
#[allow(unsafe_code, reason = "Command::pre_exec")]
pub(super) fn die_with_parent(command: &mut Command) {
    let die =
        || nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the closure makes exactly one system call (prctl), which is async-signal-safe; it
    // allocates nothing, takes no lock and touches no memory of the parent. The conversion of its error wraps a number.
    unsafe {
        command.pre_exec(die);
    }
}
