//! A network namespace without a name: it lives as long as its descriptor or a process in it, and leaves nothing behind.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The namespace.
pub struct Netns(File);

impl Netns {
    /// A new one with nothing but a loopback device, which is up.
    pub fn new() -> Result<Self, String> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(|error| format!("unshare of a network: {error}"))?;
                File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())
            });
            thread.join().expect("the thread that makes a namespace")
        })?;
        let netns = Self(made);
        netns.run("ip", &["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// A path under which `ip link ... netns` finds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Moves the calling thread, and every thread it starts from now on, into this namespace.
    pub fn enter(&self) -> Result<(), String> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))
    }

    /// Starts a command in it.
    pub fn spawn(&self, mut command: Command) -> std::io::Result<Child> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                self.enter().map_err(std::io::Error::other)?;
                command.spawn()
            });
            thread.join().expect("the thread that starts a command")
        })
    }

    /// Runs a command in it to its end; its output, or what it complained about.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        self.feed(program, arguments, "")
    }

    /// The same with this text as its input.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .spawn(command)
            .map_err(|error| format!("{program}: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input has ended, and says so below.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {arguments:?}: {}", said.trim()))
        }
    }
}
