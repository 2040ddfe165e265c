//! The hands on a real PostgreSQL: create, copy, stream, crash, promote past a reserved timeline, rewind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use matriarch::cluster::{Endpoint, Lsn, MemberName, Timeline};
use matriarch::postgres::{DataDir, Login, Postgres, Probe, ServerConf, Session, Setup, Upstream, slot_name};
use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);

/// One data directory and the server that may run on it.
struct Node {
    setup: Setup,
    postgres: Postgres,
    session: Session,
    endpoint: Endpoint,
    _addresses: Addresses,
    data_dir: std::path::PathBuf,
    child: Option<Child>,
    parameters: BTreeMap<String, String>,
}

fn login(name: &str, password: &str) -> Login {
    Login {
        username: name.to_owned(),
        password: Some(password.to_owned()),
        key_password: None,
        options: BTreeMap::new(),
    }
}

impl Node {
    fn new(dir: &Path, name: &str) -> Self {
        let (addresses, port) = (Addresses::take(1), POSTGRES_PORT);
        let host = addresses.ip(0).to_string();
        let setup = Setup {
            data_dir: dir.join(name),
            config_dir: dir.join(name),
            custom_conf: None,
            bin_dir: None,
            bin_names: BTreeMap::new(),
            listen_addresses: host.clone(),
            port,
            unix_socket_dir: None,
            database: "postgres".to_owned(),
            pgpass: dir.join(format!("{name}.pgpass")),
            superuser: login("postgres", "sup'er:\\ secret"),
            replication: login("replicator", "rep:\\'l"),
            rewind: login("re winder", "re\"wind"),
            name: name.to_owned(),
            scope: "it's a \\ test".to_owned(),
            basebackup_options: Vec::new(),
            rewind_options: Vec::new(),
        };
        let data_dir = setup.data_dir.clone();
        let postgres = Postgres::new(setup.clone()).unwrap();
        let session = Session::new(&postgres);
        let parameters = [
            ("unix_socket_directories", ""),
            ("wal_log_hints", "on"),
            ("max_connections", "30"),
            ("max_wal_senders", "5"),
            ("shared_buffers", "16MB"),
            ("fsync", "off"),
            ("wal_retrieve_retry_interval", "100ms"),
            ("wal_keep_size", "128MB"),
            ("search_path", "\"$user\", public, \"o'neil \\ x\""),
        ];
        Self {
            setup,
            session,
            postgres,
            endpoint: Endpoint { host, port },
            _addresses: addresses,
            data_dir,
            child: None,
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    async fn configure(&self, upstream: Option<Upstream>) -> bool {
        let hba = [
            "local all all scram-sha-256",
            "host all all 127.0.0.0/8 scram-sha-256",
        ];
        let hba = hba
            .into_iter()
            .chain(["host replication replicator 127.0.0.0/8 scram-sha-256"]);
        let conf = ServerConf {
            parameters: self.parameters.clone(),
            hba: Some(hba.map(str::to_owned).collect()),
            upstream,
            ..ServerConf::default()
        };
        self.postgres.write_conf(&conf).await.unwrap()
    }

    fn upstream(&self, me: &str) -> Upstream {
        Upstream {
            host: self.endpoint.host.clone(),
            port: self.endpoint.port,
            slot: Some(slot_name(me)),
            alias: None,
        }
    }

    fn start(&mut self) {
        let spec = self
            .postgres
            .start_spec(&[("max_connections".to_owned(), "30".to_owned())]);
        let mut command = Command::new(spec.program);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(format!("{}.log", self.data_dir.display()))
            .unwrap();
        command
            .args(spec.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/");
        if let Some((uid, gid)) = spec.user {
            command.uid(uid).gid(gid);
        }
        self.child = Some(command.spawn().unwrap());
    }

    async fn until(&self, what: &str, ready: impl Fn(&Probe) -> bool) -> Probe {
        let wait = async {
            loop {
                if let Ok(probe) = self.session.probe().await
                    && ready(&probe)
                {
                    return probe;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(probe) => probe,
            Err(_) => {
                let log = std::fs::read_to_string(format!("{}.log", self.data_dir.display()));
                panic!(
                    "no {what}; last probe {:?}; log:\n{}",
                    self.session.probe().await,
                    log.unwrap_or_default()
                )
            }
        }
    }

    /// A probe's answer; a machine that was busy for a second is asked again.
    async fn probed(&self) -> Probe {
        self.until("answer", |_| true).await
    }

    async fn sql(&self, sql: &str) -> String {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.endpoint.host)
            .port(self.endpoint.port)
            .user("postgres")
            .password("sup'er:\\ secret");
        let (client, connection) = config
            .dbname("postgres")
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        let task = tokio::spawn(connection);
        let rows = client.simple_query(sql).await.unwrap_or_default();
        drop(client);
        task.abort();
        let mut text = String::new();
        for row in rows {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                text.push_str(row.get(0).unwrap_or_default());
            }
        }
        text
    }

    /// A fast stop.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL to the postmaster and to every process that works in the data directory.
    fn crash(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = child.kill();
        let _ = child.wait();
        loop {
            let mut alive = false;
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let Some(pid) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<i32>().ok())
                else {
                    continue;
                };
                if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.data_dir) {
                    alive = true;
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            if !alive {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crash();
        matriarch::postgres::free_memory_below(&self.data_dir);
    }
}

fn room() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn primary(dir: &Path) -> Node {
    let mut node = Node::new(dir, "a-1");
    assert_eq!(node.postgres.inspect().unwrap(), DataDir::Absent);
    assert!(!node.postgres.has_marker());
    let options = ["--data-checksums", "--no-sync", "--encoding=UTF8"].map(str::to_owned);
    let system_id = node.postgres.initdb(&options).await.unwrap();
    assert!(node.configure(None).await);
    assert!(!node.configure(None).await, "nothing changed the second time");
    assert!(node.postgres.has_marker());
    node.start();
    let probe = node.until("primary", |probe| !probe.in_recovery).await;
    assert_eq!(
        (probe.system_id, probe.timeline),
        (Some(system_id), Some(Timeline(1)))
    );
    for _ in 0..2 {
        node.postgres.create_roles(&node.session, true).await.unwrap();
    }
    node
}

async fn standby(dir: &Path, name: &str, of: &Node) -> Node {
    let mut node = Node::new(dir, name);
    of.session.ensure_slots(&[MemberName::from(name)]).await.unwrap();
    of.session.ensure_slots(&[MemberName::from(name)]).await.unwrap();
    let (progress, mut seen) = watch::channel(None);
    let watcher = tokio::spawn(async move {
        let mut last = None;
        while seen.changed().await.is_ok() {
            last = seen.borrow_and_update().clone().or(last);
        }
        last
    });
    // A copy that is given up leaves nothing that starts, and is no hindrance to the next one. It is too slow to end.
    let mut slow = node.setup.clone();
    slow.basebackup_options = vec!["--max-rate=1M".to_owned()];
    let slow = Postgres::new(slow).unwrap();
    let given_up = slow.base_backup(&of.endpoint, watch::channel(None).0);
    assert!(
        tokio::time::timeout(Duration::from_millis(80), given_up)
            .await
            .is_err()
    );
    assert_eq!(node.postgres.inspect().unwrap(), DataDir::Absent);
    node.postgres.base_backup(&of.endpoint, progress).await.unwrap();
    let end = node.postgres.wal_end(None).await.unwrap().unwrap();
    assert_eq!(end.timeline, Timeline(1));
    assert!(watcher.await.unwrap().is_some_and(|last| last.ends_with('%')));
    node.postgres.set_standby_signal(true).unwrap();
    node.configure(Some(of.upstream(name))).await;
    node.start();
    node.until("stream", Probe::is_streaming).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn quoted_values_reach_the_server() {
    let dir = room();
    let mut node = primary(dir.path()).await;
    assert_eq!(node.sql("SHOW cluster_name").await, "it's a \\ test");
    assert_eq!(
        node.sql("SHOW search_path").await,
        "\"$user\", public, \"o'neil \\ x\""
    );
    assert_eq!(node.sql("SHOW max_connections").await, "30");
    node.parameters
        .insert("shared_buffers".to_owned(), "24MB".to_owned());
    assert!(node.configure(None).await);
    node.session.reload().await.unwrap();
    let probe = node
        .until("pending restart", |probe| !probe.pending_restart.is_empty())
        .await;
    let expected = ("shared_buffers".to_owned(), "16MB".to_owned(), "24MB".to_owned());
    assert_eq!(probe.pending_restart, [expected]);
    let log = std::fs::read_to_string(format!("{}.log", node.data_dir.display())).unwrap();
    assert!(!log.contains("secret"));
    // It would log what runs now and then.
    let writer = processes::of(&node.data_dir)
        .into_iter()
        .find(|process| process.title().contains("background writer"));
    processes::freeze(writer.unwrap().pid);
    node.session.checkpoint().await.unwrap();
    let end = node.probed().await.location;
    node.crash();
    let found = node.postgres.wal_end(end).await.unwrap().unwrap();
    assert_eq!(Some(found.lsn), end);
    assert_eq!(node.postgres.wal_end(None).await.unwrap(), Some(found));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life() {
    let dir = room();
    let mut a = primary(dir.path()).await;
    let mut b = standby(dir.path(), "b.2", &a).await;
    let walsender = a
        .until(
            "walsender",
            |probe| matches!(&probe.walsenders[..], [one] if one.state == "streaming"),
        )
        .await
        .walsenders
        .remove(0);
    assert_eq!(walsender.application_name, "b.2");

    // The primary dies under load.
    a.sql("CREATE TABLE t (x int, y text)").await;
    let load = tokio::spawn({
        let sql = "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 300000) i";
        let mut config = tokio_postgres::Config::new();
        config
            .host(&a.endpoint.host)
            .port(a.endpoint.port)
            .user("postgres")
            .password("sup'er:\\ secret")
            .dbname("postgres");
        async move {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let _ = client.batch_execute(sql).await;
            let _ = connection.await;
        }
    });
    let begun = a.probed().await.location.unwrap();
    a.until("load", |probe| probe.location > Some(Lsn(begun.0 + (20 << 20))))
        .await;
    // What the standby will never see: a fast one would have everything otherwise, and nothing would be left to rewind.
    let sender = a.sql("SELECT pid FROM pg_stat_replication").await;
    kill(Pid::from_raw(sender.parse().unwrap()), Signal::SIGSTOP).unwrap();
    a.sql("CREATE TABLE only_a AS SELECT generate_series(1, 20000)")
        .await;
    let hint = a.probed().await.location;
    a.crash();
    load.await.unwrap();
    let started = std::time::Duration::from_nanos(matriarch::clock::boot_ns());
    let end_a = a.postgres.wal_end(hint).await.unwrap().unwrap();
    let took = std::time::Duration::from_nanos(matriarch::clock::boot_ns()) - started;
    println!(
        "end of the crashed primary {} read from hint {:?} in {took:?}",
        end_a.lsn,
        hint.map(|h| h.to_string())
    );
    assert_eq!(end_a.timeline, Timeline(1));
    // What is on disk may end inside a record, but a whole record is never far.
    assert!(hint.is_some_and(|hint| end_a.lsn.behind(hint) < 16384));
    assert_eq!(a.postgres.wal_end(None).await.unwrap(), Some(end_a));

    // The standby stops receiving; what it received is what its disk says.
    let received = b
        .until("end of the stream", |probe| probe.wal_receiver.is_none())
        .await
        .received
        .unwrap();
    b.until("replay", |probe| {
        probe.replayed >= probe.received.map(|lsn| Lsn(lsn.0 - 16384))
    })
    .await;
    b.crash();
    let end_b = b.postgres.wal_end(Some(received)).await.unwrap().unwrap();
    println!(
        "standby received {received}, its last whole record ends at {}",
        end_b.lsn
    );
    assert!(end_b.lsn <= received && end_b.lsn.behind(received) < 16384);
    assert!(end_b.lsn <= end_a.lsn);
    b.start();
    let again = b
        .until("restart", |probe| probe.replayed == Some(end_b.lsn))
        .await;
    assert!(again.in_recovery);

    // It is promoted past the reserved timeline 2.
    b.postgres.reserve_timelines(Timeline(1), Timeline(3)).unwrap();
    b.session.promote().await.unwrap();
    let risen = b.until("promotion", |probe| !probe.in_recovery).await;
    assert_eq!(risen.timeline, Some(Timeline(3)));
    let fork = b.postgres.fork_of(Timeline(3)).unwrap();
    assert_eq!(fork.parent, Timeline(1));
    assert!(fork.switch <= end_b.lsn);
    b.sql("CREATE TABLE only_b (x int)").await;
    let at = b.probed().await.location.unwrap();
    b.crash();
    let end = b.postgres.wal_end(None).await.unwrap().unwrap();
    assert_eq!((end.timeline, end.lsn >= at), (Timeline(3), true));
    b.start();
    b.until("recovery", |probe| !probe.in_recovery).await;
    b.session.ensure_slots(&[MemberName::from("a-1")]).await.unwrap();
    b.session.checkpoint().await.unwrap();

    // The old primary has records that the new one never saw.
    assert!(end_a.lsn > fork.switch, "the load left nothing behind to rewind");
    let nowhere = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 1,
    };
    let refused = a.postgres.rewind(&nowhere).await.unwrap_err().to_string();
    assert!(
        refused.contains("pg_rewind") && !refused.contains("secret"),
        "{refused}"
    );
    assert!(matches!(a.postgres.inspect().unwrap(), DataDir::Present(_)));
    a.postgres.rewind(&b.endpoint).await.unwrap();
    let end = a.postgres.wal_end(hint).await.unwrap().unwrap();
    assert_eq!((end.timeline, end.lsn > fork.switch), (Timeline(3), true));
    a.configure(Some(b.upstream("a-1"))).await;
    a.start();
    a.until("stream of the rewound", |probe| {
        probe.is_streaming() && probe.timeline == Some(Timeline(3))
    })
    .await;
    b.sql("INSERT INTO only_b VALUES (7)").await;
    let target = b.probed().await.location;
    a.until("replay", |probe| probe.replayed >= target).await;
    assert_eq!(a.sql("SELECT x FROM only_b").await, "7");

    // A clean stop of the primary reaches the standby whole.
    let hint = b.probed().await.location;
    b.stop();
    let end = b.postgres.wal_end(hint).await.unwrap().unwrap();
    let received = a
        .until("last record", |probe| probe.received >= Some(end.lsn))
        .await
        .received;
    assert_eq!(received, Some(end.lsn));
    a.stop();
    assert_eq!(a.postgres.wal_end(received).await.unwrap(), Some(end));

    // Old data is moved aside and removed only when asked; a rewind that never ended is no data.
    let rewinding = dir.path().join("a-1.rewinding");
    std::fs::rename(&a.data_dir, &rewinding).unwrap();
    assert!(matches!(a.postgres.inspect().unwrap(), DataDir::Incomplete(_)));
    assert!(a.postgres.has_marker());
    let aside = a.postgres.move_aside().unwrap().unwrap();
    assert_eq!(a.postgres.inspect().unwrap(), DataDir::Absent);
    assert_eq!(a.postgres.move_aside().unwrap().as_deref(), Some(aside.as_path()));
    assert!(a.postgres.discard_aside(dir.path()).is_err());
    a.postgres.discard_aside(&aside).unwrap();
    assert_eq!(a.postgres.move_aside().unwrap(), None);
}
