//! The configuration applied to the hands: what the jobs need of PostgreSQL, in the node's own terms.

use crate::cluster::{MemberName, Settings};
use crate::config::{self, Config, Effective, PostgresConfig};
use crate::guard::{Guard, StartSpec};
use crate::postgres::{self, Postgres, ServerConf, Session, Upstream};
use std::sync::Arc;
use std::time::Duration;

/// A living guard takes a deadline within a millisecond.
const ENFORCED_WITHIN: Duration = Duration::from_millis(500);

/// Everything that touches the local PostgreSQL.
#[derive(Clone)]
pub struct Hands {
    /// Its programs and files.
    pub postgres: Postgres,
    /// Its SQL.
    pub session: Session,
    /// Its process.
    pub guard: Guard,
    config: Arc<Config>,
    section: Arc<PostgresConfig>,
}

impl Hands {
    /// Checks programs, version and ownership; touches nothing.
    pub fn check(config: &Config, section: &PostgresConfig) -> Result<(), postgres::PostgresError> {
        Postgres::new(setup(config, section)).map(|_| ())
    }

    /// Checks the same again and joins it with the guard.
    pub fn new(
        config: Arc<Config>,
        section: Arc<PostgresConfig>,
        guard: Guard,
    ) -> Result<Self, postgres::PostgresError> {
        let postgres = Postgres::new(setup(&config, &section))?;
        let session = Session::new(&postgres);
        Ok(Self {
            postgres,
            session,
            guard,
            config,
            section,
        })
    }

    /// Merges the settings as they hold on this node.
    pub fn effective(&self, settings: &Settings) -> Effective {
        let major = self.postgres.version().major;
        config::effective(&self.section, &self.config.scope, settings, major)
    }

    /// Writes PostgreSQL's configuration files.
    pub async fn configure(&self, settings: &Settings, upstream: Option<Upstream>) -> Result<(), String> {
        self.write_conf(settings, upstream).await
    }

    /// The same for a new database cluster: `bootstrap.pg_hba` is added to what initdb wrote, as Patroni does.
    pub async fn configure_first(&self, settings: &Settings) -> Result<(), String> {
        self.configure(settings, None).await?;
        let replaced = self.effective(settings).pg_hba.is_some();
        if !replaced && !self.config.bootstrap.pg_hba.is_empty() {
            let lines = self.config.bootstrap.pg_hba.clone();
            self.postgres.append_hba(&lines).map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    async fn write_conf(&self, settings: &Settings, upstream: Option<Upstream>) -> Result<(), String> {
        let effective = self.effective(settings);
        for name in &effective.dropped {
            tracing::warn!(
                "parameter {name} is unknown to PostgreSQL {} and left out",
                self.postgres.version().major
            );
        }
        let conf = ServerConf {
            parameters: effective.parameters,
            recovery: effective.recovery,
            hba: effective.pg_hba,
            ident: effective.pg_ident,
            upstream,
        };
        self.postgres
            .write_conf(&conf)
            .await
            .map(|_| ())
            .map_err(|why| why.to_string())
    }

    /// Starts the postmaster; what it is depends on the signal files.
    pub async fn start(
        &self,
        settings: &Settings,
        epoch: Option<crate::cluster::Epoch>,
    ) -> Result<i32, String> {
        self.postgres.await_reaped().await;
        let effective = self.effective(settings);
        let spec = self.postgres.start_spec(&effective.command_line);
        let spec = StartSpec {
            program: spec.program,
            args: spec.args,
            env: spec.env,
            data_dir: spec.data_dir,
            user: spec.user,
            epoch,
        };
        self.guard.start(spec).await.map_err(|why| why.to_string())
    }

    /// Waits until the guard itself says that it enforces the deadline of `epoch`: nothing may be writable before.
    pub async fn enforced(&self, epoch: crate::cluster::Epoch) -> Result<(), String> {
        let mut watch = self.guard.watch();
        let armed = watch.wait_for(|state| state.armed.is_some_and(|(of, _)| of == epoch));
        match tokio::time::timeout(ENFORCED_WITHIN, armed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("the guard did not take the deadline in time".to_owned()),
        }
    }

    /// Whether every process of the data directory is gone within `patience`.
    pub async fn gone_within(&self, patience: Duration) -> bool {
        let mut watch = self.guard.watch();
        let gone = watch.wait_for(|state| state.postmaster.is_none() && state.clean);
        tokio::time::timeout(patience, gone)
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    /// Creates the database cluster.
    pub async fn initdb(&self) -> Result<(), String> {
        let options: Vec<String> = self.config.bootstrap.initdb.iter().map(long_option).collect();
        self.postgres
            .initdb(&options)
            .await
            .map(|_| ())
            .map_err(|why| why.to_string())
    }

    /// Creates the roles we use and, in a new database cluster, the users that were asked for.
    pub async fn create_roles(&self, new: bool) -> Result<(), String> {
        let users: Vec<postgres::NewUser> = if new {
            let user = |user: &config::BootstrapUser| postgres::NewUser {
                name: user.name.clone(),
                password: user.password.as_ref().map(|secret| secret.reveal().to_owned()),
                options: user.options.clone(),
            };
            self.config.bootstrap.users.iter().map(user).collect()
        } else {
            Vec::new()
        };
        self.postgres
            .create_roles(&self.session, &users)
            .await
            .map_err(|why| why.to_string())
    }

    /// Where a standby finds its primary, and the slot kept for it there.
    pub fn upstream(
        &self,
        endpoint: &crate::cluster::Endpoint,
        me: &MemberName,
        settings: &Settings,
    ) -> Upstream {
        let slot = settings
            .postgresql
            .use_slots
            .then(|| postgres::slot_name(me.as_str()));
        Upstream {
            host: endpoint.host.clone(),
            port: endpoint.port,
            slot,
        }
    }
}

fn long_option(option: &config::CommandOption) -> String {
    match &option.value {
        Some(value) => format!("--{}={value}", option.name),
        None => format!("--{}", option.name),
    }
}

fn login(login: &config::Login) -> postgres::Login {
    let mut options = login.options.clone();
    if let Some(mode) = &login.sslmode {
        options.insert("sslmode".to_owned(), mode.clone());
    }
    postgres::Login {
        username: login.username.clone(),
        password: login.password.as_ref().map(|secret| secret.reveal().to_owned()),
        options,
    }
}

fn setup(config: &Config, section: &PostgresConfig) -> postgres::Setup {
    let socket = section
        .parameters
        .get("unix_socket_directories")
        .and_then(|dirs| dirs.split(',').map(str::trim).find(|dir| dir.starts_with('/')))
        .map(Into::into);
    postgres::Setup {
        data_dir: section.data_dir.clone(),
        bin_dir: section.bin_dir.clone(),
        listen_addresses: section.listen.addresses.clone(),
        port: section.listen.port,
        unix_socket_dir: socket,
        database: section.database.clone(),
        pgpass: section.pgpass.clone(),
        superuser: login(&section.auth.superuser),
        replication: login(&section.auth.replication),
        rewind: login(&section.auth.rewind),
        name: config.name.as_str().to_owned(),
        scope: config.scope.clone(),
        basebackup_options: section.basebackup.iter().map(long_option).collect(),
        rewind_options: section.rewind.iter().map(long_option).collect(),
    }
}
