//! Whole files in, exact words out: `testdata/good` files with what they mean, `testdata/bad.txt` with what is said.
//!
//! `MATRIARCH_RECORD=1 cargo test config` records the expectations anew; review them as a diff.

use super::*;
use std::fmt::Write;
use std::path::PathBuf;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata")
}

fn home() -> BTreeMap<String, String> {
    env(&[("HOME", "/var/lib/pgsql")])
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn compare(file: &Path, found: &str) {
    if std::env::var_os("MATRIARCH_RECORD").is_some() {
        std::fs::write(file, found).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected != found {
        let at = expected
            .lines()
            .zip(found.lines())
            .take_while(|(a, b)| a == b)
            .count();
        let line = |text: &str| text.lines().nth(at).unwrap_or("<end>").to_owned();
        panic!(
            "{}:{}:\n expected {}\n found    {}\nMATRIARCH_RECORD=1 records what was found",
            file.display(),
            at + 1,
            line(&expected),
            line(found)
        );
    }
}

#[test]
fn node_files_as_people_have_them() {
    let mut files: Vec<PathBuf> = testdata()
        .join("good")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yml"));
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let loaded = load(&file, &home()).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        let mut text = String::new();
        for warning in &loaded.warnings {
            writeln!(text, "{}", warning.replace(file.to_str().unwrap(), name)).unwrap();
        }
        let config = Config {
            path: PathBuf::from(name),
            ..loaded.config
        };
        for note in notes(&config) {
            writeln!(text, "note: {note}").unwrap();
        }
        writeln!(text, "{config:#?}").unwrap();
        assert!(!text.contains("secret-"), "{name}: a password shows");
        compare(&file.with_extension("txt"), &text);
    }
}

/// Cases stand apart by `== title`, what is written from what is said by `--`. A case is laid over a valid file, null
/// removing keys, unless its title ends with "(alone)".
#[test]
fn bad_files_and_what_is_said() {
    let file = testdata().join("bad.txt");
    let text = std::fs::read_to_string(&file).unwrap();
    let base = std::fs::read_to_string(testdata().join("base.yml")).unwrap();
    let mut found = String::new();
    for case in text.split("== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (written, _) = rest.split_once("--\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        if !title.ends_with("(alone)") {
            std::fs::write(dir.path().join("1-base.yml"), &base).unwrap();
        }
        std::fs::write(dir.path().join("node.yml"), written).unwrap();
        let (loaded, problems) = load_all(dir.path(), &home());
        let mut said: Vec<String> = problems
            .iter()
            .map(|problem| format!("error: {problem}"))
            .collect();
        said.extend(
            loaded
                .into_iter()
                .flat_map(|loaded| loaded.warnings)
                .map(|text| format!("warning: {text}")),
        );
        let dir_text = dir.path().to_str().unwrap();
        let said = said
            .join("\n")
            .replace(&format!("{dir_text}/"), "")
            .replace(dir_text, "DIR");
        write!(found, "== {title}\n{written}--\n{said}\n\n").unwrap();
    }
    compare(&file, &found);
}

#[test]
fn the_base_of_the_bad_files_is_good() {
    let loaded = load(&testdata().join("base.yml"), &home()).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn variables_overrule_the_file() {
    let variables = env(&[
        ("PATRONI_NAME", "other"),
        ("MATRIARCH_NAME", "mine"),
        ("PATRONI_RAFT_PARTNER_ADDRS", "'127.0.0.1:7001','127.0.0.1:7002'"),
        ("PATRONI_SUPERUSER_PASSWORD", "0123"),
        ("PATRONI_REWIND_USERNAME", "rewinder"),
        ("PATRONI_RESTAPI_USERNAME", "op"),
        ("PATRONI_RESTAPI_PASSWORD", "secret-op"),
        ("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "{X-Herd: yes}"),
        ("PATRONI_POSTGRESQL_BIN_PG_CTL", "pg_ctl-17"),
        ("PATRONI_ETCD3_HOSTS", "a:1"),
        ("PATRONI_ETCD3_USERNAME", "a"),
        ("PATRONI_SCOP", "x"),
        ("PATRONI_SCOPE", ""),
    ]);
    let loaded = load(&testdata().join("base.yml"), &variables).unwrap();
    let config = loaded.config;
    assert_eq!(config.name.as_str(), "mine");
    assert_eq!(config.scope, "herd");
    assert_eq!(config.raft.partner_addrs, ["127.0.0.1:7001", "127.0.0.1:7002"]);
    let postgresql = config.postgresql.unwrap();
    assert_eq!(postgresql.auth.superuser.password.unwrap().reveal(), "0123");
    assert_eq!(postgresql.auth.rewind.username, "rewinder");
    assert_eq!(postgresql.bin_name["pg_ctl"], "pg_ctl-17");
    assert_eq!(config.restapi.authentication.unwrap().username, "op");
    assert_eq!(config.restapi.http_extra_headers["X-Herd"], "on");
    assert_eq!(
        loaded.warnings,
        [
            "environment variable PATRONI_ETCD3_HOSTS: is no longer needed: the nodes agree among themselves",
            "environment variable PATRONI_SCOP: is unknown and has no effect; the nearest known one is PATRONI_SCOPE",
        ]
    );
}

/// Every variable that Patroni knows, apart from those of its stores, sets what it sets there.
#[test]
fn each_of_patronis_variables_is_read() {
    let text = std::fs::read_to_string(testdata().join("variables.txt")).unwrap();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (assignment, expected) = line.split_once(" -> ").unwrap();
        let (name, value) = assignment.split_once('=').unwrap();
        let written = sources::read(&testdata().join("base.yml"), &env(&[(name, value)]))
            .unwrap_or_else(|problems| panic!("{line}: {problems:?}"));
        let warnings: Vec<_> = written.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, Vec::<String>::new(), "{line}");
        let (path, wanted) = expected.split_once(' ').unwrap();
        let found = written.root.at(path).map(|node| node.json().to_string());
        assert_eq!(found.as_deref(), Some(wanted), "{line}");
    }
    // A newer name goes before an older one.
    let both = env(&[("PATRONI_LOGLEVEL", "DEBUG"), ("PATRONI_LOG_LEVEL", "WARNING")]);
    assert_eq!(
        load(&testdata().join("base.yml"), &both)
            .unwrap()
            .config
            .log
            .level,
        "WARNING"
    );
}

#[test]
fn a_variable_can_hold_the_whole_file() {
    let text = std::fs::read_to_string(testdata().join("base.yml")).unwrap();
    let variables = env(&[
        ("PATRONI_CONFIGURATION", &text),
        ("PATRONI_NAME", "not-considered"),
    ]);
    let loaded = load(Path::new("/nowhere.yml"), &variables).unwrap();
    assert_eq!(loaded.config.name.as_str(), "node1");
}

proptest::proptest! {
    /// Whatever a slip of the hand makes of a file, it is read or refused in words.
    #[test]
    fn a_damaged_file_is_read_or_refused(at in 0..2_000_usize, length in 0..200_usize, text in "[-a-z0-9:{}\\[\\],&*!|>'\"#%@ \n\t]{0,12}") {
        for name in ["debian-md5.yml", "json-like.yml", "block-anchors.yml"] {
            let mut file = std::fs::read_to_string(testdata().join("good").join(name)).unwrap();
            let start = at.min(file.len());
            let end = (at + length).min(file.len());
            file.replace_range(start..end, &text);
            let variables = env(&[("MATRIARCH_CONFIGURATION", &file)]);
            if let Err(problems) = load(Path::new("/nowhere"), &variables) {
                proptest::prop_assert!(!problems.is_empty());
            }
        }
    }
}

#[test]
fn files_of_a_directory_are_merged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let base = std::fs::read_to_string(testdata().join("base.yml")).unwrap();
    std::fs::write(dir.path().join("10-base.yml"), base).unwrap();
    std::fs::write(
        dir.path().join("20-own.yaml"),
        "name: own\npostgresql:\n  database: app\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("notes.txt"), "name: no\n").unwrap();
    let config = load(dir.path(), &home()).unwrap().config;
    assert_eq!(config.name.as_str(), "own");
    let postgresql = config.postgresql.unwrap();
    assert_eq!(postgresql.database, "app");
    assert_eq!(postgresql.listen.port, 5432);
}

#[test]
fn an_empty_path_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let base = std::fs::read_to_string(testdata().join("base.yml")).unwrap();
    std::fs::write(dir.path().join("1.yml"), base).unwrap();
    let empty = "postgresql: {bin_dir: '', config_dir: ' ', pgpass: ''}\nrestapi: {certfile: '', cafile: ''}\nlog: {dir: ''}\n";
    std::fs::write(dir.path().join("2.yml"), empty).unwrap();
    let config = load(dir.path(), &home()).unwrap().config;
    let postgresql = config.postgresql.unwrap();
    assert_eq!(
        (postgresql.bin_dir, config.restapi.certfile, config.log.dir),
        (None, None, None)
    );
    assert_eq!(postgresql.config_dir, postgresql.data_dir);
}

