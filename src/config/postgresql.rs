//! `postgresql:` of a node file.

use super::gucs;
use super::model::{Authentication, CommandOption, Listen, Login, PostgresConfig};
use super::node_file::others_must_reach;
use super::reader::Reader;
use super::settings::warn_of_ours;
use super::units;
use crate::cluster::{Endpoint, Shared};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SOCKETS: &str = "unix_socket_directories";
const POSTGRES_PORT: u16 = 5432;
const NOT_OF_BASEBACKUP: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];
const NOT_OF_REWIND: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

pub(crate) fn read(
    reader: &mut Reader,
    name: &str,
    own_host: &str,
    env: &BTreeMap<String, String>,
) -> PostgresConfig {
    let listen = listen(reader);
    let connect = connect(reader, &listen, own_host);
    reader.required("postgresql.data_dir");
    let data_dir = reader.path("postgresql.data_dir").unwrap_or_default();
    let basebackup = basebackup(reader, "postgresql");
    let callbacks = callbacks(reader, "postgresql");
    PostgresConfig {
        listen,
        connect,
        pooler: pooler(reader),
        config_dir: reader
            .path("postgresql.config_dir")
            .unwrap_or_else(|| data_dir.clone()),
        bin_dir: reader.path("postgresql.bin_dir"),
        bin_name: bin_name(reader),
        pgpass: reader
            .path("postgresql.pgpass")
            .unwrap_or_else(|| default_pgpass(name, &data_dir, env)),
        database: reader.text("postgresql.database").unwrap_or_default(),
        auth: authentication(reader),
        use_unix_socket: reader.flag("postgresql.use_unix_socket"),
        use_unix_socket_repl: reader.flag("postgresql.use_unix_socket_repl"),
        parameters: parameters(reader),
        pg_hba: reader.lines("postgresql.pg_hba"),
        pg_ident: reader.lines("postgresql.pg_ident"),
        recovery_conf: recovery_conf(reader),
        basebackup,
        rewind: reader.options("postgresql.rewind", &NOT_OF_REWIND),
        pg_ctl_timeout_s: reader
            .number("postgresql.pg_ctl_timeout")
            .and_then(|seconds| u64::try_from(seconds).ok()),
        custom_conf: reader.path("postgresql.custom_conf"),
        callbacks,
        pre_promote: command(reader, "postgresql.pre_promote"),
        before_stop: command(reader, "postgresql.before_stop"),
        use_pg_rewind: reader.flag_if_given("postgresql.use_pg_rewind"),
        remove_on_rewind_failure: reader.flag_if_given("postgresql.remove_data_directory_on_rewind_failure"),
        remove_on_diverged_timelines: reader
            .flag_if_given("postgresql.remove_data_directory_on_diverged_timelines"),
        data_dir,
    }
}

/// The same of what is shared, at `bootstrap.dcs.postgresql`.
pub(crate) fn shared(reader: &mut Reader, at: &str) -> Shared {
    let long = |options: Vec<CommandOption>| options.iter().map(CommandOption::long).collect();
    Shared {
        callbacks: callbacks(reader, at),
        pre_promote: command(reader, &format!("{at}.pre_promote")),
        before_stop: command(reader, &format!("{at}.before_stop")),
        basebackup: long(basebackup(reader, at)),
        rewind: long(reader.options(&format!("{at}.rewind"), &NOT_OF_REWIND)),
        socket_directories: reader.parameters(&format!("{at}.parameters")).remove(SOCKETS),
    }
}

fn basebackup(reader: &mut Reader, at: &str) -> Vec<CommandOption> {
    let path = format!("{at}.basebackup");
    let options = reader.options(&path, &NOT_OF_BASEBACKUP);
    if let Some(compress) = options.iter().find(|option| option.name == "compress")
        && !compress
            .value
            .as_deref()
            .is_some_and(|value| value.starts_with("server-"))
    {
        reader.problem(
            &path,
            "compress must be done by the server; write `compress: server-zstd`",
        );
    }
    options
}

/// `address[,address]:port`.
fn listen(reader: &mut Reader) -> Listen {
    let text = reader.required("postgresql.listen");
    let nowhere = Listen {
        addresses: String::new(),
        port: POSTGRES_PORT,
    };
    if text.is_empty() {
        return nowhere;
    }
    let (first, last) = text
        .rsplit_once(',')
        .map_or((None, text.as_str()), |(first, last)| (Some(first), last));
    match units::address(last.trim(), Some(POSTGRES_PORT)) {
        Ok((host, port)) => {
            let mut addresses: Vec<String> = Vec::new();
            for address in first.into_iter().flat_map(|first| first.split(',')) {
                addresses.push(address.trim().trim_matches(['[', ']']).to_owned());
            }
            addresses.push(host);
            Listen {
                addresses: addresses.join(","),
                port,
            }
        }
        Err(message) => {
            reader.problem("postgresql.listen", message);
            nowhere
        }
    }
}

fn connect(reader: &mut Reader, listen: &Listen, own_host: &str) -> Endpoint {
    let given = reader.address("postgresql.connect_address", Some(POSTGRES_PORT));
    let (host, port) = given.unwrap_or_else(|| {
        let first = listen
            .addresses
            .split(',')
            .find(|host| !host.is_empty() && !units::is_wildcard(host));
        (first.unwrap_or(own_host).to_owned(), listen.port)
    });
    if units::is_wildcard(&host) {
        reader.problem("postgresql.connect_address", others_must_reach(&host, port));
    }
    Endpoint { host, port }
}

