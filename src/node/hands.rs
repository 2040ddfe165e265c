//! The configuration applied to the hands: what the jobs need of PostgreSQL, in the node's own terms.

use crate::clock;
use crate::cluster::{MemberName, Settings, Shared};
use crate::config::{self, CommandOption, Config, Effective, PostgresConfig};
use crate::guard::{Guard, StartSpec, WatchdogState};
use crate::postgres::{self, Postgres, ServerConf, Session, Streams, Upstream};
use nix::unistd::{AccessFlags, access};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A living guard takes a deadline within a millisecond.
const ENFORCED_WITHIN: Duration = Duration::from_millis(500);

/// How often it is looked whether a standby holds up a stop.
const LOOK_AT_STREAMS: Duration = Duration::from_millis(250);

/// How long `before_stop` may hold up a clean stop.
const BEFORE_STOP: Duration = Duration::from_secs(60);
/// It may load a database.
const POST_BOOTSTRAP: Duration = Duration::from_secs(24 * 3_600);

/// What PostgreSQL's configuration shall say.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Dynamic configuration.
    pub settings: Arc<Settings>,
    /// Whom to stream from.
    pub upstream: Option<Upstream>,
    /// `synchronous_standby_names`; `None` in asynchronous mode.
    pub names: Option<String>,
}

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
    /// What holds here where the node's own file does not say it.
    shared: Shared,
    vetted: Arc<Mutex<Vetted>>,
}

/// The newest parameters that PostgreSQL's program has looked at, and those of them that it refuses.
#[derive(Default)]
struct Vetted {
    given: BTreeMap<String, String>,
    refused: Vec<String>,
}

impl Hands {
    /// Checks programs, version and ownership; touches nothing.
    pub fn check(config: &Config, section: &PostgresConfig) -> Result<Postgres, postgres::PostgresError> {
        Postgres::new(setup(config, section, &Shared::default()))
    }

    /// Checks the same again and joins it with the guard.
    pub fn new(
        config: Arc<Config>,
        section: Arc<PostgresConfig>,
        guard: Guard,
    ) -> Result<Self, postgres::PostgresError> {
        let shared = Shared::default();
        let postgres = Postgres::new(setup(&config, &section, &shared))?;
        let session = Session::new(&postgres);
        Ok(Self {
            postgres,
            session,
            guard,
            config,
            section,
            shared,
            vetted: Arc::default(),
        })
    }

    /// The same hands under a node file that was read again.
    pub fn renewed(&self, config: Arc<Config>) -> Self {
        let section = config
            .postgresql
            .clone()
            .map_or_else(|| self.section.clone(), Arc::new);
        let postgres = self.postgres.renewed(setup(&config, &section, &self.shared));
        self.session.renew(&postgres);
        Self {
            shared: self.shared.clone(),
            postgres,
            session: self.session.clone(),
            guard: self.guard.clone(),
            config,
            section,
            vetted: self.vetted.clone(),
        }
    }

    /// From now on what is shared is this.
    pub fn heed(&mut self, shared: &Shared) {
        if self.shared != *shared {
            self.shared.clone_from(shared);
            let setup = setup(&self.config, &self.section, &self.shared);
            self.postgres = self.postgres.renewed(setup);
            self.session.renew(&self.postgres);
        }
    }

    /// Merges the settings as they hold on this node.
    pub fn effective(&self, settings: &Settings) -> Effective {
        let major = self.postgres.version().major;
        config::effective(&self.section, &self.config.scope, settings, major)
    }

    /// The dynamic configuration of a cluster that is founded from the data that is there; blocking.
    pub fn founding(&self) -> String {
        let in_force = self.postgres.parameters_in_force(config::inherited_parameters());
        let kept = self.postgres.kept_by_patroni();
        let (text, why_not) = config::founding(&self.config.bootstrap.dcs, kept.as_deref(), &in_force);
        match (&kept, why_not) {
            (_, Some(why)) => tracing::warn!(
                "patroni.dynamic.json in the data directory is not used, bootstrap.dcs is: {why}"
            ),
            (Some(_), None) => {
                tracing::info!(
                    "the dynamic configuration is the one that Patroni kept in patroni.dynamic.json"
                );
            }
            (None, None) => {}
        }
        text
    }

