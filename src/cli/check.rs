//! `matriarch check FILE`: everything that is wrong with a configuration, and with this machine for it, at once.
//!
//! Looks only; nothing is started, bound for longer than a look, or written.

use super::out::CliError;
use super::talk::Talk;
use super::{check_programs, yaml};
use crate::config::{self, Config, Problem, WatchdogMode};
use clap::Args;
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const WORLD_READABLE: u32 = 0o004;

/// Say all that is wrong with a node file, and with this machine for it.
#[derive(Args, Debug)]
pub struct Check {
    /// The node file, or a directory of them; without it the environment says everything
    file: Option<PathBuf>,
    /// Print the file, merged with the environment, if a node could start with it; secrets are shown as stars
    #[arg(short, long)]
    print: bool,
}

impl Check {
    /// Whoever asks for the document gets nothing else on standard output; what is odd is said beside it.
    pub(super) fn execute(self, env: &BTreeMap<String, String>, talk: &mut Talk<'_>) -> Result<u8, CliError> {
        let findings = findings(&self.file.unwrap_or_default(), env);
        let (report, code) = findings.report();
        if !self.print {
            talk.print(&report)?;
        } else {
            talk.note(report.trim_end());
            if code == 0 {
                talk.print(&yaml::block(&findings.shown))?;
            }
        }
        Ok(code)
    }
}

fn findings(path: &Path, env: &BTreeMap<String, String>) -> Findings {
    let (loaded, problems) = config::load_all(path, env);
    let mut findings = Findings {
        errors: problems.iter().map(Problem::to_string).collect(),
        ..Findings::default()
    };
    if let Some(loaded) = loaded {
        findings.warnings = loaded.warnings;
        findings.shown = loaded.shown;
        if findings.errors.is_empty() {
            findings.notes = config::notes(&loaded.config);
            machine(&mut findings, &loaded.config);
        }
    }
    findings
}

/// What was found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) notes: Vec<String>,
    /// What was written, to be shown.
    shown: serde_json::Value,
}

impl Findings {
    /// The report, and the exit code: 0 when a node could start.
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
        let data_major = check_programs::data_directory(findings, postgresql);
        check_programs::programs(findings, config, postgresql, data_major);
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
        let says = match password.map(config::Secret::reveal) {
            Some(config::STARS) => "is nothing but stars, as what --print shows",
            Some(text) if text.starts_with("change-me") => "still says change-me, as the example does",
            _ => continue,
        };
        findings.warnings.push(format!(
            "{key}: {says}; write a secret of your own, the same on every node"
        ));
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
    use super::super::called::Called;
    use super::super::check_programs::PROGRAMS;
    use super::*;

    fn check(path: &Path, env: &BTreeMap<String, String>) -> (String, u8) {
        findings(path, env).report()
    }

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

    /// What is printed where, and the exit code.
    fn printed(file: &Path, variables: &[(&str, &str)]) -> (String, String, u8) {
        let (mut output, mut notes) = (Vec::new(), Vec::new());
        let mut talk = Talk {
            called: Called::Matriarch,
            input: &mut std::io::empty(),
            output: &mut output,
            notes: &mut notes,
            watched: false,
        };
        let check = Check {
            file: Some(file.to_owned()),
            print: true,
        };
        let env = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let code = check.execute(&env.collect(), &mut talk).unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(file.parent().unwrap().to_str().unwrap(), "DIR")
        };
        (text(output), text(notes), code)
    }

    #[test]
    fn the_document_alone_is_printed_and_its_secrets_are_stars() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "parameters: {hot_standby: on, work_mem: 4MB}");
        let variables = [
            ("PATRONI_SUPERUSER_PASSWORD", "hunter2"),
            ("PATRONI_RESTAPI_LISTEN", "127.60.0.1:20"),
        ];
        let (document, notes, code) = printed(&file, &variables);
        assert_eq!(
            document,
            "name: node1\n\
             postgresql:\n  authentication:\n    replication:\n      password: '********'\n      username: b\n    \
             superuser:\n      password: '********'\n      username: a\n  data_dir: DIR/data\n  listen: 127.60.0.1:19\n  \
             parameters:\n    hot_standby: true\n    work_mem: 4MB\n\
             raft:\n  data_dir: DIR/raft\n  partner_addrs: []\n  self_addr: 127.60.0.1:17\n\
             restapi:\n  listen: 127.60.0.1:20\n\
             scope: herd\n"
        );
        assert!(notes.ends_with("configuration is valid\n"), "{notes}");
        assert_eq!(code, 0);
        // Written back, it is known for what it is.
        std::fs::write(&file, document.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let (said, _) = check(&file, &BTreeMap::new());
        assert!(
            said.contains("superuser.password: is nothing but stars, as what --print shows"),
            "{said}"
        );
        std::fs::write(&file, "scope: a\n").unwrap();
        let (document, notes, code) = printed(&file, &variables);
        assert_eq!((document.as_str(), code), ("", 1));
        assert!(notes.contains("configuration is not valid"), "{notes}");
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