/// It is reached from other nodes, as the server itself is.
fn pooler(reader: &mut Reader) -> Option<Endpoint> {
    let (host, port) = reader.address("postgresql.proxy_address", None)?;
    if units::is_wildcard(&host) {
        reader.problem("postgresql.proxy_address", others_must_reach(&host, port));
    }
    Some(Endpoint { host, port })
}

/// Patroni's place is the home directory; the name keeps several nodes of one user apart. Root's home cannot
/// be entered by PostgreSQL's user.
fn default_pgpass(name: &str, data_dir: &Path, env: &BTreeMap<String, String>) -> PathBuf {
    let file = format!("pgpass-{name}");
    match env.get("HOME").map(Path::new) {
        Some(home) if home.is_absolute() && home != Path::new("/root") && home != Path::new("/") => {
            home.join(file)
        }
        _ => data_dir.parent().unwrap_or(Path::new("/")).join(file),
    }
}

fn bin_name(reader: &mut Reader) -> BTreeMap<String, String> {
    let programs = [
        "pg_ctl",
        "initdb",
        "pg_controldata",
        "pg_basebackup",
        "postgres",
        "pg_isready",
        "pg_rewind",
        "pg_waldump",
    ];
    programs
        .into_iter()
        .filter_map(|program| {
            Some((
                program.to_owned(),
                reader.text(&format!("postgresql.bin_name.{program}"))?,
            ))
        })
        .collect()
}

fn authentication(reader: &mut Reader) -> Authentication {
    let superuser = login(
        reader,
        "superuser",
        "add `superuser: {username: postgres, password: ...}`",
    );
    let replication = login(
        reader,
        "replication",
        "add `replication: {username: replicator, password: ...}`",
    );
    let rewind = if reader.has("postgresql.authentication.rewind") {
        login(
            reader,
            "rewind",
            "add `rewind: {username: rewind, password: ...}`",
        )
    } else {
        None
    };
    let nobody = || Login {
        username: String::new(),
        password: None,
        sslmode: None,
        sslpassword: None,
        options: BTreeMap::new(),
    };
    let superuser = superuser.unwrap_or_else(nobody);
    Authentication {
        rewind: rewind.unwrap_or_else(|| superuser.clone()),
        replication: replication.unwrap_or_else(nobody),
        superuser,
    }
}

fn login(reader: &mut Reader, role: &str, remedy: &str) -> Option<Login> {
    let new = format!("postgresql.authentication.{role}");
    let old = format!("postgresql.{role}");
    // The older spelling has no `authentication` around the roles.
    let at = if role != "rewind" && !reader.has(&new) && reader.has(&old) {
        old
    } else {
        new
    };
    let key = |name: &str| format!("{at}.{name}");
    let Some(username) = reader.text(&key("username")).filter(|text| !text.is_empty()) else {
        if reader
            .root()
            .at(&at)
            .is_none_or(|node| !node.entries().is_empty())
        {
            reader.problem(&key("username"), format!("is missing; {remedy}"));
        }
        return None;
    };
    let words = ["sslnegotiation", "gssencmode", "channel_binding"];
    let files = ["sslkey", "sslcert", "sslrootcert", "sslcrl", "sslcrldir"];
    let mut options = BTreeMap::new();
    let with_keywords = at.contains("authentication");
    if with_keywords {
        for name in words {
            if let Some(word) = reader.choice(&key(name)) {
                options.insert(name.to_owned(), word.to_owned());
            }
        }
        for name in files {
            if let Some(file) = reader.text(&key(name)) {
                options.insert(name.to_owned(), file);
            }
        }
    }
    Some(Login {
        username,
        password: reader.secret(&key("password")),
        sslmode: reader
            .choice(&key("sslmode"))
            .filter(|_| with_keywords)
            .map(str::to_owned),
        sslpassword: reader.secret(&key("sslpassword")).filter(|_| with_keywords),
        options,
    })
}

/// The node's own parameters; those that must agree on all nodes are left to the cluster, as Patroni does.
fn parameters(reader: &mut Reader) -> BTreeMap<String, String> {
    let mut given = reader.parameters("postgresql.parameters");
    warn_of_ours(reader, "postgresql.parameters", &given);
    let controlled: Vec<String> = given
        .keys()
        .filter(|name| gucs::controlled(name).is_some())
        .cloned()
        .collect();
    if !controlled.is_empty() {
        let message = format!(
            "{} must agree on all nodes and have no effect here; they belong to bootstrap.dcs.postgresql.parameters",
            controlled.join(", ")
        );
        reader.warn("postgresql.parameters", message);
    }
    given.retain(|name, _| gucs::controlled(name).is_none() && gucs::ours(name).is_none());
    given
}

fn recovery_conf(reader: &mut Reader) -> BTreeMap<String, String> {
    let given = reader.parameters("postgresql.recovery_conf");
    warn_of_ours(reader, "postgresql.recovery_conf", &given);
    given
}

fn callbacks(reader: &mut Reader, at: &str) -> BTreeMap<String, String> {
    let events = ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"];
    let mut found = BTreeMap::new();
    for event in events {
        if let Some(line) = command(reader, &format!("{at}.callbacks.{event}")) {
            found.insert(event.to_owned(), line);
        }
    }
    found
}

/// A command line, which can be split.
pub(crate) fn command(reader: &mut Reader, path: &str) -> Option<String> {
    let line = reader.text(path).filter(|line| !line.trim().is_empty())?;
    if shlex::split(&line).is_none() {
        reader.problem(
            path,
            format!("\"{line}\" is not a command: a quote in it is not closed"),
        );
    }
    Some(line)
}