    /// The same without what this PostgreSQL refuses: nothing that somebody wrote keeps it from starting.
    async fn sound(&self, settings: &Settings) -> Effective {
        let mut effective = self.effective(settings);
        let mut given = effective.parameters.clone();
        given.extend(effective.recovery.clone());
        let mut vetted = self.vetted.lock().await;
        if vetted.given != given {
            match self.postgres.vet(&given).await {
                Ok(refused) => {
                    for one in &refused {
                        tracing::error!("postgresql.parameters: {} is left out: {}", one.name, one.why);
                    }
                    let refused = refused.into_iter().map(|one| one.name).collect();
                    *vetted = Vetted { given, refused };
                }
                Err(why) => tracing::warn!("the parameters could not be checked: {why}"),
            }
        }
        effective.leave_out(&vetted.refused);
        effective
    }

    /// Writes PostgreSQL's configuration files.
    pub async fn configure(&self, wanted: &Wanted) -> Result<(), String> {
        self.write_conf(wanted).await
    }

    /// The same for a new database cluster: `bootstrap.pg_hba` is added to what initdb wrote, as Patroni does.
    pub async fn configure_first(&self, wanted: &Wanted) -> Result<(), String> {
        self.configure(wanted).await?;
        let replaced = self.effective(&wanted.settings).pg_hba.is_some();
        if !replaced && !self.config.bootstrap.pg_hba.is_empty() {
            let lines = self.config.bootstrap.pg_hba.clone();
            self.postgres.append_hba(&lines).map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    async fn write_conf(&self, wanted: &Wanted) -> Result<(), String> {
        let effective = self.sound(&wanted.settings).await;
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
            upstream: wanted.upstream.clone(),
            names: wanted.names.clone(),
        };
        self.postgres
            .write_conf(&conf)
            .await
            .map(|_| ())
            .map_err(|why| why.to_string())
    }

    /// Starts the postmaster; what it is depends on the signal files. A standby gets at least what its primary had:
    /// it would refuse to start with less. Answers whether it got more than was configured.
    pub async fn start(
        &self,
        settings: &Settings,
        epoch: Option<crate::cluster::Epoch>,
    ) -> Result<bool, String> {
        if let Some(why) = config::start_race(settings, self.postgres.version().num) {
            tracing::warn!("{why}");
        }
        self.postgres.await_reaped().await;
        self.remove_half_segments().await?;
        let mut effective = self.sound(settings).await;
        let raised = if epoch.is_none() {
            effective.raise(&self.at_least().await?)
        } else {
            Vec::new()
        };
        for (name, value) in &raised {
            tracing::info!("{name} is {value} until the primary has less, too");
        }
        let spec = self.postgres.start_spec(&effective.command_line);
        let spec = StartSpec {
            program: spec.program,
            args: spec.args,
            env: spec.env,
            data_dir: spec.data_dir,
            user: spec.user,
            epoch,
        };
        self.guard
            .start(spec)
            .await
            .map(|_| !raised.is_empty())
            .map_err(|why| why.to_string())
    }

    /// Removes what would end a start or a promotion; only while nobody receives.
    pub async fn remove_half_segments(&self) -> Result<(), String> {
        let postgres = self.postgres.clone();
        tokio::task::spawn_blocking(move || postgres.remove_half_segments())
            .await
            .map_err(|why| why.to_string())?
            .map_err(|why| why.to_string())
    }

    /// What a standby must have at least.
    pub async fn at_least(&self) -> Result<BTreeMap<&'static str, u64>, String> {
        let postgres = self.postgres.clone();
        let read = tokio::task::spawn_blocking(move || postgres.control()).await;
        read.map_err(|why| why.to_string())?
            .map(|control| control.at_least)
            .map_err(|why| why.to_string())
    }

