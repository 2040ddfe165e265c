//! PostgreSQL without Matriarch: for measuring floors and for playing the operator who starts a server by hand.

use crate::herd::postgres_ids;
use crate::node_file::PASSWORD;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Directory of PostgreSQL's programs: `PG_BIN`, else the newest of the usual places.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("PG_BIN") {
        return PathBuf::from(dir);
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
    {
        let dir = entry.path().join("bin");
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(version), true) = (version, dir.join("pg_basebackup").is_file()) {
            found.push((version, dir));
        }
    }
    for entry in std::fs::read_dir("/usr").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let version = name
            .to_str()
            .and_then(|name| name.strip_prefix("pgsql-")?.parse().ok());
        if let Some(version) = version {
            found.push((version, entry.path().join("bin")));
        }
    }
    found.into_iter().max().expect("PostgreSQL is installed").1
}

/// Runs one of PostgreSQL's programs to its end as the right user, and fails with its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|text| panic!("{program} {arguments:?} failed: {text}"))
}

fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(bin_dir().join(program));
    command
        .args(arguments)
        .current_dir("/")
        .env("PGPASSWORD", PASSWORD)
        .stdin(Stdio::null());
    if let Some((uid, gid)) = postgres_ids() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// Makes an empty database cluster that nobody has heard of.
pub fn initdb(data_dir: &Path) {
    let dir = data_dir.display().to_string();
    run(
        "initdb",
        &[
            "-D",
            &dir,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-k",
            "-N",
            "--locale=C",
            "-E",
            "UTF8",
        ],
    );
}

/// Starts a server by hand with more command-line options and waits until it answers.
pub fn start(data_dir: &Path, options: &str) {
    let dir = data_dir.display().to_string();
    // The log goes to the directory above: one inside would be carried along by clones.
    let log = data_dir.with_extension("by-hand.log").display().to_string();
    if let Err(text) = try_run(
        "pg_ctl",
        &["-D", &dir, "-l", &log, "-o", options, "-w", "-t", "30", "start"],
    ) {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        panic!("PostgreSQL in {dir} cannot be started: {text}\n{said}");
    }
}

/// Promotes a server by hand and waits for it.
pub fn promote(data_dir: &Path) {
    run(
        "pg_ctl",
        &["-D", &data_dir.display().to_string(), "-w", "-t", "30", "promote"],
    );
}

/// Stops a server by hand.
pub fn stop(data_dir: &Path) {
    run(
        "pg_ctl",
        &[
            "-D",
            &data_dir.display().to_string(),
            "-m",
            "fast",
            "-w",
            "-t",
            "30",
            "stop",
        ],
    );
}
