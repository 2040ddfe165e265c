//! What is found, chosen and written before any server runs.

use super::site::Site;
use matriarch::clock::boot_ns;
use matriarch::postgres::{DataDir, Postgres, PostgresError, ServerConf};
use matriarch_chaos::{herd::postgres_ids, plain};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the server makes of a parameter in its files.
fn understood(dir: &Path, name: &str) -> String {
    let text = plain::run("postgres", &["-D", dir.to_str().unwrap(), "-C", name]);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

#[tokio::test]
async fn settings_survive_the_quoting() {
    let site = Site::new();
    let server = site.server(0);
    server.postgres.initdb(&[]).await.unwrap();
    let dir = server.data_dir();
    // As ALTER SYSTEM or pg_basebackup -R would leave it.
    let auto = dir.join("postgresql.auto.conf");
    std::fs::write(
        &auto,
        "work_mem = '5MB'\nprimary_conninfo = 'host=elsewhere'\nrestore_command='x'\n",
    )
    .unwrap();
    let nasty = [
        ("log_line_prefix", "it's \\ '' \\n %m # \"no comment\" = é "),
        (
            "archive_command",
            "test ! -f '/a b/%f' && cp \"%p\" \\\\server\\%f # x\ntrue",
        ),
        ("my_extension.setting", "'; DROP TABLE x; --"),
        ("search_path", "\"$user\", public"),
    ];
    let mut conf = server.conf(None);
    conf.parameters
        .extend(nasty.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(server.postgres.write_conf(&conf).await.unwrap());
    for (name, value) in nasty {
        assert_eq!(understood(dir, name), value, "{name}");
    }
    assert_eq!(
        understood(dir, "work_mem"),
        "5120",
        "what ALTER SYSTEM set otherwise stays"
    );
    assert_eq!(understood(dir, "primary_conninfo"), "");
    assert_eq!(understood(dir, "restore_command"), "");
    assert_eq!(understood(dir, "wal_retrieve_retry_interval"), "100");
    assert!(
        std::fs::read_to_string(dir.join("postgresql.conf"))
            .unwrap()
            .contains("include 'postgresql.base.conf'")
    );
    assert!(
        !server.postgres.write_conf(&conf).await.unwrap(),
        "nothing changed"
    );
    let owner = std::fs::metadata(dir).unwrap().uid();
    for file in [
        "postgresql.conf",
        "postgresql.base.conf",
        "pg_hba.conf",
        "matriarch.json",
    ] {
        assert_eq!(std::fs::metadata(dir.join(file)).unwrap().uid(), owner, "{file}");
    }
}

#[tokio::test]
async fn a_name_that_would_be_more_than_a_name_is_refused() {
    let site = Site::new();
    let server = site.server(0);
    server.postgres.initdb(&[]).await.unwrap();
    let before = std::fs::read_to_string(server.data_dir().join("postgresql.conf")).unwrap();
    let parameters = BTreeMap::from([("a = 'b'\nc".to_owned(), "x".to_owned())]);
    let conf = ServerConf {
        parameters,
        ..ServerConf::default()
    };
    assert!(matches!(
        server.postgres.write_conf(&conf).await,
        Err(PostgresError::Misconfigured(_))
    ));
    assert_eq!(
        std::fs::read_to_string(server.data_dir().join("postgresql.conf")).unwrap(),
        before
    );
}

#[test]
fn the_programs_are_a_whole_set() {
    let site = Site::new();
    let postgres = Postgres::new(site.setup(0)).unwrap();
    let dir = postgres.start_spec(&[]).program.parent().unwrap().to_owned();
    for program in [
        "initdb",
        "pg_ctl",
        "pg_basebackup",
        "pg_rewind",
        "pg_controldata",
        "pg_waldump",
    ] {
        assert!(dir.join(program).is_file(), "{program} in {}", dir.display());
    }
    let lonely = site.path().join("bin");
    std::fs::create_dir(&lonely).unwrap();
    std::os::unix::fs::symlink(dir.join("postgres"), lonely.join("postgres")).unwrap();
    let mut setup = site.setup(0);
    setup.bin_dir = Some(lonely);
    let why = Postgres::new(setup).err().unwrap().to_string();
    assert!(
        why.contains("postgresql.bin_dir") && why.contains("initdb"),
        "{why}"
    );
}

#[test]
fn programs_run_as_the_owner() {
    let Some((uid, gid)) = postgres_ids() else {
        println!("skipped: not root");
        return;
    };
    let site = Site::new();
    let postgres = Postgres::new(site.setup(0)).unwrap();
    let owner = Some((uid.as_raw(), gid.as_raw()));
    assert_eq!(
        postgres.start_spec(&[]).user,
        owner,
        "absent: the owner of the directory above"
    );
    let mut setup = site.setup(0);
    std::fs::create_dir(&setup.data_dir).unwrap();
    let why = Postgres::new(setup.clone()).err().unwrap().to_string();
    assert!(why.contains("belongs to root"), "{why}");
    setup.data_dir = "/matriarch-absent/data".into();
    assert_eq!(
        Postgres::new(setup).unwrap().start_spec(&[]).user,
        owner,
        "nothing above: user postgres"
    );
}

#[tokio::test]
async fn what_is_in_the_directory() {
    let site = Site::new();
    let server = site.server(0);
    let (postgres, dir) = (&server.postgres, server.data_dir());
    assert_eq!(postgres.inspect().unwrap(), DataDir::Absent);
    std::fs::create_dir(dir).unwrap();
    assert_eq!(postgres.inspect().unwrap(), DataDir::Empty);
    std::fs::write(dir.join("thesis.txt"), "").unwrap();
    assert!(matches!(postgres.inspect().unwrap(), DataDir::NotOurs(_)));
    std::fs::remove_dir_all(dir).unwrap();
    let id = postgres.initdb(&[]).await.unwrap();
    let DataDir::Present(control) = postgres.inspect().unwrap() else {
        panic!("a whole one")
    };
    assert_eq!((control.system_id, control.state.as_str()), (id, "shut down"));
    std::fs::remove_file(dir.join("global/pg_control")).unwrap();
    assert!(matches!(postgres.inspect().unwrap(), DataDir::Incomplete(_)));
    std::fs::write(dir.join("PG_VERSION"), "9.6\n").unwrap();
    assert!(matches!(postgres.inspect().unwrap(), DataDir::NotOurs(_)));
}

#[tokio::test]
async fn a_file_is_the_owners_from_its_first_moment() {
    let site = Site::new();
    let server = site.server(0);
    server.postgres.initdb(&[]).await.unwrap();
    let owner = std::fs::metadata(server.data_dir()).unwrap().uid();
    let path = server.data_dir().join("standby.signal");
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(meta) = std::fs::metadata(&path) {
                    assert_eq!(meta.uid(), owner);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // It has to be looked at while it comes and goes, and a busy machine may let the watcher wait.
        let (mut rounds, end) = (0, boot_ns() + 20_000_000_000);
        while rounds < 200 || seen.load(Ordering::Relaxed) == 0 && boot_ns() < end {
            server.postgres.set_standby_signal(true).unwrap();
            server.postgres.set_standby_signal(false).unwrap();
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert!(seen.load(Ordering::Relaxed) > 0, "it was never seen");
}

#[tokio::test]
async fn the_server_itself_says_which_parameters_it_refuses() {
    let site = Site::new();
    let postgres = site.server(0).postgres;
    let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let good = [
        ("work_mem", "5MB"),
        ("timezone", "UTC"),
        ("log_line_prefix", "%m no colon"),
        ("lc_messages", "C"),
        ("log_min_messages", "panic"),
        ("search_path", "\"$user\", public"),
        ("my_extension.setting", "it's"),
        ("restore_command", "cp /a/%f %p"),
    ];
    assert_eq!(postgres.vet(&given(&good)).await.unwrap(), []);
    let bad = [
        ("a b", "1"),
        ("autovacuum", "maybe"),
        ("max_connections", "-3"),
        ("timezone", "Mars"),
        ("wal_level", "low"),
        ("work_mem", "banana"),
        ("wrok_mem", "4MB"),
    ];
    let refused = postgres
        .vet(&given(&[&good[2..], &bad[..]].concat()))
        .await
        .unwrap();
    let names: Vec<&str> = refused.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, bad.map(|(name, _)| name));
    assert!(
        refused[4].why.ends_with("minimal, replica, logical"),
        "{refused:?}"
    );
}