#[test]
fn the_configurations_we_ship_are_valid_and_agree() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/three-nodes");
    let load = |name: &str| load(&configs.join(name), &home()).unwrap();
    let all = [load("node1.yml"), load("node2.yml"), load("node3.yml")];
    for loaded in &all {
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let notes = notes(&loaded.config);
        assert!(
            notes.len() == 1 && notes[0].starts_with("a commit is acknowledged"),
            "{notes:?}"
        );
        assert_eq!(loaded.config.bootstrap, all[0].config.bootstrap);
        for other in &all {
            let address = &other.config.raft.self_addr;
            let partner = loaded.config.raft.partner_addrs.contains(address);
            assert_eq!(partner, other.config.name != loaded.config.name);
        }
    }
}

mod effective_settings {
    use super::*;

    fn merged(dynamic: &str, local: &str) -> Effective {
        let dir = tempfile::tempdir().unwrap();
        let base = std::fs::read_to_string(testdata().join("base.yml")).unwrap();
        std::fs::write(dir.path().join("1.yml"), base).unwrap();
        std::fs::write(dir.path().join("2.yml"), format!("postgresql: {local}\n")).unwrap();
        let config = load(dir.path(), &home()).unwrap().config;
        effective(
            &config.postgresql.unwrap(),
            &config.scope,
            &settings(dynamic).unwrap(),
            15,
        )
    }

