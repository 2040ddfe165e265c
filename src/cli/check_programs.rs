//! What `matriarch check` says of PostgreSQL's programs and of the data directory that they would be used on.

use super::check::Findings;
use crate::config::{self, Config, PostgresConfig};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;
pub(super) const PROGRAMS: [&str; 6] = [
    "initdb",
    "postgres",
    "pg_basebackup",
    "pg_controldata",
    "pg_rewind",
    "pg_waldump",
];

/// The owner of the data directory and the version of what lies in it.
pub(super) fn data_directory(findings: &mut Findings, postgresql: &PostgresConfig) -> Option<u32> {
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
pub(super) fn programs(
    findings: &mut Findings,
    config: &Config,
    postgresql: &PostgresConfig,
    data_major: Option<u32>,
) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
