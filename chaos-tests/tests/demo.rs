//! `matriarch demo` as a person uses it: it forms, it is hurt, it heals, and Ctrl-C leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch_chaos::addresses::Addresses;
use matriarch_chaos::node::matriarch_binary;
use matriarch_chaos::{processes, rest};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// REST port of the demo's first node.
const FIRST_REST: u16 = 8008;
/// How often a condition is looked at that sends no event.
const POLL: Duration = Duration::from_millis(100);

/// A running demo whose plain lines are read. Dropping it ends what is left, also when the test fails.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: String,
    dir: Option<PathBuf>,
}

impl Demo {
    fn start(address: Ipv4Addr) -> Self {
        let mut child = Command::new(matriarch_binary())
            .args(["demo", "--address", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            seen: String::new(),
            dir: None,
        }
    }

    /// Reads lines until one holds `wanted`, and returns it.
    async fn line(&mut self, wanted: &str, deadline_s: u64) -> String {
        let search = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.seen.push_str(&line);
                self.seen.push('\n');
                if line.contains(wanted) {
                    return Some(line);
                }
            }
            None
        };
        let found = tokio::time::timeout(Duration::from_secs(deadline_s), search).await;
        found
            .ok()
            .flatten()
            .unwrap_or_else(|| panic!("no line {wanted:?} within {deadline_s} s:\n{}", self.seen))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("the demo runs")).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if let Some(dir) = &self.dir {
            processes::kill_all_of(dir);
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// The number behind `kill -9`.
fn victim(line: &str) -> i32 {
    line.split_whitespace()
        .nth(2)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no pid in {line:?}"))
}

/// Waits until one node is primary and both others stream; says which one it is.
async fn whole(ip: Ipv4Addr) -> u16 {
    let look = async || {
        let (mut primary, mut streaming) = (None, 0);
        for node in 0..3 {
            if matches!(rest::get(ip, FIRST_REST + node, "/primary").await, Some((200, _))) {
                primary = Some(node);
            }
            let status = rest::get(ip, FIRST_REST + node, "/patroni").await;
            streaming += usize::from(
                status.is_some_and(|(_, body)| body.contains("\"replication_state\": \"streaming\"")),
            );
        }
        primary.filter(|_| streaming == 2)
    };
    let wait = async {
        loop {
            if let Some(primary) = look().await {
                return primary;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("the demo's nodes are whole again")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_forms_heals_and_leaves_nothing_behind() {
    let addresses = Addresses::take(1);
    let mut demo = Demo::start(addresses.ip(0));
    let start = demo.line("Starting three nodes in ", 30).await;
    let dir = PathBuf::from(start.split_whitespace().nth(4).unwrap());
    demo.dir = Some(dir.clone());
    demo.line("Three nodes stream", 180).await;

    let kill = demo.line("# the primary's PostgreSQL", 60).await;
    processes::kill_now(victim(&kill));
    demo.line("writes had stopped for", 60).await;

    let primary = whole(addresses.ip(0)).await;
    let is_daemon = |process: &processes::Process| process.args.get(1).is_some_and(|word| word == "run");
    let node = dir.join(format!("node{}", primary + 1));
    let daemon = processes::of(&node)
        .into_iter()
        .find(is_daemon)
        .expect("the primary has a daemon");
    processes::kill_now(daemon.pid);
    // The lease is shorter than the pause before the daemon is started again.
    demo.line("writes had stopped for", 60).await;
    demo.line("is started again", 60).await;
    whole(addresses.ip(0)).await;

    processes::send(demo.pid(), Signal::SIGINT);
    demo.line("is removed", 60).await;
    let status = tokio::time::timeout(Duration::from_secs(30), demo.child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
    assert!(!dir.exists(), "{} is still there", dir.display());
    let gone = async {
        while !processes::of(&dir).is_empty() {
            tokio::time::sleep(POLL).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
    assert!(gone.is_ok(), "processes remain: {:?}", processes::of(&dir));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named_and_nothing_is_started() {
    let addresses = Addresses::take(1);
    let _taken = std::net::TcpListener::bind((addresses.ip(0), 5533)).unwrap();
    let output = Command::new(matriarch_binary())
        .args(["demo", "--address", &addresses.ip(0).to_string()])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .expect("it ends by itself")
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("5533"), "{error}");
}
