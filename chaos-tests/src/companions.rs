//! Programs that people run beside us, for tests and measurements: found, started, ended.

use crate::addresses::{POSTGRES_PORT, REST_PORT};
use crate::herd::Herd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a program may take to end when it is asked to.
const END: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// A program that ends with this value.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first: some have children of their own to end.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let mut waited = Duration::ZERO;
        while waited < END {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(POLL);
            waited += POLL;
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a program is, or a line that says what is skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = dirs
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {name} is not installed (.ci/prepare chaos installs it)");
    }
    found
}

/// The address in front of nodes on loopback: the last but a few of their block.
pub fn front(node: Ipv4Addr) -> Ipv4Addr {
    let block = node.octets();
    Ipv4Addr::new(block[0], block[1], block[2], 100)
}

/// Starts HAProxy at the address in front of these nodes, with a text in which they are 10.0.0.11 and so on, as in
/// `configs/haproxy.cfg`, and with its files in `dir`.
pub fn start_haproxy(program: &Path, dir: &Path, nodes: &[Ipv4Addr], text: &str) -> Running {
    let mut text = text.to_owned();
    for (i, node) in nodes.iter().enumerate() {
        let written = format!("10.0.0.1{}:5432", i + 1);
        text = text.replace(&written, &format!("{node}:{POSTGRES_PORT}"));
    }
    let socket = haproxy_socket(dir).display().to_string();
    let text = text
        .replace("check port 8008", &format!("check port {REST_PORT}"))
        .replace("bind *:", &format!("bind {}:", front(nodes[0])))
        .replace("/run/haproxy/admin.sock", &socket);
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, text).expect("the file of HAProxy is written");
    let process = Command::new(program)
        .arg("-db")
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(process.expect("HAProxy starts"))
}

/// Its runtime socket.
pub fn haproxy_socket(dir: &Path) -> PathBuf {
    dir.join("haproxy.sock")
}

/// Where the nodes of a herd are.
pub fn addresses(herd: &Herd) -> Vec<Ipv4Addr> {
    herd.nodes.iter().map(|node| node.ip).collect()
}