    /// Why a running primary must step down where a watchdog is required. One that is not armed yet, under a daemon
    /// that has just taken over, is none of the reasons.
    pub fn watchdog_lost(&self) -> Option<String> {
        let state = self.guard.watch().borrow().watchdog;
        matches!(state, WatchdogState::Unusable(_))
            .then(|| self.watchdog_trouble(true))
            .flatten()
    }

    /// Waits until the guard itself says that it enforces the deadline of `epoch`: nothing may be writable before.
    pub async fn enforced(&self, epoch: crate::cluster::Epoch) -> Result<(), String> {
        let mut watch = self.guard.watch();
        let armed = watch.wait_for(|state| state.armed.is_some_and(|(of, _)| of == epoch));
        match tokio::time::timeout(ENFORCED_WITHIN, armed).await {
            Ok(Ok(_)) => self.watchdog_trouble(true).map_or(Ok(()), Err),
            _ => Err("the guard did not take the deadline in time".to_owned()),
        }
    }

    /// Why this node may not be primary, where a watchdog is required: it cannot be used, or, once the deadline of an
    /// epoch stands (`armed`), it does not run. Looks at the device only: opening it would start it.
    pub fn watchdog_trouble(&self, armed: bool) -> Option<String> {
        let watchdog = &self.config.watchdog;
        if watchdog.mode != config::WatchdogMode::Required {
            return None;
        }
        let state = self.guard.watch().borrow().clone();
        let why = match state.watchdog {
            _ if !state.takes_orders => "the guard that runs is of an older version".to_owned(),
            WatchdogState::Unusable(why) => why.to_string(),
            WatchdogState::Armed { .. } => return None,
            WatchdogState::Off if armed => "it is not armed".to_owned(),
            WatchdogState::Off => match access(&watchdog.device, AccessFlags::W_OK) {
                Ok(()) => return None,
                Err(errno) => format!("it cannot be used: {}", errno.desc()),
            },
        };
        Some(format!(
            "watchdog {} is required, but {why}",
            watchdog.device.display()
        ))
    }

