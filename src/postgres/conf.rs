//! Writes PostgreSQL's configuration files and the signal files of recovery.

use super::{Postgres, PostgresError, ServerConf, conf_file, files};
use std::collections::BTreeMap;
use std::path::Path;

const HEAD: &str = "# Written by Matriarch, which overwrites it; change the node file instead.\n";
/// What acknowledges is agreed in the cluster, so nobody's ALTER SYSTEM may say otherwise.
const NAMES: &str = "synchronous_standby_names";
const BASE: &str = "postgresql.base.conf";
pub(super) const MARKER: &str = "matriarch.json";
/// Recovery parameters that are ours: a value from ALTER SYSTEM or pg_basebackup would win over our file.
const RECOVERY: [&str; 13] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

impl Postgres {
    /// Writes postgresql.conf, pg_hba.conf, pg_ident.conf, the password file and the marker; says whether anything
    /// that the server reads has changed.
    pub async fn write_conf(&self, conf: &ServerConf) -> Result<bool, PostgresError> {
        let (postgres, conf) = (self.clone(), conf.clone());
        let written = tokio::task::spawn_blocking(move || postgres.write_conf_now(&conf)).await;
        written.unwrap_or_else(|why| {
            Err(PostgresError::Misconfigured(format!(
                "the configuration could not be written: {why}"
            )))
        })
    }

    fn write_conf_now(&self, conf: &ServerConf) -> Result<bool, PostgresError> {
        let (dir, config, owner) = (self.data_dir(), self.config_dir(), self.owner());
        if let Some(name) = conf
            .parameters
            .keys()
            .chain(conf.recovery.keys())
            .find(|name| !conf_file::is_name(name))
        {
            return Err(PostgresError::Misconfigured(format!(
                "postgresql.parameters: '{}' is no parameter name; one looks like work_mem",
                name.escape_default()
            )));
        }
        self.write_pgpass()?;
        self.mark()?;
        self.release_timelines()?;
        self.bring_conf()?;
        let (main, base) = (self.main_conf(), config.join(BASE));
        if !files::exists(&base) && files::read(&main)?.is_some_and(|text| !text.starts_with(HEAD)) {
            files::rename(&main, &base)?;
        }
        let included = self.included(files::exists(&base));
        let mut changed = files::replace_changed(&main, &self.main_text(conf, &included), owner)?;
        for (name, lines) in [("pg_hba.conf", &conf.hba), ("pg_ident.conf", &conf.ident)] {
            if let Some(lines) = lines {
                changed |=
                    files::replace_changed(&config.join(name), &format!("{HEAD}{}", lines_of(lines)), owner)?;
            }
        }
        let auto = dir.join("postgresql.auto.conf");
        if let Some(text) = files::read(&auto)? {
            changed |= files::replace_changed(&auto, &conf_file::without(&text, &self.ours(conf)), owner)?;
        }
        self.keep_conf()?;
        Ok(changed)
    }

    fn ours(&self, conf: &ServerConf) -> Vec<&'static str> {
        let names = conf.names.is_some().then_some(NAMES);
        RECOVERY.into_iter().chain(names).collect()
    }

    /// Adds lines to the pg_hba.conf of a new database cluster: those of `bootstrap.pg_hba` come behind initdb's own.
    pub fn append_hba(&self, lines: &[String]) -> Result<(), PostgresError> {
        let path = self.config_dir().join("pg_hba.conf");
        let mut text = files::read(&path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&lines_of(lines));
        files::replace_changed(&path, &text, self.owner()).map(|_| ())
    }

    /// The line that includes what the operator wrote.
    fn included(&self, based: bool) -> String {
        match &self.setup().custom_conf {
            Some(custom) => format!("include {}\n", conf_file::quote(&custom.to_string_lossy())),
            None if based => format!("include '{BASE}'\n"),
            None => String::new(),
        }
    }

    fn main_text(&self, conf: &ServerConf, include: &str) -> String {
        let (setup, config) = (self.setup(), self.config_dir());
        let mut parameters = conf.parameters.clone();
        if let Some(names) = &conf.names {
            parameters.insert(NAMES.to_owned(), names.clone());
        }
        let mut default = |name: &str, value: String| {
            parameters.entry(name.to_owned()).or_insert(value);
        };
        default("listen_addresses", setup.listen_addresses.clone());
        default("port", setup.port.to_string());
        default("cluster_name", setup.scope.clone());
        // Where there is none, the file included may name one.
        for (parameter, name, lines) in [
            ("hba_file", "pg_hba.conf", &conf.hba),
            ("ident_file", "pg_ident.conf", &conf.ident),
        ] {
            let path = config.join(name);
            if lines.is_some() || files::exists(&path) {
                default(parameter, path.to_string_lossy().into_owned());
            }
        }
        let server = conf_file::lines(&parameters);
        let recovery = conf_file::lines(&self.recovery(conf));
        format!("{HEAD}{include}\n{server}\n# Recovery\n{recovery}")
    }

    /// The base file may say something of recovery, so each of the main parameters is given, be it as nothing.
    fn recovery(&self, conf: &ServerConf) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = [
            "recovery_target",
            "recovery_target_lsn",
            "recovery_target_name",
            "recovery_target_time",
            "recovery_target_xid",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), String::new()))
        .collect();
        all.insert("recovery_target_timeline".to_owned(), "latest".to_owned());
        all.extend(conf.recovery.clone());
        let upstream = conf.upstream.as_ref();
        let conninfo = upstream.map(|up| self.standby_conninfo(up));
        let slot = upstream.and_then(|up| up.slot.clone());
        all.insert("primary_conninfo".to_owned(), conninfo.unwrap_or_default());
        all.insert("primary_slot_name".to_owned(), slot.unwrap_or_default());
        all
    }

    /// Makes the next start one of a standby, or of a server that accepts writes.
    pub fn set_standby_signal(&self, on: bool) -> Result<(), PostgresError> {
        self.set_signal_in(self.data_dir(), on)
    }

    pub(super) fn set_signal_in(&self, dir: &Path, on: bool) -> Result<(), PostgresError> {
        let signal = dir.join("standby.signal");
        files::remove_file(&dir.join("recovery.signal"))?;
        match (on, files::exists(&signal)) {
            (true, false) => files::create(&signal, "", self.owner())?,
            (false, true) => files::remove_file(&signal)?,
            _ => {}
        }
        files::sync_dir(dir)
    }

    /// Whether the data, or data that was put aside, ever belonged to a group.
    pub fn has_marker(&self) -> bool {
        let dir = self.data_dir();
        let aside = [
            Some(dir.to_owned()),
            Some(files::beside(dir, ".rewinding")),
            self.last_aside(),
        ];
        aside
            .into_iter()
            .flatten()
            .any(|dir| files::exists(&dir.join(MARKER)))
    }

    /// Notes in the data directory to whom the data belongs; `write_conf` does it by itself.
    pub fn set_marker(&self, scope: &str, system_id: u64) -> Result<(), PostgresError> {
        let text = serde_json::json!({ "scope": scope, "system_id": system_id.to_string() });
        files::replace_changed(&self.data_dir().join(MARKER), &format!("{text}\n"), self.owner()).map(|_| ())
    }

    fn mark(&self) -> Result<(), PostgresError> {
        if files::exists(&self.data_dir().join("global/pg_control"))
            && !files::exists(&self.data_dir().join(MARKER))
        {
            self.set_marker(&self.setup().scope, self.control()?.system_id)?;
        }
        Ok(())
    }
}

fn lines_of(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
