//! The built-in proxy's process alone: a test says to it what a daemon would, so that what it costs can be seen without a cluster.

use crate::node::matriarch_binary;
use crate::processes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it says comes at once, or something is wrong.
const ANSWER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// The lease of a primary that nobody takes it from.
const FOR_EVER_MS: u64 = 24 * 3_600_000;

/// What a proxy is told of itself and of its only server.
pub struct Orders<'a> {
    /// Where it listens.
    pub at: Ipv4Addr,
    /// The port of writers; readers have the next one.
    pub port: u16,
    /// Where the primary is.
    pub server: (Ipv4Addr, u16),
    /// `proxy.auth_file`: with it sessions are followed closely enough to be taken to another server.
    pub auth_file: Option<&'a Path>,
    /// How long a client may take for its first words.
    pub handshake_ms: u64,
}

impl Orders<'_> {
    /// Clients have a minute for their first words, and sessions stay where they are.
    pub fn new(at: Ipv4Addr, port: u16, server: (Ipv4Addr, u16)) -> Self {
        Self {
            at,
            port,
            server,
            auth_file: None,
            handshake_ms: 60_000,
        }
    }
}

/// A proxy that runs. Dropping it ends it.
pub struct LoneProxy {
    /// Its process.
    pub pid: i32,
    line: UnixStream,
    tally: Arc<Mutex<Value>>,
}

impl LoneProxy {
    /// Starts one that is found in `dir` and waits until it listens.
    pub fn start(dir: &Path, orders: &Orders<'_>) -> Self {
        let started = Command::new(matriarch_binary())
            .args(["proxy", "--dir"])
            .arg(dir)
            .status()
            .expect("the proxy is started");
        assert!(started.success(), "the proxy cannot start in {}", dir.display());
        let line = UnixStream::connect(dir.join("proxy.sock")).expect("the proxy is there");
        line.set_read_timeout(Some(ANSWER)).expect("a deadline");
        let mut reader = BufReader::new(line.try_clone().expect("a second handle"));
        let greeting = hear(&mut reader).expect("the proxy greets");
        let pid = greeting["greeting"]["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let mut proxy = Self {
            pid: pid.expect("the proxy says who it is"),
            line,
            tally: Arc::default(),
        };
        proxy.instruct(orders);
        loop {
            let said = hear(&mut reader).expect("the proxy says whether it listens");
            assert!(said.get("note").is_none(), "the proxy complains: {said}");
            if said == "listening" {
                break;
            }
        }
        proxy.line.set_read_timeout(None).expect("no deadline");
        let tally = proxy.tally.clone();
        // Ends with the proxy.
        std::thread::spawn(move || {
            while let Some(mut said) = hear(&mut reader) {
                if let Some(counters) = said.get_mut("tally") {
                    *tally.lock().expect("nobody panics here") = counters.take();
                }
            }
        });
        proxy
    }

    fn instruct(&mut self, orders: &Orders<'_>) {
        let Orders { at, port, .. } = orders;
        let server = json!({"host": orders.server.0.to_string(), "port": orders.server.1});
        let now = matriarch::clock::boot_ns() / 1_000_000;
        for order in [
            json!({"terms": {
                "rw": format!("{at}:{port}"), "ro": format!("{at}:{}", port + 1), "hold_ms": 10_000,
                "handshake_ms": orders.handshake_ms, "most": 100_000, "most_of_one": 0,
                "proxy_protocol": false, "ro_on_primary": true, "auth_file": orders.auth_file,
            }}),
            json!({"lease": {"epoch": 1, "until": now + FOR_EVER_MS}}),
            json!({"routes": {"epoch": 1, "rw": server, "ro": [], "all": [server]}}),
        ] {
            writeln!(self.line, "{order}").expect("the proxy listens to its daemon");
        }
    }

    /// One of its counters, half a second old at most; zero before it was ever told.
    pub fn counter(&self, name: &str) -> u64 {
        self.tally.lock().expect("nobody panics here")[name]
            .as_u64()
            .unwrap_or_default()
    }

    /// Waits until it has no more descriptors open than these.
    pub async fn await_descriptors(&self, most: usize, deadline_s: u64) {
        let begun = matriarch::clock::boot_ns();
        while self.descriptors() > most {
            let waited = matriarch::clock::boot_ns() - begun;
            let there = self.descriptors();
            assert!(
                waited < deadline_s * 1_000_000_000,
                "{there} descriptors are open, not {most}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }
}

impl Drop for LoneProxy {
    fn drop(&mut self) {
        processes::send(self.pid, Signal::SIGKILL);
        processes::wait_dead(self.pid);
    }
}

fn hear(reader: &mut BufReader<UnixStream>) -> Option<Value> {
    let mut text = String::new();
    match reader.read_line(&mut text) {
        Ok(length) if length > 0 => serde_json::from_str(&text).ok(),
        _ => None,
    }
}
