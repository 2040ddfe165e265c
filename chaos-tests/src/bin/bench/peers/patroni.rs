//! Patroni with three members of etcd, unpacked from the registries' packages into a temporary directory.

use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT, REST_PORT};
use matriarch_chaos::companions::Running;
use matriarch_chaos::herd::{give_to_postgres, postgres_ids};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{plain, processes};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release whose contract we keep.
const PATRONI: &str = "patroni[etcd3]==4.1.4";
const DRIVER: &str = "psycopg[binary]";
const ETCD_CLIENT_PORT: u16 = 12379;
const ETCD_PEER_PORT: u16 = 12380;

/// How fast everything may be, in the words of their files; seconds.
pub(super) struct Timings {
    ttl: u32,
    loop_wait: u32,
    retry_timeout: u32,
    /// The balancer's checks.
    checks: &'static str,
}

impl Timings {
    /// What is in force where nothing is written, and what their documentation writes for HAProxy.
    pub(super) const DEFAULT: Self = Self {
        ttl: 30,
        loop_wait: 10,
        retry_timeout: 10,
        checks: "inter 3s fall 3 rise 2",
    };
    /// The least that Patroni accepts.
    pub(super) const LEAST: Self = Self {
        ttl: 20,
        loop_wait: 1,
        retry_timeout: 3,
        checks: "inter 1s fall 1 rise 1",
    };

    /// HAProxy's file, with the addresses of `configs/haproxy.cfg`.
    pub(super) fn haproxy(&self) -> String {
        let mut text = format!(
            "defaults\n    mode tcp\n    retries 2\n    timeout connect 4s\n    timeout client 30m\n    \
             timeout server 30m\n    timeout check 5s\nlisten primary\n    bind *:5000\n    option httpchk\n    \
             http-check expect status 200\n    default-server {} on-marked-down shutdown-sessions\n",
            self.checks
        );
        for i in 1..=3 {
            text.push_str(&format!(
                "    server node{i} 10.0.0.1{i}:5432 maxconn 100 check port 8008\n"
            ));
        }
        text
    }
}

/// The unpacked programs.
pub(super) struct Programs {
    dir: tempfile::TempDir,
}

/// Fetches them: `etcd` by apt-get without installing it, Patroni by pip into an environment of its own.
pub(super) fn fetch() -> Result<Programs, String> {
    let dir = tempfile::Builder::new()
        .prefix("peers-")
        .tempdir()
        .map_err(|error| error.to_string())?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).map_err(|error| error.to_string())?;
    eprintln!("fetching etcd and Patroni ...");
    let venv = dir.path().join("venv").display().to_string();
    run(dir.path(), "apt-get", &["download", "-q", "etcd-server"])?;
    let package = std::fs::read_dir(dir.path())
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .ok_or("apt-get downloaded nothing")?;
    run(
        dir.path(),
        "dpkg",
        &["-x", &package.display().to_string(), "etcd"],
    )?;
    // The system's own: the user postgres must be able to run it.
    run(dir.path(), "/usr/bin/python3", &["-m", "venv", &venv])?;
    let pip = format!("{venv}/bin/pip");
    run(
        dir.path(),
        &pip,
        &["install", "-q", "--no-cache-dir", PATRONI, DRIVER],
    )?;
    Ok(Programs { dir })
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", said.trim()))
}

impl Programs {
    fn etcd(&self) -> PathBuf {
        self.dir.path().join("etcd/usr/bin/etcd")
    }

    fn patroni(&self) -> PathBuf {
        self.dir.path().join("venv/bin/patroni")
    }
}

/// A cluster. Dropping it ends and removes everything.
pub(super) struct Patroni {
    /// Where its nodes are.
    pub(super) nodes: Vec<Ipv4Addr>,
    agents: Vec<Option<Running>>,
    program: PathBuf,
    _etcd: Vec<Running>,
    dir: tempfile::TempDir,
    _addresses: Addresses,
}

impl Patroni {
    pub(super) fn new(programs: &Programs, timings: &Timings, mode: &str) -> Result<Self, String> {
        let addresses = Addresses::take(3);
        let nodes: Vec<Ipv4Addr> = (0..3).map(|i| addresses.ip(i)).collect();
        let failed = |error: std::io::Error| error.to_string();
        let dir = tempfile::Builder::new()
            .prefix("patroni-")
            .tempdir()
            .map_err(failed)?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let mut etcd = Vec::new();
        for i in 0..nodes.len() {
            etcd.push(start_etcd(programs, dir.path(), &nodes, i).map_err(failed)?);
        }
        let patroni = Self {
            agents: nodes.iter().map(|_| None).collect(),
            nodes,
            program: programs.patroni(),
            _etcd: etcd,
            dir,
            _addresses: addresses,
        };
        for i in 0..patroni.nodes.len() {
            let home = patroni.node_dir(i);
            std::fs::create_dir_all(home.join("socket")).map_err(failed)?;
            std::fs::write(home.join("patroni.yml"), patroni.file(i, timings, mode)).map_err(failed)?;
            give_to_postgres(&home);
            give_to_postgres(&home.join("socket"));
        }
        Ok(patroni)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{}", node + 1))
    }

