//! What a node file means, once checked: immutable, with every default filled in.

use super::allowed::Allowed;
use super::log_format::{LogField, LogFormat};
use super::notify::Notify;
use super::secret::Secret;
use crate::cluster::{Endpoint, MemberName, Settings, Tags};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A node's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file or directory it was read from.
    pub path: PathBuf,
    /// The node's unique name.
    pub name: MemberName,
    /// The cluster's name, also PostgreSQL's `cluster_name`.
    pub scope: String,
    /// Kept for Patroni's sake; nothing is stored under it.
    pub namespace: String,
    /// The REST door.
    pub restapi: RestApi,
    /// The Raft group.
    pub raft: RaftConfig,
    /// The PostgreSQL of this node; `None` makes it a witness.
    pub postgresql: Option<PostgresConfig>,
    /// How a new cluster comes into being.
    pub bootstrap: Bootstrap,
    /// This member's tags.
    pub tags: Tags,
    /// The kernel watchdog.
    pub watchdog: Watchdog,
    /// The virtual address, if there is one.
    pub vip: Option<Vip>,
    /// Who else hears of a change of primary at once.
    pub notify: Notify,
    /// The built-in proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// Logging.
    pub log: Log,
    /// How the command line and other nodes call the REST door.
    pub ctl: Ctl,
}

/// User name and password of HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// Whose certificates the REST door asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// Nobody's.
    #[default]
    None,
    /// Those of callers of unsafe verbs.
    Optional,
    /// Everybody's.
    Required,
}

/// `restapi:`.
#[derive(Clone, Debug, PartialEq)]
pub struct RestApi {
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where others reach it, `host:port`.
    pub connect_address: String,
    /// Credentials asked of unsafe verbs.
    pub authentication: Option<Credentials>,
    /// Certificate (PEM); with it the door speaks TLS.
    pub certfile: Option<PathBuf>,
    /// Private key (PEM); absent: it stands in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// Password of the private key.
    pub keyfile_password: Option<Secret>,
    /// Authorities that may have signed a client's certificate.
    pub cafile: Option<PathBuf>,
    /// Whose certificates are asked for.
    pub verify_client: VerifyClient,
    /// IANA numbers of the only cipher suites that are spoken, most wanted first; `None`: all that are supported.
    pub ciphers: Option<Vec<u16>>,
    /// Headers added to every answer.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Headers added to every answer over TLS.
    pub https_extra_headers: BTreeMap<String, String>,
    /// What the `Server` header tells: `original`, `minimal` or `productonly`.
    pub server_tokens: String,
    /// Hosts, addresses and networks that may use unsafe verbs; empty is everybody.
    pub allowlist: Vec<Allowed>,
    /// Whether the members' own addresses are on the list.
    pub allowlist_include_members: bool,
}

/// `raft:`.
#[derive(Clone, Debug, PartialEq)]
pub struct RaftConfig {
    /// This node's peer address as the partners reach it, `host:port`.
    pub self_addr: String,
    /// Where the peer port listens when that is not `self_addr`.
    pub bind_addr: Option<String>,
    /// The other voters, never this node itself.
    pub partner_addrs: Vec<String>,
    /// Where the Raft log lives.
    pub data_dir: PathBuf,
    /// The secret shared by all peers.
    pub password: Option<Secret>,
    /// This node's certificate (PEM) for mutual TLS.
    pub certfile: Option<PathBuf>,
    /// Its private key (PEM).
    pub keyfile: Option<PathBuf>,
    /// The authority that signed all peers' certificates (PEM).
    pub cafile: Option<PathBuf>,
    /// How often a leader beats.
    pub heartbeat_interval_ms: u64,
    /// Shortest election timeout.
    pub election_min_ms: u64,
    /// Longest election timeout.
    pub election_max_ms: u64,
}

/// Where PostgreSQL listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The value of `listen_addresses`.
    pub addresses: String,
    /// The port.
    pub port: u16,
}

/// How one of our roles logs in to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The role.
    pub username: String,
    /// Its password; absent: the server trusts us, or knows our certificate.
    pub password: Option<Secret>,
    /// `sslmode` of its connections.
    pub sslmode: Option<String>,
    /// Password of `sslkey`.
    pub sslpassword: Option<Secret>,
    /// Other connection keywords (`sslcert`, `gssencmode` and their like) as libpq spells them.
    pub options: BTreeMap<String, String>,
}

/// The roles we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Administers the local server.
    pub superuser: Login,
    /// Streams, and makes base backups.
    pub replication: Login,
    /// Runs pg_rewind; the superuser when none is named.
    pub rewind: Login,
}

/// One long option of a PostgreSQL program, without its dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOption {
    /// `data-checksums`.
    pub name: String,
    /// Text behind `=`, if any.
    pub value: Option<String>,
}

