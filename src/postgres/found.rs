//! A PostgreSQL that was there before us: whether it runs, whether it can be taken over as it is, and what it reads.

use super::{Postgres, PostgresError, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where Patroni keeps the dynamic configuration, in the data directory.
const KEPT: &str = "patroni.dynamic.json";

/// What postmaster.pid says: the process, its directory, start, port, directory of its socket, address, ...
struct PidFile {
    pid: i32,
    data_dir: PathBuf,
    port: u16,
}

impl PidFile {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let data_dir = lines.next()?.into();
        let port = lines.nth(1)?.parse().ok()?;
        Some(Self { pid, data_dir, port })
    }
}

impl Postgres {
    /// The postmaster that runs in the data directory, if it may be taken over as it runs.
    ///
    /// # Errors
    /// One sentence that says why it may not, and what to do.
    pub fn adoptable(&self) -> Result<i32, PostgresError> {
        let dir = self.data_dir();
        let refused = |why: String| {
            PostgresError::Misconfigured(format!(
                "postgresql.data_dir: a PostgreSQL that Matriarch did not start runs in {}, {why}",
                dir.display()
            ))
        };
        let text = files::read(&dir.join("postmaster.pid"))?.unwrap_or_default();
        let Some(found) = PidFile::parse(&text) else {
            return Err(refused(
                "and its postmaster.pid names no server; stop it first".to_owned(),
            ));
        };
        if !same_place(&found.data_dir, dir) {
            let other = found.data_dir.display();
            return Err(refused(format!(
                "but its data directory is {other}; stop it first, or name that directory"
            )));
        }
        let (theirs, ours) = (found.port, self.setup().port);
        if theirs != ours {
            return Err(refused(format!(
                "but it listens on port {theirs} and postgresql.listen says {ours}; correct the one, or stop the other \
                 first"
            )));
        }
        self.reads_our_files()?;
        Ok(found.pid)
    }

    /// The configuration files of a database cluster that somebody else made are where the node file says.
    ///
    /// # Errors
    /// One sentence that names the right `postgresql.config_dir`.
    pub fn reads_our_files(&self) -> Result<(), PostgresError> {
        let ours = self.main_conf();
        let Some(theirs) = self.configured_by()? else {
            return Ok(());
        };
        if same_place(&theirs, &ours) || !theirs.exists() {
            return Ok(());
        }
        let shown = theirs.parent().unwrap_or(&theirs).display().to_string();
        Err(PostgresError::Misconfigured(format!(
            "postgresql.config_dir: the PostgreSQL of {} reads {}, not {}; set postgresql.config_dir: {shown}",
            self.data_dir().display(),
            theirs.display(),
            ours.display()
        )))
    }

    /// What these parameters were in the configuration of a database cluster that somebody else made; blocking. What it
    /// cannot say is missing.
    pub fn parameters_in_force(&self, names: impl Iterator<Item = &'static str>) -> BTreeMap<String, String> {
        if !self.main_conf().exists() {
            return BTreeMap::new();
        }
        let ask = |name: &'static str| Some((name.to_owned(), self.configured(self.data_dir(), name)?));
        names.filter_map(ask).collect()
    }

    /// The dynamic configuration as Patroni kept it beside the data.
    pub fn kept_by_patroni(&self) -> Option<String> {
        files::read(&self.data_dir().join(KEPT)).ok()?
    }

    /// Keeps it there as Patroni does.
    pub fn keep_configuration(&self, text: &str) -> Result<(), PostgresError> {
        files::replace_changed(&self.data_dir().join(KEPT), text, self.owner()).map(drop)
    }

    /// Which file the server read when it was last started, as postmaster.opts tells; it stays after a stop.
    fn configured_by(&self) -> Result<Option<PathBuf>, PostgresError> {
        let Some(text) = files::read(&self.data_dir().join("postmaster.opts"))? else {
            return Ok(None);
        };
        Ok(config_file(&arguments(&text), self.data_dir()))
    }
}

/// `/usr/lib/postgresql/15/bin/postgres "-D" "/data" "-c" "config_file=/etc/..."`
fn arguments(text: &str) -> Vec<String> {
    let line = text.lines().next().unwrap_or_default();
    let mut rest = line.split_once(" \"").map_or("", |(_, rest)| rest);
    let mut found = Vec::new();
    while let Some((argument, next)) = rest.split_once('"') {
        found.push(argument.to_owned());
        rest = next.trim_start().strip_prefix('"').unwrap_or_default();
    }
    found
}

fn config_file(arguments: &[String], data_dir: &Path) -> Option<PathBuf> {
    let mut dir = data_dir.to_owned();
    let mut file = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let setting = match argument.as_str() {
            "-D" => {
                dir = rest.next()?.into();
                continue;
            }
            "-c" => rest.next()?.as_str(),
            other => other
                .strip_prefix("--")
                .or_else(|| other.strip_prefix("-c"))
                .unwrap_or_default(),
        };
        if let Some((name, value)) = setting.split_once('=')
            && name.replace('-', "_") == "config_file"
        {
            file = Some(PathBuf::from(value));
        }
    }
    Some(file.unwrap_or_else(|| dir.join("postgresql.conf")))
}

fn same_place(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_names_the_process_and_the_port() {
        let text = "4711\n/var/lib/postgresql/15/main\n1780000000\n5433\n/var/run/postgresql\nlocalhost\n  1 2\nready   \n";
        let found = PidFile::parse(text).unwrap();
        assert_eq!((found.pid, found.port), (4711, 5433));
        assert_eq!(found.data_dir, Path::new("/var/lib/postgresql/15/main"));
        // A single-user server writes a negative number.
        assert!(PidFile::parse(&text.replace("4711", "-4711")).is_none());
        assert!(PidFile::parse("").is_none());
    }

    #[test]
    fn the_configuration_file_is_told_by_the_last_command_line() {
        let data = Path::new("/data");
        for (line, expected) in [
            (r#"/usr/bin/postgres "-D" "/data""#, "/data/postgresql.conf"),
            (r#"/usr/bin/postgres"#, "/data/postgresql.conf"),
            (
                r#"/usr/bin/postgres "-D" "/etc/pg 15/main""#,
                "/etc/pg 15/main/postgresql.conf",
            ),
            (
                r#"/usr/bin/postgres "-D" "/data" "-c" "config_file=/etc/p/postgresql.conf""#,
                "/etc/p/postgresql.conf",
            ),
            (
                r#"/usr/bin/postgres "-D" "/data" "--config-file=/etc/p.conf" "--port=5433""#,
                "/etc/p.conf",
            ),
        ] {
            let found = config_file(&arguments(&format!("{line}\n")), data);
            assert_eq!(found.as_deref(), Some(Path::new(expected)), "{line}");
        }
    }
}