    fn file(&self, node: usize, timings: &Timings, mode: &str) -> String {
        let ip = self.nodes[node];
        let home = self.node_dir(node).display().to_string();
        let stores: Vec<String> = self
            .nodes
            .iter()
            .map(|ip| format!("'{ip}:{ETCD_CLIENT_PORT}'"))
            .collect();
        let Timings {
            ttl,
            loop_wait,
            retry_timeout,
            ..
        } = timings;
        let mut text = format!(
            "scope: peers\nname: node{}\nrestapi:\n  listen: {ip}:{REST_PORT}\n  connect_address: {ip}:{REST_PORT}\n\
             etcd3:\n  hosts: [{}]\nbootstrap:\n  dcs:\n    ttl: {ttl}\n    loop_wait: {loop_wait}\n    \
             retry_timeout: {retry_timeout}\n    maximum_lag_on_failover: 1048576\n    synchronous_mode: '{mode}'\n    \
             postgresql:\n      use_pg_rewind: true\n      use_slots: true\n      parameters:\n        \
             max_connections: 50\n  initdb:\n  - encoding: UTF8\n  - locale: C\n  - data-checksums\n  pg_hba:\n  \
             - local all all trust\n  - host all all 127.0.0.0/8 scram-sha-256\n  \
             - host replication all 127.0.0.0/8 scram-sha-256\n",
            node + 1,
            stores.join(", "),
        );
        text.push_str(&format!(
            "postgresql:\n  listen: {ip}:{POSTGRES_PORT}\n  connect_address: {ip}:{POSTGRES_PORT}\n  \
             data_dir: {home}/data\n  bin_dir: {}\n  pgpass: {home}/pgpass\n  authentication:\n",
            plain::bin_dir().display()
        ));
        for (role, user) in [
            ("superuser", "postgres"),
            ("replication", "replicator"),
            ("rewind", "rewinder"),
        ] {
            text.push_str(&format!(
                "    {role}:\n      username: {user}\n      password: {PASSWORD}\n"
            ));
        }
        text.push_str(&format!(
            "  parameters:\n    unix_socket_directories: '{home}/socket'\n    shared_buffers: 16MB\n    \
             password_encryption: scram-sha-256\n"
        ));
        text
    }

    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        let home = self.node_dir(node);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(home.with_extension("log"))
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command
            .arg(home.join("patroni.yml"))
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some((uid, gid)) = postgres_ids() {
            command.uid(uid.as_raw()).gid(gid.as_raw()).env("HOME", &home);
        }
        let child = command.spawn().map_err(|error| format!("patroni: {error}"))?;
        self.agents[node] = Some(Running(child));
        Ok(())
    }

    pub(super) fn kill(&mut self, node: usize) {
        assert!(
            processes::kill_all_of(&self.node_dir(node)) > 0,
            "nothing was killed"
        );
        // Dead already: this takes note of it.
        self.agents[node] = None;
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            processes::kill_all_of(&self.node_dir(node));
        }
    }
}

fn start_etcd(programs: &Programs, dir: &Path, nodes: &[Ipv4Addr], i: usize) -> std::io::Result<Running> {
    let peer = |i: usize| format!("http://{}:{ETCD_PEER_PORT}", nodes[i]);
    let all: Vec<String> = (0..nodes.len()).map(|i| format!("etcd{i}={}", peer(i))).collect();
    let client = format!("http://{}:{ETCD_CLIENT_PORT}", nodes[i]);
    let log = std::fs::File::create(dir.join(format!("etcd{i}.log")))?;
    let child = Command::new(programs.etcd())
        .args(["--name", &format!("etcd{i}")])
        .arg("--data-dir")
        .arg(dir.join(format!("etcd{i}")))
        .args([
            "--listen-peer-urls",
            &peer(i),
            "--initial-advertise-peer-urls",
            &peer(i),
        ])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--initial-cluster",
            &all.join(","),
            "--initial-cluster-state",
            "new",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Running(child))
}