impl CommandOption {
    /// As it stands on a command line.
    pub fn long(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// An option of initdb.
pub type InitdbOption = CommandOption;

/// `postgresql:`.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresConfig {
    /// Where the server listens.
    pub listen: Listen,
    /// Where others reach it.
    pub connect: Endpoint,
    /// Where clients reach a connection pooler beside it.
    pub pooler: Option<Endpoint>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the configuration files are.
    pub config_dir: PathBuf,
    /// Where the programs are; `None`: to be found.
    pub bin_dir: Option<PathBuf>,
    /// Programs of other names: usual name -> name here.
    pub bin_name: BTreeMap<String, String>,
    /// Our password file.
    pub pgpass: PathBuf,
    /// The database we connect to.
    pub database: String,
    /// The roles we use.
    pub auth: Authentication,
    /// Use the unix socket for the superuser.
    pub use_unix_socket: bool,
    /// Use the unix socket for replication.
    pub use_unix_socket_repl: bool,
    /// This node's own server parameters, as text PostgreSQL understands; controlled ones are left out.
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf; `None` leaves the file alone.
    pub pg_hba: Option<Vec<String>>,
    /// Lines of pg_ident.conf; `None` leaves the file alone.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery parameters of this node.
    pub recovery_conf: BTreeMap<String, String>,
    /// Options of pg_basebackup.
    pub basebackup: Vec<CommandOption>,
    /// Options of pg_rewind.
    pub rewind: Vec<CommandOption>,
    /// This node's bound of a start or stop, seconds.
    pub pg_ctl_timeout_s: Option<u64>,
    /// Included instead of `postgresql.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// Commands by event name.
    pub callbacks: BTreeMap<String, String>,
    /// Command before a promotion.
    pub pre_promote: Option<String>,
    /// Command before a clean stop.
    pub before_stop: Option<String>,
    /// This node's word on pg_rewind.
    pub use_pg_rewind: Option<bool>,
    /// This node's word on a failed rewind.
    pub remove_on_rewind_failure: Option<bool>,
    /// This node's word on diverged timelines.
    pub remove_on_diverged_timelines: Option<bool>,
}

/// `bootstrap:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The first dynamic configuration, JSON text.
    pub dcs: String,
    /// The same, checked.
    pub settings: Settings,
    /// Options of initdb.
    pub initdb: Vec<InitdbOption>,
    /// Lines of the first pg_hba.conf.
    pub pg_hba: Vec<String>,
    /// Command run once in a new database cluster.
    pub post_bootstrap: Option<String>,
    /// Whether this node may create the cluster: the section is present.
    pub allow: bool,
}

/// `watchdog.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogMode {
    /// Not used.
    Off,
    /// Used where there is one.
    Automatic,
    /// A node without one is never promoted.
    Required,
}

/// `watchdog:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// When it is used.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
    /// Seconds between its timeout and the ttl; `-1` is half of the ttl.
    pub safety_margin_s: i64,
    /// Patroni's `driver: testing`: words on a pipe in place of the kernel's interface.
    pub testing: bool,
}

/// `vip:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// The interface that carries it.
    pub interface: String,
    /// Who holds it.
    pub role: VipRole,
}

/// `vip.role`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VipRole {
    /// The primary.
    #[default]
    Primary,
    /// One node whose built-in proxy lives.
    Proxy,
}

/// `proxy:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where writers come to, `host:port`.
    pub rw: String,
    /// Where readers come to, `host:port`.
    pub ro: String,
    /// How long a new connection waits for a server, milliseconds.
    pub hold_timeout_ms: u64,
    /// How long a client may take to say what it wants, milliseconds.
    pub handshake_timeout_ms: u64,
    /// How far behind a replica may be for new readers, bytes; `None`: any distance.
    pub max_lag: Option<u64>,
    /// Whether readers are led to the primary where no replica is fit.
    pub ro_on_primary: bool,
    /// Clients at a time.
    pub max_connections: usize,
    /// Clients of one address at a time; zero is no limit.
    pub max_connections_per_client: usize,
    /// Every connection begins with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Passwords of users whose sessions are taken to the next primary.
    pub auth_file: Option<PathBuf>,
}

/// `log:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least important level that is written: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
    pub level: String,
    /// Levels of single modules.
    pub loggers: BTreeMap<String, String>,
    /// JSON lines instead of plain ones.
    pub json: bool,
    /// How a plain line looks.
    pub format: LogFormat,
    /// Keys and fields of a JSON line; `None`: the fields of `format` under their own names.
    pub keys: Option<Vec<(String, LogField)>>,
    /// How a time looks, in the words of strftime.
    pub dateformat: Option<String>,
    /// Keys that every JSON line has.
    pub static_fields: Vec<(String, serde_json::Value)>,
    /// Lines that may wait to be written.
    pub queue: usize,
    /// Directory of log files; `None`: standard error.
    pub dir: Option<PathBuf>,
    /// How many old files are kept.
    pub file_num: u64,
    /// Size at which a new file begins, bytes.
    pub file_size: u64,
    /// Mode of the files, such as `0o640`.
    pub mode: Option<u32>,
}

/// `ctl:`; what is absent there is taken from `restapi:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ctl {
    /// Credentials sent with unsafe verbs.
    pub authentication: Option<Credentials>,
    /// Accept any certificate.
    pub insecure: bool,
    /// Authorities that may have signed the REST door's certificate.
    pub cacert: Option<PathBuf>,
    /// Our certificate.
    pub certfile: Option<PathBuf>,
    /// Its key.
    pub keyfile: Option<PathBuf>,
    /// The key's password.
    pub keyfile_password: Option<Secret>,
}
