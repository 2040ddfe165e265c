//! `matriarch check FILE`: everything that is wrong with a configuration, and with this machine for it, at once.
//!
//! Looks only; nothing is started, bound for longer than a look, or written.

use crate::config::{self, Config, PostgresConfig, Problem, WatchdogMode};
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;
const PROGRAMS: [&str; 6] = [
    "initdb",
    "postgres",
    "pg_basebackup",
    "pg_controldata",
    "pg_rewind",
    "pg_waldump",
];
const WORLD_READABLE: u32 = 0o004;

/// Checks a node file (or directory) and this machine; the report, and the exit code: 0 when a node could start.
pub fn check(path: &Path, env: &BTreeMap<String, String>) -> (String, u8) {
    let (loaded, problems) = config::load_all(path, env);
    let mut findings = Findings {
        errors: problems.iter().map(Problem::to_string).collect(),
        ..Findings::default()
    };
    if let Some(loaded) = loaded {
        findings.warnings = loaded.warnings;
        if findings.errors.is_empty() {
            findings.notes = config::notes(&loaded.config);
            machine(&mut findings, &loaded.config);
        }
    }
    findings.report()
}

#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    fn report(&self) -> (String, u8) {
        let mut text = String::new();
        for (kind, lines) in [
            ("error", &self.errors),
            ("warning", &self.warnings),
            ("note", &self.notes),
        ] {
            for line in lines {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{kind}: {line}");
            }
        }
        if self.errors.is_empty() {
            text.push_str("configuration is valid\n");
            return (text, 0);
        }
        let plural = if self.errors.len() == 1 { "" } else { "s" };
        let _ = writeln!(
            text,
            "configuration is not valid: {} error{plural}",
            self.errors.len()
        );
        (text, 1)
    }
}

fn machine(findings: &mut Findings, config: &Config) {
    readable_by_all(findings, config);
    placeholders(findings, config);
    tls_files(findings, config);
    watchdog(findings, config);
    let mut doors = Vec::new();
    let peers = config.raft.bind_addr.as_ref().unwrap_or(&config.raft.self_addr);
    if !peers.is_empty() {
        doors.push(("raft", peers.clone()));
    }
    doors.push(("restapi.listen", config.restapi.listen.clone()));
    doors.extend(config.proxy.iter().flat_map(super::check_proxy::doors));
    let limit = config.proxy.iter().filter_map(super::check_proxy::limit);
    findings.notes.extend(limit);
    if let Some(postgresql) = &config.postgresql {
        let data_major = data_directory(findings, postgresql);
        programs(findings, config, postgresql, data_major);
        for host in postgresql.listen.addresses.split(',') {
            let host = if host == "*" { "0.0.0.0" } else { host };
            let address = format!(
                "{}",
                crate::cluster::Endpoint {
                    host: host.into(),
                    port: postgresql.listen.port
                }
            );
            doors.push(("postgresql.listen", address));
        }
    }
    for (key, address) in doors {
        ports(findings, key, &address);
    }
}

/// Looks at the device only: opening it would start it.
fn watchdog(findings: &mut Findings, config: &Config) {
    let device = &config.watchdog.device;
    let why = match access(device, AccessFlags::W_OK) {
        _ if config.postgresql.is_none() => return,
        Ok(()) => return,
        Err(errno) => format!(
            "watchdog.device: {} cannot be used: {}",
            device.display(),
            errno.desc()
        ),
    };
    match config.watchdog.mode {
        WatchdogMode::Off => {}
        WatchdogMode::Automatic => findings.notes.push(format!("{why}; this node runs without it")),
        WatchdogMode::Required => findings.warnings.push(format!(
            "{why}; as it is required, this node would never be primary"
        )),
    }
}

