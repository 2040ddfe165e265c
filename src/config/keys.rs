//! Every key of a node file in one table: its kind, default, meaning and what becomes of it.
//!
//! The check for unknown keys, the readers' defaults, the environment variables and `configs/reference.yaml`
//! all come from here. In a path, `*` stands for any name and `a|b` for either.

/// What may be written at a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// A boolean.
    Flag,
    /// A whole number within bounds.
    Number(i64, i64),
    /// A size; a bare number counts bytes.
    Bytes,
    /// A duration; a bare number counts seconds.
    Seconds,
    /// A duration with its unit.
    Duration,
    /// host:port.
    Address,
    /// A file or directory.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts, or one text with a line or comma for each.
    List,
    /// Command options: a list of words and `name: value` pairs, or a mapping.
    Options,
    /// A mapping of names to single values.
    Table,
    /// A line of the log, or a list of its fields.
    Line,
    /// Anything.
    Any,
}

/// Whether a key has to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Given {
    /// Absent, it means this.
    Default(&'static str),
    /// It must be written, like this.
    Required(&'static str),
    /// Absent, it means nothing (or what its line says); an example.
    Optional(&'static str),
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It is obeyed.
    Used,
    /// An old name of this key, obeyed.
    OldName(&'static str),
    /// Accepted with a warning that says why it has no effect.
    Ignored(&'static str),
    /// A section of an external store.
    Store,
    /// Refused with this sentence, unless its value is one of these (lists joined by commas).
    Refused(&'static [&'static str], &'static str),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) given: Given,
    pub(crate) doc: &'static str,
    pub(crate) fate: Fate,
}

const fn used(path: &'static str, kind: Kind, given: Given, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        given,
        doc,
        fate: Fate::Used,
    }
}

const fn ignored(path: &'static str, kind: Kind, why: &'static str) -> Key {
    Key {
        path,
        kind,
        given: Optional(""),
        doc: "",
        fate: Fate::Ignored(why),
    }
}

const fn refused(path: &'static str, kind: Kind, unless: &'static [&'static str], why: &'static str) -> Key {
    Key {
        path,
        kind,
        given: Optional(""),
        doc: "",
        fate: Fate::Refused(unless, why),
    }
}

const fn old(path: &'static str, kind: Kind, new: &'static str) -> Key {
    Key {
        path,
        kind,
        given: Optional(""),
        doc: "",
        fate: Fate::OldName(new),
    }
}

const fn store(path: &'static str) -> Key {
    Key {
        path,
        kind: Any,
        given: Optional(""),
        doc: "",
        fate: Fate::Store,
    }
}

use Given::{Default, Optional, Required};
use Kind::{
    Address, Any, Bytes, Choice, Duration, Flag, Line, List, Number, Options, Path, Seconds, Secret, Table,
    Text,
};

const DCS_ONLY: &str = "it belongs to bootstrap.dcs, and Patroni does not read it here either";
const NODE_ONLY: &str = "it is read from the node's own postgresql section only";
const NOT_YET: &str = "it is not built yet";
const OWN_SERVER: &str = "it tunes Patroni's own server";
/// Said once, however many of them a file has.
pub(crate) const RAFT_TIMINGS: &str =
    "our Raft timings are heartbeat_interval, election_min and election_max";
const SLOTS_LATER: &str = "permanent and ignored slots are not supported yet; remove the key";
const SSLMODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// The table, in the order of `configs/reference.yaml`.
#[rustfmt::skip] // a row is a line
pub(crate) const KEYS: &[Key] = &[
    used("scope", Text, Required("herd"), "The cluster's name, the same on every node; also PostgreSQL's cluster_name."),
    used("name", Text, Required("node1"), "This node's name, unique in the cluster; also its application_name as a standby."),
    used("namespace", Text, Default("/service"), "Kept for Patroni's sake: nothing is stored under it."),
    ignored("thread_pool_size", Any, OWN_SERVER),
    ignored("thread_stack_size", Any, OWN_SERVER),
    // What Patroni users put at the root by mistake.
    ignored("ttl", Any, DCS_ONLY),
    ignored("loop_wait", Any, DCS_ONLY),
    ignored("retry_timeout", Any, DCS_ONLY),
    ignored("report_interval", Any, DCS_ONLY),
    ignored("maximum_lag_on_failover", Any, DCS_ONLY),
    ignored("maximum_lag_on_syncnode", Any, DCS_ONLY),
    ignored("check_timeline", Any, DCS_ONLY),
    ignored("max_timelines_history", Any, DCS_ONLY),
    ignored("primary_start_timeout", Any, DCS_ONLY),
    ignored("primary_stop_timeout", Any, DCS_ONLY),
    ignored("primary_hang_timeout", Any, DCS_ONLY),
    ignored("master_start_timeout", Any, DCS_ONLY),
    ignored("master_stop_timeout", Any, DCS_ONLY),
    ignored("synchronous_mode", Any, DCS_ONLY),
    ignored("synchronous_mode_strict", Any, DCS_ONLY),
    ignored("synchronous_node_count", Any, DCS_ONLY),
    ignored("failsafe_mode", Any, DCS_ONLY),
    ignored("pause", Any, DCS_ONLY),
    ignored("standby_cluster", Any, DCS_ONLY),
    ignored("slots", Any, DCS_ONLY),
    ignored("ignore_slots", Any, DCS_ONLY),
    ignored("member_slots_ttl", Any, DCS_ONLY),
    store("etcd"),
    store("etcd3"),
    store("consul"),
    store("zookeeper"),
    store("exhibitor"),
    store("kubernetes"),
    store("citus"),
    // ---- proxy
    used("proxy.listen", Text, Default("0.0.0.0"), "The address that the built-in proxy listens on. Without this section there is no proxy; `proxy: {}` is one with all defaults."),
    used("proxy.rw", Text, Default("5000"), "The port, or host:port, that leads to the primary."),
    used("proxy.ro", Text, Default("5001"), "The port, or host:port, that leads to the replica with the fewest connections."),
    used("proxy.hold_timeout", Seconds, Default("10s"), "How long a new connection waits while there is no primary, or nothing to read from, before it is refused."),
    used("proxy.handshake_timeout", Seconds, Default("10s"), "How long a client may take to say what it wants."),
    used("proxy.max_lag", Bytes, Optional("16MB"), "Replicas that are further behind get no new readers. Default: no limit."),
    used("proxy.ro_on_primary", Flag, Default("true"), "Whether readers are led to the primary where no replica is fit."),
    used("proxy.max_connections", Number(1, 1_000_000), Default("10000"), "Clients of this node's proxy at a time."),
    used("proxy.max_connections_per_client", Number(0, 1_000_000), Default("0"), "The same for one client address; 0 is no limit."),
    used("proxy.auth_file", Path, Optional("/etc/matriarch/userlist.txt"), "Users and their passwords, `\"user\" \"password\"` in each line as in pgBouncer's file of that name. With it, sessions that rest are taken to the new primary in a switchover, logged in as the user that they are; users that the server trusts need no line. Without it such sessions are ended."),
    used("proxy.proxy_protocol", Flag, Default("false"), "Every connection begins with the PROXY protocol, version 2: a balancer in front says whose it is."),
    // ---- vip
    used("vip.address", Text, Required("10.0.0.100/24"), "The virtual address, with the length of its network's prefix. Without this section there is none."),
    used("vip.interface", Text, Required("eth0"), "The network interface that carries it."),
    used("vip.role", Choice(&["primary", "proxy"]), Default("primary"), "Who holds it: the primary, from the moment it serves until it is fenced; or one node whose built-in proxy lives, whoever is primary. The same on every node."),
    // ---- notify
    used("notify.haproxy.socket", List, Optional("/run/haproxy/admin.sock"), "HAProxy's runtime socket (`stats socket ... level admin`), a path or host:port, or a list of them: servers are marked up and down there as the primary changes. Without it HAProxy finds out by its checks."),
    used("notify.haproxy.backend", Text, Optional("primary"), "The backend or listen section whose servers carry the members' names. Default: primary."),
    used("notify.pgbouncer.address", List, Optional("127.0.0.1:6432"), "Where pgBouncer listens, or the directory of its unix socket, or a list of them: it is paused during a switchover and resumed after it."),
    used("notify.pgbouncer.username", Text, Optional("pgbouncer"), "One of its admin_users. Default: pgbouncer."),
    used("notify.pgbouncer.password", Secret, Optional("console-secret"), "The password of that user."),
    used("notify.pgbouncer.databases", List, Optional("[app]"), "The databases that are paused. Default: all."),
    used("notify.pgbouncer.hosts_file", Path, Optional("/etc/pgbouncer/primary.ini"), "A file for `%include` in pgbouncer.ini: written with the primary's host for these databases, and reloaded. Absent, pgBouncer's hosts are left alone."),
    // ---- raft
    used("raft.self_addr", Address, Required("10.0.0.11:2222"), "This node's peer address, as its partners reach it. Without it the node takes part without a vote, and listens for no peers."),
    used("raft.bind_addr", Address, Optional("0.0.0.0:2222"), "Where the peer port listens when that is not self_addr."),
    used("raft.partner_addrs", List, Optional("[10.0.0.12:2222, 10.0.0.13:2222]"), "The peer addresses of the other nodes; the node's own may be among them."),
    used("raft.data_dir", Path, Optional("/var/lib/matriarch/node1"), "Where the Raft log lives, outside of PostgreSQL's directories. Default: /var/lib/matriarch/<name>."),
    used("raft.password", Secret, Optional("a-long-secret"), "The secret shared by all nodes. Needed, or the three certificate files, unless every address is loopback."),
    used("raft.certfile", Path, Optional("/etc/matriarch/node1.crt"), "This node's certificate (PEM) for mutual TLS; the name in it is the node's name."),
    used("raft.keyfile", Path, Optional("/etc/matriarch/node1.key"), "Its private key (PEM)."),
    used("raft.cafile", Path, Optional("/etc/matriarch/ca.crt"), "The authority that signed every node's certificate (PEM)."),
    used("raft.heartbeat_interval", Duration, Default("50ms"), "How often the Raft leader beats; less than a third of election_min."),
    used("raft.election_min", Duration, Default("200ms"), "Shortest silence after which another leader is elected."),
    used("raft.election_max", Duration, Default("400ms"), "Longest such silence; three of them, report_interval and 500 ms must fit into ttl."),
    ignored("raft.min_timeout", Any, RAFT_TIMINGS),
    ignored("raft.max_timeout", Any, RAFT_TIMINGS),
    ignored("raft.connection_timeout", Any, RAFT_TIMINGS),
    ignored("raft.append_entries_period", Any, RAFT_TIMINGS),
    ignored("raft.connection_retry_time", Any, RAFT_TIMINGS),
    ignored("raft.leader_fallback_timeout", Any, RAFT_TIMINGS),
    // ---- restapi
    used("restapi.listen", Address, Optional("0.0.0.0:8008"), "Where the REST API listens. Default: the host of raft.self_addr, port 8008."),
    used("restapi.connect_address", Address, Optional("10.0.0.11:8008"), "Where others reach it. Default: listen, or the host of raft.self_addr when listen is 0.0.0.0."),
    used("restapi.authentication.username", Text, Optional("operator"), "User name asked of verbs that change something."),
    used("restapi.authentication.password", Secret, Optional("api-secret"), "Its password."),
    used("restapi.certfile", Path, Optional("/etc/matriarch/api.crt"), "Certificate (PEM); with it the API speaks TLS."),
    used("restapi.keyfile", Path, Optional("/etc/matriarch/api.key"), "Its private key (PEM); absent, it is looked for in certfile."),
    used("restapi.keyfile_password", Secret, Optional("key-secret"), "Password of the private key."),
    used("restapi.cafile", Path, Optional("/etc/matriarch/ca.crt"), "Authorities that may have signed a client's certificate."),
    used("restapi.verify_client", Choice(&["none", "optional", "required"]), Default("none"), "Whose certificates are asked for: nobody's, those of unsafe verbs, everybody's."),
    used("restapi.http_extra_headers", Table, Optional("{X-Frame-Options: SAMEORIGIN}"), "Headers added to every answer."),
    used("restapi.https_extra_headers", Table, Optional("{Strict-Transport-Security: max-age=31536000}"), "Headers added to every answer over TLS."),
    used("restapi.server_tokens", Choice(&["original", "minimal", "productonly"]), Default("original"), "What the Server header tells."),
    used("restapi.allowlist", List, Optional("[10.0.0.0/24]"), "Hosts, addresses and networks that may use unsafe verbs; absent, all may."),
    used("restapi.allowlist_include_members", Flag, Default("false"), "Whether the members' own addresses are on that list."),
    used("restapi.ciphers", Text, Optional("ECDHE-RSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384"), "The only cipher suites that are spoken, as OpenSSL writes a list. One without names of TLS 1.3 limits TLS 1.2 alone."),
    ignored("restapi.request_queue_size", Any, OWN_SERVER),
    ignored("restapi.thread_pool_size", Any, OWN_SERVER),
    // ---- ctl
    used("ctl.authentication.username", Text, Optional("operator"), "User name that the command line sends. Default: the one of restapi."),
    used("ctl.authentication.password", Secret, Optional("api-secret"), "Its password."),
    used("ctl.insecure", Flag, Default("false"), "Accept any certificate of the REST API."),
    used("ctl.cacert", Path, Optional("/etc/matriarch/ca.crt"), "Authorities that may have signed the REST API's certificate."),
    used("ctl.certfile", Path, Optional("/etc/matriarch/api.crt"), "The command line's own certificate."),
    used("ctl.keyfile", Path, Optional("/etc/matriarch/api.key"), "Its key."),
    used("ctl.keyfile_password", Secret, Optional("key-secret"), "The key's password."),
    // ---- postgresql
    used("postgresql.listen", Text, Required("0.0.0.0:5432"), "Where PostgreSQL listens: address[,address]:port."),
    used("postgresql.proxy_address", Address, Optional("10.0.0.11:6432"), "Where clients reach a connection pooler (pgBouncer) beside this node's PostgreSQL: the built-in proxy leads sessions there. Shown as proxy_url."),
    used("postgresql.connect_address", Address, Optional("10.0.0.11:5432"), "Where others reach it. Default: listen, or the host of raft.self_addr when listen is 0.0.0.0."),
    used("postgresql.data_dir", Path, Required("/var/lib/postgresql/17/herd"), "The data directory; empty or absent, it is made."),
    used("postgresql.config_dir", Path, Optional("/etc/postgresql/17/herd"), "Where the configuration files are. Default: data_dir."),
    used("postgresql.bin_dir", Path, Optional("/usr/lib/postgresql/17/bin"), "Where PostgreSQL's programs are. Default: PATH, else the newest installation found."),
    used("postgresql.bin_name.pg_ctl|initdb|pg_controldata|pg_basebackup|postgres|pg_isready|pg_rewind|pg_waldump", Text, Optional("pg_ctl"), "A program of another name."),
    used("postgresql.pgpass", Path, Optional("/var/lib/postgresql/pgpass-node1"), "Our own password file, rewritten by us. Default: ~/pgpass-<name>; as root beside data_dir."),
    used("postgresql.database", Text, Default("postgres"), "The database that we connect to."),
    used("postgresql.use_unix_socket", Flag, Default("false"), "Administer through the unix socket instead of TCP."),
    used("postgresql.use_unix_socket_repl", Flag, Default("false"), "The same for local replication connections."),
    used("postgresql.authentication.superuser|replication|rewind.username", Text, Required("postgres"), "superuser administers, replication streams, rewind runs pg_rewind (default: superuser). They are made in a new cluster."),
    used("postgresql.authentication.superuser|replication|rewind.password", Secret, Optional("a-secret"), "Its password; absent, the server must trust it or know its certificate."),
    used("postgresql.authentication.superuser|replication|rewind.sslmode", Choice(SSLMODES), Optional("prefer"), "libpq's sslmode."),
    used("postgresql.authentication.superuser|replication|rewind.sslkey", Path, Optional("/etc/matriarch/pg.key"), "Key of its certificate."),
    used("postgresql.authentication.superuser|replication|rewind.sslpassword", Secret, Optional("key-secret"), "Password of that key."),
    used("postgresql.authentication.superuser|replication|rewind.sslcert", Path, Optional("/etc/matriarch/pg.crt"), "Its certificate."),
    used("postgresql.authentication.superuser|replication|rewind.sslrootcert", Path, Optional("/etc/matriarch/ca.crt"), "Authorities of the server's certificate."),
    used("postgresql.authentication.superuser|replication|rewind.sslcrl", Path, Optional("/etc/matriarch/ca.crl"), "Revoked certificates."),
    used("postgresql.authentication.superuser|replication|rewind.sslcrldir", Path, Optional("/etc/matriarch/crl"), "Directory of revoked certificates."),
    used("postgresql.authentication.superuser|replication|rewind.sslnegotiation", Choice(&["postgres", "direct"]), Optional("postgres"), "libpq's sslnegotiation."),
    used("postgresql.authentication.superuser|replication|rewind.gssencmode", Choice(&["disable", "prefer", "require"]), Optional("prefer"), "libpq's gssencmode."),
    used("postgresql.authentication.superuser|replication|rewind.channel_binding", Choice(&["disable", "prefer", "require"]), Optional("prefer"), "libpq's channel_binding."),
    old("postgresql.superuser.username", Text, "postgresql.authentication.superuser"),
    old("postgresql.superuser.password", Secret, "postgresql.authentication.superuser"),
    old("postgresql.replication.username", Text, "postgresql.authentication.replication"),
    old("postgresql.replication.password", Secret, "postgresql.authentication.replication"),
    used("postgresql.parameters", Table, Optional("{shared_buffers: 4GB}"), "Server parameters of this node; those that must agree everywhere (max_connections, ...) belong to bootstrap.dcs."),
    used("postgresql.pg_hba", List, Optional("[\"host all all 10.0.0.0/24 scram-sha-256\"]"), "All lines of pg_hba.conf, generated by us; absent, the file is left alone."),
    used("postgresql.pg_ident", List, Optional("[\"map os-user db-user\"]"), "All lines of pg_ident.conf, likewise."),
    used("postgresql.recovery_conf", Table, Optional("{restore_command: cp /archive/%f %p}"), "Recovery parameters of a standby; targets and connections are ours."),
    used("postgresql.basebackup", Options, Optional("[checkpoint: fast, max-rate: 100M]"), "Options of pg_basebackup."),
    used("postgresql.rewind", Options, Optional("[debug]"), "Options of pg_rewind."),
    used("postgresql.custom_conf", Path, Optional("/etc/postgresql/custom.conf"), "Included instead of postgresql.base.conf."),
    used("postgresql.use_pg_rewind", Flag, Optional("true"), "This node's word on bootstrap.dcs.postgresql.use_pg_rewind."),
    used("postgresql.remove_data_directory_on_rewind_failure", Flag, Optional("true"), "This node's word on the key of that name in bootstrap.dcs.postgresql."),
    used("postgresql.remove_data_directory_on_diverged_timelines", Flag, Optional("true"), "This node's word on the key of that name in bootstrap.dcs.postgresql."),
    used("postgresql.pg_ctl_timeout", Number(1, 86_400), Optional("60"), "This node's word on bootstrap.dcs.postgresql.pg_ctl_timeout (seconds)."),
    used("postgresql.callbacks.on_start|on_stop|on_restart|on_reload|on_role_change", Text, Optional("/usr/local/bin/notify.sh"), "Commands, run with the action, the role and the scope behind them; a newer one ends an older one."),
    used("postgresql.pre_promote", Text, Optional("/usr/local/bin/may-i.sh"), "Command before a promotion; unless it ends with 0, another member is chosen."),
    used("postgresql.before_stop", Text, Optional("/usr/local/bin/drain.sh"), "Command before a clean stop, for at most a minute; how it ends changes nothing."),
    refused("postgresql.create_replica_methods|create_replica_method", List, &["basebackup"], "only basebackup is supported yet; remove the key"),
    ignored("postgresql.use_slots", Any, "it is one setting of the whole cluster, bootstrap.dcs.postgresql.use_slots"),
    ignored("postgresql.krbsrvname", Text, NOT_YET),
    // ---- bootstrap
    used("bootstrap.initdb", Options, Optional("[encoding: UTF8, data-checksums]"), "Options of initdb. The section bootstrap is what allows this node to make a new cluster."),
    used("bootstrap.pg_hba", List, Optional("[host all all 10.0.0.0/24 scram-sha-256]"), "Lines of the new cluster's pg_hba.conf."),
    ignored("bootstrap.users", Any, "Patroni 4 makes no users either; make roles in bootstrap.post_bootstrap"),
    refused("bootstrap.method", Text, &["initdb"], "only initdb is supported yet; remove the key"),
    used("bootstrap.post_bootstrap", Text, Optional("/usr/local/bin/roles.sh"), "Command run once in a new cluster, with a connection string behind it; unless it ends with 0, the new cluster is given up."),
    old("bootstrap.post_init", Text, "bootstrap.post_bootstrap"),
    // ---- bootstrap.dcs
    used("bootstrap.dcs.ttl", Seconds, Default("2"), "The lease: how long a lost node keeps others from taking over. Seconds, fractions allowed, up to 300."),
    used("bootstrap.dcs.report_interval", Duration, Default("200ms"), "How often every node reports to the others."),
    used("bootstrap.dcs.loop_wait", Seconds, Default("10"), "Patroni's loop period; only texts and liveness use it. Seconds."),
    used("bootstrap.dcs.retry_timeout", Seconds, Default("10"), "Patroni's retry budget; only texts use it. Seconds."),
    used("bootstrap.dcs.maximum_lag_on_failover", Bytes, Default("1048576"), "A standby further behind than this is not promoted. Bytes."),
    used("bootstrap.dcs.pause", Flag, Optional("false"), "Maintenance mode; `matriarch pause` and `resume` set it, a cluster cannot begin paused."),
    used("bootstrap.dcs.check_timeline", Flag, Default("false"), "Kept for Patroni's sake: a candidate on an older timeline is refused in any case."),
    used("bootstrap.dcs.primary_start_timeout", Seconds, Default("300"), "How long a failed primary may take to come back before another is promoted. Seconds; 0: at once."),
    used("bootstrap.dcs.primary_stop_timeout", Seconds, Default("0"), "In a synchronous mode, how long a clean stop of the primary may take before it is killed. Seconds; 0: no such bound."),
    used("bootstrap.dcs.primary_hang_timeout", Seconds, Default("10"), "How long a primary may leave queries unanswered before it is replaced. Seconds; 0: for ever."),
    used("bootstrap.dcs.member_slots_ttl", Seconds, Default("30min"), "How long the replication slot of a member that is gone is kept, on the primary and on every standby that may be promoted; it begins ttl after the member was last heard of. Seconds; 0: not at all."),
    used("bootstrap.dcs.synchronous_mode", Choice(&["off", "on", "quorum"]), Default("off"), "Whether commits wait for standbys. off: no, and a failover may lose the last of them; on: for each of a chosen few; quorum: for some of all."),
    used("bootstrap.dcs.synchronous_mode_strict", Flag, Default("false"), "Without a standby that counts, commits wait for ever instead of being acknowledged by the primary alone."),
    used("bootstrap.dcs.synchronous_node_count", Number(1, 100), Default("1"), "How many standbys must have flushed a commit before it is acknowledged; fewer when there are fewer."),
    used("bootstrap.dcs.maximum_lag_on_syncnode", Bytes, Default("-1"), "A standby further behind than this is replaced as a synchronous one; with synchronous_commit: remote_apply among the parameters beside it, behind in its replay. Bytes; -1: no limit."),
    used("bootstrap.dcs.synchronous_standby_timeout", Seconds, Default("1"), "How long a synchronous standby that is gone may hold commits. Seconds."),
    used("bootstrap.dcs.fence_after", Duration, Default("500ms"), "In a synchronous mode, how long a primary may be silent before its standbys are cut from it and one of them takes over; at least two report_interval. 0: wait for the end of the lease."),
    used("bootstrap.dcs.stale_reads", Choice(&["allow", "wait"]), Default("allow"), "Whether the last primary, already without standbys, may answer reads while its successor serves; wait: not before its lease is over."),
    old("bootstrap.dcs.sync_standby_timeout", Seconds, "bootstrap.dcs.synchronous_standby_timeout"),
    old("bootstrap.dcs.master_start_timeout", Seconds, "bootstrap.dcs.primary_start_timeout"),
    old("bootstrap.dcs.master_stop_timeout", Seconds, "bootstrap.dcs.primary_stop_timeout"),
    used("bootstrap.dcs.postgresql.use_pg_rewind", Flag, Default("false"), "Rejoin a former primary by pg_rewind where it can be, instead of a new base backup."),
    used("bootstrap.dcs.postgresql.use_slots", Flag, Default("true"), "Keep a replication slot for each member, on the primary and on every standby that may be promoted."),
    used("bootstrap.dcs.postgresql.remove_data_directory_on_rewind_failure", Flag, Optional("true"), "After a failed rewind: false stays out; otherwise the directory is moved aside and removed once a new copy is complete."),
    used("bootstrap.dcs.postgresql.remove_data_directory_on_diverged_timelines", Flag, Optional("true"), "The same for a diverged timeline, without trying to rewind."),
    used("bootstrap.dcs.postgresql.pg_ctl_timeout", Number(1, 86_400), Default("60"), "Bound of a start or stop. Seconds."),
    used("bootstrap.dcs.postgresql.parameters", Table, Optional("{max_connections: 200}"), "Server parameters of every node."),
    used("bootstrap.dcs.postgresql.recovery_conf", Table, Optional("{restore_command: cp /archive/%f %p}"), "Recovery parameters of every standby."),
    used("bootstrap.dcs.postgresql.pg_hba", List, Optional("[\"host all all 10.0.0.0/24 scram-sha-256\"]"), "All lines of every node's pg_hba.conf; absent, the file is left alone."),
    used("bootstrap.dcs.postgresql.pg_ident", List, Optional("[\"map os-user db-user\"]"), "All lines of every node's pg_ident.conf, likewise."),
    used("bootstrap.dcs.postgresql.callbacks.on_start|on_stop|on_restart|on_reload|on_role_change", Text, Optional("/usr/local/bin/notify.sh"), "Commands of every node whose own section has no callbacks."),
    used("bootstrap.dcs.postgresql.pre_promote", Text, Optional("/usr/local/bin/may-i.sh"), "The same for this command."),
    used("bootstrap.dcs.postgresql.before_stop", Text, Optional("/usr/local/bin/drain.sh"), "The same for this one."),
    used("bootstrap.dcs.postgresql.basebackup", Options, Optional("[checkpoint: fast]"), "Options of pg_basebackup on every node whose own section has none."),
    used("bootstrap.dcs.postgresql.rewind", Options, Optional("[debug]"), "Options of pg_rewind, likewise."),
    ignored("bootstrap.dcs.postgresql.connect_address|proxy_address|listen|config_dir|data_dir|pgpass|authentication|bin_dir|bin_name|database|custom_conf|use_unix_socket|use_unix_socket_repl|krbsrvname", Any, NODE_ONLY),
    refused("bootstrap.dcs.postgresql.create_replica_methods|create_replica_method", List, &["basebackup"], "only basebackup is supported yet; remove the key"),
    refused("bootstrap.dcs.failsafe_mode", Text, &["off"], "failsafe mode is not supported yet; remove it or set it to off"),
    refused("bootstrap.dcs.standby_cluster", Any, &[], "standby clusters are not supported yet; remove the section"),
    refused("bootstrap.dcs.slots|permanent_slots|permanent_replication_slots|ignore_slots", Any, &[], SLOTS_LATER),
    ignored("bootstrap.dcs.max_timelines_history|primary_race_backoff", Any, NOT_YET),
    // ---- tags
    used("tags.nofailover", Flag, Default("false"), "Never promote this member."),
    used("tags.failover_priority", Number(i64::MIN, i64::MAX), Optional("1"), "At equal positions the higher number is promoted; 0 is nofailover. Default 1."),
    used("tags.noloadbalance", Flag, Default("false"), "/replica answers 503, so that load balancers leave it alone."),
    used("tags.clonefrom", Flag, Default("false"), "Preferred source of base backups."),
    used("tags.nosync", Flag, Default("false"), "Never a synchronous standby."),
    used("tags.sync_priority", Number(i64::MIN, i64::MAX), Optional("1"), "The higher number is preferred as synchronous standby; 0 is nosync. Default 1."),
    refused("tags.nostream", Text, &["off"], "members that do not stream are not supported yet; remove the tag"),
    refused("tags.replicatefrom", Text, &[], "cascading replication is not supported yet; remove the tag"),
    // ---- watchdog
    used("watchdog.mode", Choice(&["off", "automatic", "required"]), Default("automatic"), "off; automatic: used if it can be; required: without it this node is never primary. Without this section: off."),
    used("watchdog.device", Path, Default("/dev/watchdog"), "The device."),
    used("watchdog.safety_margin", Number(-1, 300), Default("5"), "Seconds that the watchdog's timeout is shorter than ttl; -1, and where nothing is left: half of ttl."),
    used("watchdog.driver", Choice(&["default", "testing"]), Default("default"), "default: the kernel's interface; testing: Patroni's words on a pipe."),
    // ---- log
    used("log.level", Choice(&["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET", "WARN", "FATAL"]), Default("INFO"), "The least important level that is written."),
    used("log.loggers", Table, Optional("{matriarch.api: WARNING}"), "Levels of single modules of ours."),
    used("log.type", Choice(&["plain", "json"]), Default("plain"), "Plain lines or JSON."),
    used("log.format", Line, Optional("'%(asctime)s %(levelname)s: %(message)s'"), "How a line looks, in the words of Python's logging. Default: this. For JSON a list of fields, [asctime, {levelname: level}, message]."),
    used("log.dateformat", Text, Optional("'%Y-%m-%d %H:%M:%S'"), "How a time looks, in the words of strftime. Default: like 2026-11-21 11:06:05,123."),
    used("log.static_fields", Table, Optional("{app: herd}"), "Keys and values that every JSON line has."),
    used("log.max_queue_size", Number(1, 1_000_000), Default("1000"), "Lines that may wait to be written; more are counted and left out."),
    used("log.dir", Path, Optional("/var/log/matriarch"), "Directory of the file patroni.log; absent, standard error."),
    used("log.file_num", Number(0, 10_000), Default("4"), "How many old files are kept."),
    used("log.file_size", Bytes, Default("25000000"), "Size at which a new file begins. Bytes."),
    used("log.mode", Text, Optional("0640"), "Mode of the files, octal. Default: the umask's."),
    ignored("log.traceback_level", Any, "our errors say their reason in words and carry no traceback"),
    ignored("log.deduplicate_heartbeat_logs", Any, "there are no heartbeat lines"),
];

/// Whether a row's path, or the beginning of it, is this path.
pub(crate) fn matches(pattern: &'static str, path: &[&str]) -> Match {
    let mut segments = pattern.split('.');
    for name in path {
        match segments.next() {
            Some(segment) if segment == "*" || segment.split('|').any(|word| word == *name) => {}
            _ => return Match::No,
        }
    }
    segments.next().map_or(Match::Whole, Match::Inside)
}

/// How a path meets a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Not at all.
    No,
    /// The row lies below the path; the next segment.
    Inside(&'static str),
    /// It is the row.
    Whole,
}

/// The row of a path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    let names: Vec<&str> = path.split('.').collect();
    KEYS.iter().find(|key| matches(key.path, &names) == Match::Whole)
}

/// The names that may follow a path.
pub(crate) fn children(path: &[&str]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS {
        if let Match::Inside(segment) = matches(key.path, path) {
            names.extend(segment.split('|').filter(|name| *name != "*"));
        }
    }
    names.dedup();
    names
}

/// Every single path of a row, alternatives spelled out.
pub(crate) fn spelled_out(pattern: &'static str) -> Vec<String> {
    pattern.split('.').fold(vec![String::new()], |paths, segment| {
        let mut longer = Vec::new();
        for path in &paths {
            for word in segment.split('|') {
                longer.push(if path.is_empty() {
                    word.to_owned()
                } else {
                    format!("{path}.{word}")
                });
            }
        }
        longer
    })
}