    /// Whether every process of the data directory is gone within `patience`.
    pub async fn gone_within(&self, patience: Duration) -> bool {
        let mut watch = self.guard.watch();
        let gone = watch.wait_for(|state| state.postmaster.is_none() && state.clean);
        tokio::time::timeout(patience, gone)
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    /// The same for a server that was told to stop; standbys that take nothing do not hold it up.
    pub async fn stops_within(&self, patience: Duration) -> bool {
        let bound = clock::now().plus(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        let mut streams = Streams::default();
        loop {
            let left = Duration::from_millis(bound.since(clock::now()));
            if self.gone_within(left.min(LOOK_AT_STREAMS)).await {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            let Some(postmaster) = self.guard.watch().borrow().postmaster else {
                continue;
            };
            let postgres = self.postgres.clone();
            let look = move || {
                postgres.end_still_streams(postmaster, &mut streams, clock::now());
                streams
            };
            streams = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
    }

    /// Creates the database cluster.
    pub async fn initdb(&self) -> Result<(), String> {
        let options: Vec<String> = self
            .config
            .bootstrap
            .initdb
            .iter()
            .map(CommandOption::long)
            .collect();
        self.postgres
            .initdb(&options)
            .await
            .map(|_| ())
            .map_err(|why| why.to_string())
    }

    /// Creates the roles we use.
    pub async fn create_roles(&self, new: bool) -> Result<(), String> {
        let made = self.postgres.create_roles(&self.session, new).await;
        made.map_err(|why| why.to_string())
    }

    /// The command of a callback.
    pub fn callback(&self, action: &str) -> Option<String> {
        let callbacks = if self.section.callbacks.is_empty() {
            &self.shared.callbacks
        } else {
            &self.section.callbacks
        };
        callbacks.get(action).cloned()
    }

    /// Runs a callback: Patroni's arguments are the action, the role and the cluster's name.
    pub async fn call_back(
        &self,
        line: &str,
        [action, role]: [String; 2],
        bound: Duration,
    ) -> Result<(), String> {
        let args = [action, role, self.config.scope.clone()];
        self.postgres.run_command(line, &args, &[], bound).await
    }

    /// Asks the operator's script whether this node may be promoted.
    pub async fn pre_promote(&self, settings: &Settings) -> Result<(), String> {
        let Some(line) = self
            .section
            .pre_promote
            .as_ref()
            .or(self.shared.pre_promote.as_ref())
        else {
            return Ok(());
        };
        let bound = Duration::from_secs(self.effective(settings).pg_ctl_timeout_s);
        let ran = self.postgres.run_command(line, &[], &[], bound).await;
        ran.map_err(|why| format!("pre_promote: {why}"))
    }

    /// Lets the operator's script do what it has to before a clean stop; the stop comes in any case.
    pub async fn before_stop(&self) {
        if let Some(line) = self
            .section
            .before_stop
            .as_ref()
            .or(self.shared.before_stop.as_ref())
            && let Err(why) = self.postgres.run_command(line, &[], &[], BEFORE_STOP).await
        {
            tracing::warn!("before_stop: {why}");
        }
    }

    /// Runs the operator's script in the new database cluster; what it refuses is not kept.
    pub async fn post_bootstrap(&self) -> Result<(), String> {
        let Some(line) = &self.config.bootstrap.post_bootstrap else {
            return Ok(());
        };
        let (dsn, pgpass) = self.postgres.script_login()?;
        let env = [("PGPASSFILE", pgpass)];
        let ran = self
            .postgres
            .run_command(line, &[dsn], &env, POST_BOOTSTRAP)
            .await;
        ran.map_err(|why| format!("bootstrap.post_bootstrap: {why}"))
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
            alias: None,
        }
    }
}

/// The node's own options, or the shared ones where it has none.
fn options(own: &[CommandOption], shared: &[String]) -> Vec<String> {
    if own.is_empty() {
        return shared.to_vec();
    }
    own.iter().map(CommandOption::long).collect()
}

fn login(login: &config::Login) -> postgres::Login {
    let mut options = login.options.clone();
    if let Some(mode) = &login.sslmode {
        options.insert("sslmode".to_owned(), mode.clone());
    }
    postgres::Login {
        username: login.username.clone(),
        password: login.password.as_ref().map(|secret| secret.reveal().to_owned()),
        key_password: login
            .sslpassword
            .as_ref()
            .map(|secret| secret.reveal().to_owned()),
        options,
    }
}

/// Where a server that was told nothing puts its socket: Debian's and Red Hat's place, else PostgreSQL's.
fn default_socket_dir() -> std::path::PathBuf {
    let usual = std::path::Path::new("/var/run/postgresql");
    let place = if usual.is_dir() {
        usual
    } else {
        std::path::Path::new("/tmp")
    };
    place.to_owned()
}

fn setup(config: &Config, section: &PostgresConfig, shared: &Shared) -> postgres::Setup {
    let socket = section
        .parameters
        .get("unix_socket_directories")
        .or(shared.socket_directories.as_ref())
        .and_then(|dirs| dirs.split(',').map(str::trim).find(|dir| dir.starts_with('/')))
        .map(Into::into)
        .or_else(|| section.use_unix_socket.then(default_socket_dir));
    postgres::Setup {
        data_dir: section.data_dir.clone(),
        config_dir: section.config_dir.clone(),
        custom_conf: section.custom_conf.clone(),
        bin_dir: section.bin_dir.clone(),
        bin_names: section.bin_name.clone(),
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
        basebackup_options: options(&section.basebackup, &shared.basebackup),
        rewind_options: options(&section.rewind, &shared.rewind),
    }
}
