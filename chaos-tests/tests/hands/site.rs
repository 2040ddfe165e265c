//! Servers without a guard or a daemon, in a directory of their own.

use matriarch::clock::boot_ns;
use matriarch::cluster::Endpoint;
use matriarch::postgres::{Login, Postgres, PostgresError, Probe, ServerConf, Session, Setup, Upstream};
use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::herd::postgres_ids;
use matriarch_chaos::processes;
use nix::unistd::chown;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::watch;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);
/// Everybody's password, with what a password file must escape.
pub(crate) const PASSWORD: &str = r"it's:a\secret";

/// A directory, and addresses for the servers in it. Dropping it ends and removes everything.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    addresses: Addresses,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hands-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        give(dir.path());
        Self {
            dir,
            addresses: Addresses::take(3),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What the node with this index is told.
    pub(crate) fn setup(&self, index: usize) -> Setup {
        let socket = self.path().join(format!("socket{index}"));
        std::fs::create_dir_all(&socket).unwrap();
        give(&socket);
        let login = |username: &str| Login {
            username: username.to_owned(),
            password: Some(PASSWORD.to_owned()),
            key_password: None,
            options: BTreeMap::new(),
        };
        Setup {
            data_dir: self.path().join(format!("data{index}")),
            config_dir: self.path().join(format!("data{index}")),
            custom_conf: None,
            bin_dir: None,
            bin_names: BTreeMap::new(),
            listen_addresses: self.addresses.ip(index).to_string(),
            port: POSTGRES_PORT,
            unix_socket_dir: Some(socket),
            database: "postgres".to_owned(),
            pgpass: self.path().join(format!("pgpass{index}")),
            superuser: login("postgres"),
            replication: login("replicator"),
            rewind: login("rewinder"),
            name: format!("node-{index}"),
            scope: "hands".to_owned(),
            basebackup_options: Vec::new(),
            rewind_options: Vec::new(),
        }
    }

    /// A node without data.
    pub(crate) fn server(&self, index: usize) -> Server {
        let setup = self.setup(index);
        let postgres = Postgres::new(setup.clone()).unwrap();
        let session = Session::new(&postgres);
        Server {
            postgres,
            session,
            setup,
            child: None,
        }
    }

    /// A primary with its roles.
    pub(crate) async fn primary(&self, index: usize) -> Server {
        let mut server = self.server(index);
        server
            .postgres
            .initdb(&["--data-checksums".to_owned()])
            .await
            .unwrap();
        server.configure(None).await;
        server.start().await;
        server.postgres.create_roles(&server.session, true).await.unwrap();
        server
    }

    /// A standby of `primary`, streaming.
    pub(crate) async fn standby(&self, index: usize, primary: &Server) -> Server {
        let mut server = self.server(index);
        server.copy(primary).await.unwrap();
        server.follow(primary).await;
        server
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        processes::kill_all_of(self.dir.path());
        matriarch::postgres::free_memory_below(self.dir.path());
    }
}