    #[test]
    fn the_command_line_has_patronis_order_and_defaults() {
        let line: Vec<String> = merged(
            r#"{"postgresql": {"parameters": {"max_connections": 101}}}"#,
            "{}",
        )
        .command_line
        .iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
        assert_eq!(
            line.join(" "),
            "--listen_addresses=127.0.0.1 --port=5432 --cluster_name=herd --wal_level=replica --hot_standby=on \
             --max_connections=101 --max_wal_senders=10 --max_prepared_transactions=0 \
             --max_locks_per_transaction=64 --track_commit_timestamp=off --max_replication_slots=10 \
             --max_worker_processes=8 --wal_log_hints=on"
        );
    }

    #[test]
    fn controlled_values_come_from_the_cluster_and_keep_their_bounds() {
        let found = merged(
            r#"{"postgresql": {"parameters": {"wal_level": "hot_standby", "max_wal_senders": 2, "hot_standby": "off",
                "max_replication_slots": "20", "wal_keep_segments": 10, "port": 1, "restart_after_crash": true}}}"#,
            "{parameters: {max_connections: 500}}",
        );
        let value = |name: &str| found.parameters.get(name).map(String::as_str);
        assert_eq!(value("wal_level"), Some("replica"));
        assert_eq!(value("max_wal_senders"), Some("10"));
        assert_eq!(value("hot_standby"), Some("on"));
        assert_eq!(value("max_replication_slots"), Some("20"));
        assert_eq!(value("max_connections"), Some("100"));
        assert_eq!(value("wal_keep_size"), Some("160MB"));
        assert_eq!(value("wal_keep_segments"), None);
        assert_eq!(value("port"), Some("5432"));
        assert_eq!(value("restart_after_crash"), Some("off"));
        assert_eq!(value("wal_retrieve_retry_interval"), Some("100ms"));
    }

    #[test]
    fn local_overrules_dynamic() {
        let found = merged(
            r#"{"postgresql": {"use_pg_rewind": true, "pg_hba": ["a"], "recovery_conf": {"restore_command": "a", "recovery_target": "b"},
                "parameters": {"work_mem": "1MB", "jit": false, "wal_retrieve_retry_interval": "2s", "transaction_timeout": 1}}}"#,
            "{use_pg_rewind: false, pg_hba: [b], parameters: {work_mem: 2MB}, recovery_conf: {archive_cleanup_command: c}}",
        );
        assert!(!found.use_pg_rewind);
        assert_eq!(found.pg_hba, Some(vec!["b".to_owned()]));
        assert_eq!(found.parameters["work_mem"], "2MB");
        assert_eq!(found.parameters["jit"], "off");
        assert_eq!(found.parameters["wal_retrieve_retry_interval"], "2s");
        assert_eq!(found.dropped, ["transaction_timeout"]);
        assert_eq!(
            found.recovery.keys().collect::<Vec<_>>(),
            ["archive_cleanup_command", "restore_command"]
        );
    }

    #[test]
    fn the_names_of_a_synchronous_mode_are_ours() {
        let names = |mode: &str| {
            let dynamic = format!(
                r#"{{"synchronous_mode": "{mode}", "postgresql": {{"parameters": {{"synchronous_standby_names": "*"}}}}}}"#
            );
            merged(&dynamic, "{}")
                .parameters
                .remove("synchronous_standby_names")
        };
        assert_eq!(names("quorum"), None);
        assert_eq!(names("off").as_deref(), Some("*"));
    }

    #[test]
    fn a_file_of_the_operators_is_left_alone() {
        let found = merged("{}", "{pg_hba: [a], parameters: {hba_file: /etc/hba}}");
        assert_eq!(found.pg_hba, None);
    }
}
