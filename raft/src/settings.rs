//! What a node must be told before it can take part in a group.

use std::path::PathBuf;

/// Everything `Group::start` needs; checked there, once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the cluster; a peer of another cluster is refused.
    pub cluster: String,
    /// This member's name; travels in the hello and must equal the certificate's name.
    pub name: String,
    /// `host:port` under which the partners know this node.
    pub self_addr: String,
    /// `host:port` to listen on, when it differs from `self_addr`.
    pub bind_addr: Option<String>,
    /// `host:port` of every other voter.
    pub partners: Vec<String>,
    /// The Raft directory.
    pub data_dir: PathBuf,
    /// Shared secret of the challenge.
    pub password: Option<String>,
    /// Certificates of mutual TLS.
    pub tls: Option<TlsFiles>,
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Lower bound of an election's random wait.
    pub election_min_ms: u64,
    /// Upper bound of an election's random wait; also the age at which a quorum's acknowledgement is too old.
    pub election_max_ms: u64,
    /// False: an empty store only joins an existing group and never forms one.
    pub may_form: bool,
}

/// PEM files of mutual TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// This node's certificate chain.
    pub certfile: PathBuf,
    /// Its private key.
    pub keyfile: PathBuf,
    /// The authority that must have signed every peer's certificate.
    pub cafile: PathBuf,
}