/// A file with passwords is for one user only.
fn readable_by_all(findings: &mut Findings, config: &Config) {
    let has_secret = config.raft.password.is_some()
        || config.restapi.authentication.is_some()
        || config.ctl.authentication.is_some()
        || config.restapi.keyfile_password.is_some()
        || config.ctl.keyfile_password.is_some()
        || config.postgresql.as_ref().is_some_and(|postgresql| {
            let logins = [
                &postgresql.auth.superuser,
                &postgresql.auth.replication,
                &postgresql.auth.rewind,
            ];
            logins
                .iter()
                .any(|login| login.password.is_some() || login.sslpassword.is_some())
        });
    let mode = config
        .path
        .metadata()
        .map_or(0, |metadata| metadata.permissions().mode());
    if has_secret && mode & WORLD_READABLE != 0 {
        let path = config.path.display();
        findings.warnings.push(format!(
            "{path} holds passwords and can be read by every user: chmod o-rwx {path}"
        ));
    }
}

/// What our examples and `migrate` write is known to everybody.
fn placeholders(findings: &mut Findings, config: &Config) {
    let logins = config.postgresql.iter().flat_map(|postgresql| {
        let auth = &postgresql.auth;
        [
            (
                "postgresql.authentication.superuser.password",
                &auth.superuser.password,
            ),
            (
                "postgresql.authentication.replication.password",
                &auth.replication.password,
            ),
        ]
    });
    let credentials = config.restapi.authentication.as_ref();
    let doors = [
        ("raft.password", config.raft.password.as_ref()),
        (
            "restapi.authentication.password",
            credentials.map(|credentials| &credentials.password),
        ),
    ];
    let all = doors
        .into_iter()
        .chain(logins.map(|(key, password)| (key, password.as_ref())));
    for (key, password) in all {
        if password.is_some_and(|password| password.reveal().starts_with("change-me")) {
            findings.warnings.push(format!(
                "{key}: still says change-me, as the example does; write a secret of your own, the same on every node"
            ));
        }
    }
}

fn tls_files(findings: &mut Findings, config: &Config) {
    let files = [
        ("raft.certfile", &config.raft.certfile),
        ("raft.keyfile", &config.raft.keyfile),
        ("raft.cafile", &config.raft.cafile),
        ("restapi.certfile", &config.restapi.certfile),
        ("restapi.keyfile", &config.restapi.keyfile),
        ("restapi.cafile", &config.restapi.cafile),
    ];
    for (key, file) in files {
        let Some(file) = file else { continue };
        let mode = file
            .metadata()
            .map_or(0, |metadata| metadata.permissions().mode());
        if key.ends_with(".keyfile") && mode & WORLD_READABLE != 0 {
            let path = file.display();
            findings.warnings.push(format!(
                "{key}: {path} is a private key and can be read by every user: chmod o-rwx {path}"
            ));
        }
        if let Err(error) = std::fs::File::open(file) {
            findings
                .errors
                .push(format!("{key}: {} cannot be read: {error}", file.display()));
        }
    }
}

/// The owner of the data directory and the version of what lies in it.
fn data_directory(findings: &mut Findings, postgresql: &PostgresConfig) -> Option<u32> {
    let dir = &postgresql.data_dir;
    let metadata = dir.metadata().ok()?;
    if !metadata.is_dir() {
        findings.errors.push(format!(
            "postgresql.data_dir: {} is not a directory",
            dir.display()
        ));
        return None;
    }
    let me = nix::unistd::geteuid();
    if metadata.uid() == 0 {
        let message = "belongs to root, under whom PostgreSQL does not run; give it to the user postgres";
        findings
            .errors
            .push(format!("postgresql.data_dir: {} {message}", dir.display()));
    } else if !me.is_root() && metadata.uid() != me.as_raw() {
        let message = format!(
            "belongs to user {}, but this is user {me}; run as its owner",
            metadata.uid()
        );
        findings
            .errors
            .push(format!("postgresql.data_dir: {} {message}", dir.display()));
    }
    std::fs::read_to_string(dir.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The programs of `bin_dir`; without that key they are looked for when the node starts.
fn programs(findings: &mut Findings, config: &Config, postgresql: &PostgresConfig, data_major: Option<u32>) {
    let Some(bin_dir) = &postgresql.bin_dir else {
        findings
            .notes
            .push("postgresql.bin_dir is not set: the programs are looked for in PATH".to_owned());
        return;
    };
    let file = |name: &str| bin_dir.join(postgresql.bin_name.get(name).map_or(name, String::as_str));
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| !file(name).is_file())
        .collect();
    if !missing.is_empty() {
        let message = format!("{} has no {}", bin_dir.display(), missing.join(", "));
        findings.errors.push(format!(
            "postgresql.bin_dir: {message}; install PostgreSQL's server programs"
        ));
    }
    let told = Command::new(file("postgres")).arg("--version").output();
    let version = told
        .ok()
        .and_then(|output| version_of(&String::from_utf8_lossy(&output.stdout)));
    if let Some((major, minor)) = version {
        findings.errors.extend(version_errors(major, data_major));
        let race = config::start_race(&config.bootstrap.settings, major * 10_000 + minor);
        findings
            .warnings
            .extend(race.map(|why| format!("postgresql.bin_dir: {why}")));
    }
}

/// Major and minor version in what a server program tells of itself: `postgres (PostgreSQL) 15.18 (Debian ...)`.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let version = text.split(") ").nth(1)?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    // Development versions (`19devel`, `18beta1`) have no minor number.
    let minor = version
        .strip_prefix(&format!("{major}."))
        .and_then(|_| numbers.next()?.parse().ok());
    Some((major, minor.unwrap_or(0)))
}

