//! The node files of a herd, in the YAML an operator writes.

use crate::addresses::{PEER_PORT, POSTGRES_PORT, REST_PORT};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// Password of every role in a herd: connections use it, so that password authentication is what is tested.
pub const PASSWORD: &str = "herd-secret";

/// What a test may choose about its herd.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a lease in seconds.
    pub ttl: f64,
    /// Index of the node that votes and holds no data.
    pub witness: Option<usize>,
    /// `synchronous_mode`, where the file names one.
    pub synchronous_mode: Option<&'static str>,
    /// Every node's data lies on a disk of its own with so many MiB; needs root.
    pub disk_mib: Option<u64>,
    /// More lines of `bootstrap.dcs`, such as `primary_hang_timeout: 2`.
    pub dcs: Vec<String>,
    /// More lines of `raft:`, indented; `{dir}` is the node's directory.
    pub raft: String,
    /// More sections; `{dir}` is the node's directory, `{ip}` its address.
    pub sections: String,
    /// More lines of `postgresql:`, indented; `{ip}` is the node's address.
    pub postgresql: String,
    /// Where clients and partners come from, as pg_hba.conf writes it.
    pub network: &'static str,
    /// A client that needs no password: in a run with many connections its arithmetic would be most of the load.
    pub trusted: Option<&'static str>,
    /// `max_connections` of every server.
    pub max_connections: u32,
    /// More server parameters, a line each.
    pub parameters: Vec<&'static str>,
    /// The same for what is one for the whole cluster.
    pub shared_parameters: Vec<&'static str>,
    /// `use_slots`.
    pub use_slots: bool,
    /// Words before the daemon's command line, such as `setpriv`; in an arena.
    pub prefix: Vec<&'static str>,
    /// PostgreSQL listens on every address of its node, not on the node's own alone.
    pub everywhere: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: 2.0,
            witness: None,
            synchronous_mode: None,
            disk_mib: None,
            dcs: Vec::new(),
            raft: String::new(),
            sections: String::new(),
            postgresql: String::new(),
            network: "127.0.0.0/8",
            trusted: None,
            max_connections: 50,
            parameters: Vec::new(),
            shared_parameters: Vec::new(),
            use_slots: true,
            prefix: Vec::new(),
            everywhere: false,
        }
    }
}

impl Options {
    /// For tests in which nothing but what they do may move primacy: a lease that a busy machine does not miss.
    pub fn calm() -> Self {
        Self {
            ttl: 6.0,
            ..Self::default()
        }
    }

    /// The same where commits wait for standbys: a primary may be silent for a second without any fault.
    pub fn synchronous(mode: &'static str) -> Self {
        Self {
            synchronous_mode: Some(mode),
            dcs: vec!["fence_after: 2500ms".to_owned()],
            ..Self::calm()
        }
    }

    /// Servers that keep no more than a file or two of the log that nobody asked them to keep.
    pub fn short_log() -> Self {
        Self {
            parameters: vec!["max_wal_size: 32MB", "min_wal_size: 32MB"],
            shared_parameters: vec!["wal_keep_size: 16MB"],
            ..Self::calm()
        }
    }

    /// The same with one more line of `bootstrap.dcs`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.dcs.push(line.to_owned());
        self
    }
}

/// What one node file is made of.
pub(crate) struct Sheet<'a> {
    pub(crate) scope: &'a str,
    pub(crate) name: &'a str,
    pub(crate) ip: Ipv4Addr,
    pub(crate) partners: &'a [Ipv4Addr],
    pub(crate) dir: &'a Path,
    pub(crate) data_dir: &'a Path,
    pub(crate) is_witness: bool,
    pub(crate) options: &'a Options,
}

impl Sheet<'_> {
    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = self.head();
        if !self.is_witness {
            text.push_str(&self.bootstrap());
            text.push_str(&self.postgresql());
        }
        text
    }

    fn head(&self) -> String {
        let Self { scope, name, ip, .. } = self;
        let partners: Vec<String> = self
            .partners
            .iter()
            .map(|ip| format!("'{ip}:{PEER_PORT}'"))
            .collect();
        format!(
            "scope: {scope}\n\
             name: {name}\n\
             restapi:\n  listen: {ip}:{REST_PORT}\n  connect_address: {ip}:{REST_PORT}\n\
             raft:\n  self_addr: {ip}:{PEER_PORT}\n  partner_addrs: [{}]\n  data_dir: {}\n  password: {PASSWORD}\n{}{}",
            partners.join(", "),
            self.dir.join("raft").display(),
            self.options
                .raft
                .replace("{dir}", &self.dir.display().to_string()),
            self.options
                .sections
                .replace("{dir}", &self.dir.display().to_string())
                .replace("{ip}", &ip.to_string()),
        )
    }

    fn bootstrap(&self) -> String {
        let network = self.options.network;
        let trusted = self.options.trusted.map_or_else(String::new, |address| {
            format!("  - host all all {address} trust\n")
        });
        let mut mode = self.options.synchronous_mode.map_or_else(String::new, |mode| {
            // Quoted: YAML reads a bare `on` as a boolean.
            format!("    synchronous_mode: '{mode}'\n")
        });
        for line in &self.options.dcs {
            let _ = writeln!(mode, "    {line}");
        }
        let mut shared = format!("        max_connections: {}\n", self.options.max_connections);
        for line in &self.options.shared_parameters {
            let _ = writeln!(shared, "        {line}");
        }
        format!(
            "bootstrap:\n  dcs:\n    ttl: {}\n{mode}    postgresql:\n      use_pg_rewind: true\n      use_slots: {}\n      \
             parameters:\n{shared}  \
             initdb:\n  - encoding: UTF8\n  - locale: C\n  - data-checksums\n  \
             pg_hba:\n  - local all all trust\n{trusted}  - host all all {network} scram-sha-256\n  \
             - host replication all {network} scram-sha-256\n",
            self.options.ttl, self.options.use_slots
        )
    }

    fn postgresql(&self) -> String {
        let Self {
            ip, dir, data_dir, ..
        } = self;
        let (dir, data_dir) = (dir.display(), data_dir.display());
        let listen = if self.options.everywhere {
            "0.0.0.0".to_owned()
        } else {
            ip.to_string()
        };
        let mut text = format!(
            "postgresql:\n  listen: {listen}:{POSTGRES_PORT}\n  connect_address: {ip}:{POSTGRES_PORT}\n{}  \
             data_dir: {data_dir}\n  pgpass: {dir}/pgpass\n  authentication:\n",
            self.options.postgresql.replace("{ip}", &ip.to_string())
        );
        for (role, user) in [
            ("superuser", "postgres"),
            ("replication", "replicator"),
            ("rewind", "rewinder"),
        ] {
            let _ = write!(
                text,
                "    {role}:\n      username: {user}\n      password: {PASSWORD}\n"
            );
        }
        let _ = write!(
            text,
            "  parameters:\n    unix_socket_directories: '{dir}/socket'\n    shared_buffers: 16MB\n    \
             password_encryption: scram-sha-256\n"
        );
        for line in &self.options.parameters {
            let _ = writeln!(text, "    {line}");
        }
        text
    }
}
