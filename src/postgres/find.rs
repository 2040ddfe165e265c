//! Finds PostgreSQL's programs, their version, and the user they must run as.

use super::error::PostgresError;
use super::files::Owner;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What we run; a directory that lacks one of them is no choice.
const PROGRAMS: [&str; 7] = [
    "postgres",
    "initdb",
    "pg_ctl",
    "pg_basebackup",
    "pg_rewind",
    "pg_controldata",
    "pg_waldump",
];
/// The versions whose behaviour is known.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// A version of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `15`.
    pub major: u32,
    /// `150018`, as `server_version_num`.
    pub num: u32,
    /// As the program prints it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub text: String,
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (...)`.
    fn parse(line: &str) -> Option<Self> {
        let text = line.trim().strip_prefix("postgres (PostgreSQL) ")?.to_owned();
        let number = text.split_whitespace().next()?;
        let major: u32 = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        // Development versions (`19devel`, `18beta1`) have no minor number.
        let minor: u32 = number
            .split_once('.')
            .and_then(|(_, minor)| minor.parse().ok())
            .unwrap_or(0);
        Some(Self {
            major,
            num: major * 10_000 + minor,
            text,
        })
    }
}

/// Programs that have another name than PostgreSQL gave them.
type Names = BTreeMap<String, String>;

/// Where a program is.
pub(super) fn place(dir: &Path, names: &Names, program: &str) -> PathBuf {
    dir.join(names.get(program).map_or(program, String::as_str))
}

/// The directory of the whole set of programs, and their version.
pub(super) fn programs(setting: Option<&Path>, names: &Names) -> Result<(PathBuf, Version), PostgresError> {
    let dir = match setting {
        Some(dir) => match missing(dir, names) {
            None => dir.to_owned(),
            Some(program) => {
                return Err(PostgresError::Misconfigured(format!(
                    "postgresql.bin_dir: there is no {}; name the directory with all of PostgreSQL's programs, and what \
                     has another name in postgresql.bin_name",
                    place(dir, names, program).display()
                )));
            }
        },
        None => search(names).ok_or_else(|| {
            PostgresError::Misconfigured(format!(
                "no directory in PATH, /usr/lib/postgresql/*/bin or /usr/pgsql-*/bin holds all of {}; \
                 set postgresql.bin_dir",
                PROGRAMS.join(", ")
            ))
        })?,
    };
    let version = version(&place(&dir, names, "postgres"))?;
    if !MAJORS.contains(&version.major) {
        return Err(PostgresError::Misconfigured(format!(
            "postgresql.bin_dir: {} holds PostgreSQL {}; versions {} to {} are supported",
            dir.display(),
            version.text,
            MAJORS.start(),
            MAJORS.end()
        )));
    }
    Ok((dir, version))
}

fn missing(dir: &Path, names: &Names) -> Option<&'static str> {
    let is_missing = |program: &&str| !place(dir, names, program).is_file();
    PROGRAMS.into_iter().find(is_missing)
}

fn search(names: &Names) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|dir| dir.is_absolute() && missing(dir, names).is_none());
    in_path.or_else(|| {
        let debian = numbered("/usr/lib/postgresql", "");
        let red_hat = numbered("/usr", "pgsql-");
        let whole = debian
            .into_iter()
            .chain(red_hat)
            .filter(|(_, dir)| missing(dir, names).is_none());
        whole
            .filter(|(major, _)| MAJORS.contains(major))
            .max()
            .map(|(_, dir)| dir)
    })
}

/// `bin` of every `<parent>/<prefix><number>`.
fn numbered(parent: &str, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((name, entry.path().join("bin")))
    };
    entries.flatten().filter_map(number).collect()
}

fn version(program: &Path) -> Result<Version, PostgresError> {
    let output = std::process::Command::new(program)
        .arg("--version")
        .env("LC_ALL", "C")
        .output()
        .map_err(PostgresError::file("run the program", program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).ok_or_else(|| {
        PostgresError::Misconfigured(format!(
            "{} --version prints '{}'; that is no PostgreSQL",
            program.display(),
            text.trim()
        ))
    })
}

/// Whom PostgreSQL's programs must run as; `None`: as we do.
pub(super) fn owner(data_dir: &Path) -> Result<Option<Owner>, PostgresError> {
    let shown = data_dir.display();
    let here = fs::metadata(data_dir).ok();
    let us = nix::unistd::geteuid().as_raw();
    if us != 0 {
        return match here {
            Some(meta) if meta.uid() != us => Err(PostgresError::Misconfigured(format!(
                "postgresql.data_dir: {shown} belongs to {}; run as that user or as root",
                user_name(meta.uid())
            ))),
            _ => Ok(None),
        };
    }
    if let Some(meta) = here {
        if meta.uid() == 0 {
            return Err(PostgresError::Misconfigured(format!(
                "postgresql.data_dir: {shown} belongs to root, and PostgreSQL does not run as root; \
                 give it to the user PostgreSQL shall run as"
            )));
        }
        return Ok(Some(Owner {
            uid: meta.uid(),
            gid: group_of(meta.uid()).unwrap_or_else(|| meta.gid()),
        }));
    }
    let above = data_dir
        .ancestors()
        .skip(1)
        .filter_map(|dir| fs::metadata(dir).ok())
        .find(|meta| meta.uid() != 0);
    if let Some(meta) = above {
        return Ok(Some(Owner {
            uid: meta.uid(),
            gid: group_of(meta.uid()).unwrap_or_else(|| meta.gid()),
        }));
    }
    match nix::unistd::User::from_name("postgres") {
        Ok(Some(user)) => Ok(Some(Owner {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })),
        _ => Err(PostgresError::Misconfigured(format!(
            "postgresql.data_dir: {shown} is absent and there is no user postgres; create the directory and give it to \
             the user PostgreSQL shall run as"
        ))),
    }
}

fn group_of(uid: u32) -> Option<u32> {
    nix::unistd::User::from_uid(uid.into())
        .ok()
        .flatten()
        .map(|user| user.gid.as_raw())
}

fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::from([("postgres".to_owned(), "postgres-15".to_owned())]);
        for program in PROGRAMS {
            let text = "#!/bin/sh\necho 'postgres (PostgreSQL) 15.18'\n";
            let path = place(dir.path(), &names, program);
            fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).unwrap();
        }
        let (_, version) = programs(Some(dir.path()), &names).unwrap();
        assert_eq!(version.num, 150_018);
        let refused = programs(Some(dir.path()), &Names::new()).unwrap_err();
        assert!(
            refused.to_string().contains("/postgres; name the directory"),
            "{refused}"
        );
    }

    #[test]
    fn versions() {
        let version = Version::parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").unwrap();
        assert_eq!((version.major, version.num), (15, 150_018));
        let beta = Version::parse("postgres (PostgreSQL) 18beta1").unwrap();
        assert_eq!((beta.major, beta.num), (18, 180_000));
        assert!(Version::parse("something else").is_none());
    }
}