/// One node's hands and the server they hold.
pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    pub(crate) session: Session,
    pub(crate) setup: Setup,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn data_dir(&self) -> &Path {
        &self.setup.data_dir
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.setup.listen_addresses.clone(),
            port: self.setup.port,
        }
    }

    /// What its configuration files say by default.
    pub(crate) fn conf(&self, primary: Option<&Server>) -> ServerConf {
        let socket = self.setup.unix_socket_dir.as_ref().unwrap().display().to_string();
        Self::conf_with(&socket, primary)
    }

    /// The same for a socket in that directory.
    pub(crate) fn conf_with(socket: &str, primary: Option<&Server>) -> ServerConf {
        let parameters = [
            ("unix_socket_directories", socket),
            ("shared_buffers", "16MB"),
            ("fsync", "off"),
            ("wal_keep_size", "512MB"),
            ("restart_after_crash", "off"),
            ("wal_retrieve_retry_interval", "100ms"),
        ];
        let hba = [
            "local all all scram-sha-256",
            "host all all 127.0.0.0/8 scram-sha-256",
            "host replication all 127.0.0.0/8 scram-sha-256",
        ];
        ServerConf {
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            hba: Some(hba.map(str::to_owned).into()),
            upstream: primary.map(|primary| Upstream {
                host: primary.setup.listen_addresses.clone(),
                port: primary.setup.port,
                slot: None,
                alias: None,
            }),
            ..ServerConf::default()
        }
    }

    pub(crate) async fn configure(&self, primary: Option<&Server>) {
        self.postgres.write_conf(&self.conf(primary)).await.unwrap();
    }

    /// Starts the postmaster as the guard does, and waits until it answers.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.until("it answers", 60, |_| true).await;
    }

    /// Starts the postmaster.
    pub(crate) fn spawn(&mut self) {
        let controlled = [
            ("listen_addresses", self.setup.listen_addresses.clone()),
            ("port", self.setup.port.to_string()),
            ("wal_log_hints", "on".to_owned()),
        ];
        let spec = self
            .postgres
            .start_spec(&controlled.map(|(name, value)| (name.to_owned(), value)));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new(spec.program);
        command
            .args(spec.args)
            .envs(spec.env)
            .current_dir("/")
            .stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some((uid, gid)) = spec.user {
            command.uid(uid).gid(gid);
        }
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.setup.data_dir.with_extension("log")
    }

    /// Copies the data of `primary`.
    pub(crate) async fn copy(&self, primary: &Server) -> Result<(), PostgresError> {
        let (progress, _) = watch::channel(None);
        self.postgres.base_backup(&primary.endpoint(), progress).await
    }

    /// Starts as a standby of `primary`, and waits for the stream.
    pub(crate) async fn follow(&mut self, primary: &Server) {
        self.configure(Some(primary)).await;
        self.postgres.set_standby_signal(true).unwrap();
        self.start().await;
        self.until("it streams", 20, Probe::is_streaming).await;
    }

    /// Kills every process of the data directory at once.
    pub(crate) fn kill(&mut self) {
        assert!(processes::kill_all_of(self.data_dir()) > 0);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Stops cleanly.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        processes::send(
            i32::try_from(child.id()).unwrap(),
            nix::sys::signal::Signal::SIGINT,
        );
        until("a fast stop", 30, async || child.try_wait().unwrap().is_some()).await;
    }

    /// Waits until its postmaster has ended by itself.
    pub(crate) async fn ended(&mut self, what: &str) {
        let mut child = self.child.take().unwrap();
        until(what, 30, async || child.try_wait().unwrap().is_some()).await;
    }

    /// Probes until the answer is as wished.
    pub(crate) async fn until(&self, what: &str, seconds: u64, ready: impl Fn(&Probe) -> bool) -> Probe {
        let end = boot_ns() + seconds * 1_000_000_000;
        loop {
            let probe = self.session.probe().await;
            match probe {
                Ok(probe) if ready(&probe) => return probe,
                _ if boot_ns() > end => {
                    let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                    panic!(
                        "{}: waited in vain until {what}: {probe:?}\n{log}",
                        self.setup.name
                    )
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// A probe's answer; a machine that was busy for a second is asked again.
    pub(crate) async fn probed(&self) -> Probe {
        self.until("it answers", 20, |_| true).await
    }

    /// A client over TCP.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        self.try_client().await.unwrap()
    }

    pub(crate) async fn try_client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.setup.listen_addresses)
            .port(self.setup.port)
            .user("postgres")
            .dbname("postgres");
        config.password(PASSWORD);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) async fn sql(&self, text: &str) {
        self.client().await.batch_execute(text).await.unwrap();
    }

    pub(crate) async fn number(&self, text: &str) -> i64 {
        self.client().await.query_one(text, &[]).await.unwrap().get(0)
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, seconds: u64, mut ready: impl AsyncFnMut() -> bool) {
    let end = boot_ns() + seconds * 1_000_000_000;
    while !ready().await {
        assert!(boot_ns() < end, "waited in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Milliseconds that something takes, and its result.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (f64, T) {
    let from = boot_ns();
    let result = work.await;
    ((boot_ns() - from) as f64 / 1e6, result)
}

/// Median of some measurements, shown.
pub(crate) fn show(what: &str, mut ms: Vec<f64>) -> f64 {
    ms.sort_by(f64::total_cmp);
    let (low, median, high) = (ms[0], ms[ms.len() / 2], ms[ms.len() - 1]);
    println!(
        "{what}: median {median:.2} ms ({low:.2} to {high:.2}), n = {}",
        ms.len()
    );
    median
}

fn give(path: &Path) {
    if let Some((uid, gid)) = postgres_ids() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}