fn version_errors(major: u32, data_major: Option<u32>) -> Vec<String> {
    let mut errors = Vec::new();
    if !SUPPORTED.contains(&major) {
        let (least, most) = (SUPPORTED.start(), SUPPORTED.end());
        let message = format!("PostgreSQL {major} is not supported; use {least} to {most}");
        errors.push(format!("postgresql.bin_dir: {message}"));
    }
    if let Some(data) = data_major.filter(|data| *data != major) {
        let message = format!("the programs are of PostgreSQL {major}, but data_dir was made by {data}");
        errors.push(format!(
            "postgresql.bin_dir: {message}; use the programs of {data}"
        ));
    }
    errors
}

/// A port that is taken: the node itself, when it runs, or something in its way.
fn ports(findings: &mut Findings, key: &str, address: &str) {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            findings.notes.push(format!(
                "{key}: {address} is in use; that is right only if this node is running"
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            findings
                .notes
                .push(format!("{key}: {address} is not an address of this machine"));
        }
        // Names that do not resolve here and ports for root only are judged when the node starts.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(dir: &Path, postgresql: &str) -> PathBuf {
        let text = format!(
            "scope: herd\nname: node1\nraft: {{self_addr: \"127.60.0.1:0\", partner_addrs: [], data_dir: {0}/raft}}\n\
             restapi: {{listen: \"127.60.0.1:18\"}}\n\
             postgresql: {{listen: \"127.60.0.1:19\", data_dir: {0}/data, {postgresql}, authentication: {{superuser: {{username: a}}, \
             replication: {{username: b, password: c}}}}}}\n",
            dir.display()
        )
        .replace(":0\"", ":17\"");
        let file = dir.join("node.yml");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        file
    }

    fn checked(dir: &Path, postgresql: &str) -> (String, u8) {
        let (text, code) = check(&file(dir, postgresql), &BTreeMap::new());
        (text.replace(dir.to_str().unwrap(), "DIR"), code)
    }

    #[test]
    fn a_valid_file_says_so_after_what_is_odd() {
        let dir = tempfile::tempdir().unwrap();
        let (text, code) = checked(dir.path(), "database: postgres");
        assert_eq!(
            text,
            "warning: DIR/node.yml:3: raft.partner_addrs: names no other node: nothing can take over from this one\n\
             warning: DIR/node.yml holds passwords and can be read by every user: chmod o-rwx DIR/node.yml\n\
             note: postgresql.bin_dir is not set: the programs are looked for in PATH\n\
             configuration is valid\n"
        );
        assert_eq!(code, 0);
    }

    /// The programs of an installed PostgreSQL.
    fn installed() -> PathBuf {
        let versions = Path::new("/usr/lib/postgresql").read_dir().unwrap();
        versions
            .map(|entry| entry.unwrap().path().join("bin"))
            .find(|bin| bin.join("postgres").is_file())
            .unwrap()
    }

    #[test]
    fn the_machine_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("data/PG_VERSION"), "9\n").unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in PROGRAMS.into_iter().filter(|name| *name != "pg_rewind") {
            std::os::unix::fs::symlink(installed().join(program), bin.join(program)).unwrap();
        }
        let (text, code) = checked(dir.path(), &format!("bin_dir: {}", bin.display()));
        assert!(
            text.contains("error: postgresql.bin_dir: DIR/bin has no pg_rewind; install"),
            "{text}"
        );
        assert!(
            text.contains("but data_dir was made by 9; use the programs of 9"),
            "{text}"
        );
        if nix::unistd::geteuid().is_root() {
            assert!(
                text.contains("error: postgresql.data_dir: DIR/data belongs to root"),
                "{text}"
            );
        }
        assert_eq!(code, 1);
    }

    #[test]
    fn versions_are_judged() {
        assert_eq!(
            version_of("postgres (PostgreSQL) 12.22 (Debian 12.22-1)"),
            Some((12, 22))
        );
        assert_eq!(version_of("postgres (PostgreSQL) 19devel"), Some((19, 0)));
        assert_eq!(version_of("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(version_of("bash: no"), None);
        assert_eq!(
            version_errors(12, Some(12)),
            ["postgresql.bin_dir: PostgreSQL 12 is not supported; use 13 to 18"]
        );
        assert_eq!(version_errors(18, None), Vec::<String>::new());
    }

    #[test]
    fn an_old_release_is_warned_of_where_commits_wait() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in PROGRAMS {
            let script = bin.join(program);
            std::fs::write(
                &script,
                "#!/bin/sh\necho 'postgres (PostgreSQL) 15.12 (Debian 15.12-1)'\n",
            )
            .unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let warned = |mode: &str| {
            let file = file(dir.path(), &format!("bin_dir: {}", bin.display()));
            let mut text = std::fs::read_to_string(&file).unwrap();
            text.push_str(&format!("bootstrap: {{dcs: {{synchronous_mode: {mode}}}}}\n"));
            std::fs::write(&file, text).unwrap();
            let (said, code) = check(&file, &BTreeMap::new());
            assert_eq!(code, 0, "{said}");
            said.contains("warning: postgresql.bin_dir: PostgreSQL 15.12 may acknowledge commits")
                && said.contains("upgrade to 15.13")
        };
        assert!(warned("quorum"));
        assert!(!warned("off"));
    }

    #[test]
    fn the_secrets_of_the_examples_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "database: postgres");
        let text = std::fs::read_to_string(&file).unwrap();
        let placed = text
            .replace("raft: {", "raft: {password: change-me-peer-secret, ")
            .replace("password: c}", "password: change-me-replicator}");
        std::fs::write(&file, placed).unwrap();
        let (said, code) = check(&file, &BTreeMap::new());
        for key in ["raft.password", "postgresql.authentication.replication.password"] {
            assert!(
                said.contains(&format!("warning: {key}: still says change-me")),
                "{said}"
            );
        }
        assert_eq!((code, said.matches("change-me").count()), (0, 2), "{said}");
    }

    #[test]
    fn a_taken_port_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut findings = Findings::default();
        ports(
            &mut findings,
            "restapi.listen",
            &taken.local_addr().unwrap().to_string(),
        );
        assert!(
            findings.notes.iter().any(|note| note.contains("is in use")),
            "{:?}",
            findings.notes
        );
        drop((dir, taken));
    }

    #[test]
    fn a_bad_file_says_all_and_ends_with_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.yml");
        std::fs::write(&file, "scope: a\nttl: 3\n").unwrap();
        let (text, code) = check(&file, &BTreeMap::new());
        assert_eq!(code, 1);
        assert!(text.contains("error: ") && text.contains("warning: "), "{text}");
        assert!(text.ends_with("configuration is not valid: 2 errors\n"), "{text}");
    }
}
