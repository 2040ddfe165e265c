//! The connection to the local server: kept while it works, made anew when it does not, every statement bounded.

use super::{Postgres, PostgresError, Probe, Setup, probe, slot_name};
use crate::cluster::MemberName;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// A server that needs longer than this for a probe is not well.
const PROBE: Duration = Duration::from_secs(1);
/// Bound of a short act.
const ACT: Duration = Duration::from_secs(5);
/// Bound of a checkpoint, which writes all that is dirty.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// Our SQL session with the local server, as its superuser.
#[derive(Clone)]
pub struct Session {
    local: Arc<Local>,
}

struct Local {
    config: Config,
    at: String,
    kept: Mutex<Option<Live>>,
}

/// A connection, ended when dropped.
pub(super) struct Live {
    pub(super) client: Client,
    probe: Option<Statement>,
    task: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// A session that connects when it is first used.
    pub fn new(postgres: &Postgres) -> Self {
        let setup = postgres.setup();
        let mut config = Config::new();
        let at = address(setup, &mut config);
        config
            .port(setup.port)
            .user(&setup.superuser.username)
            .dbname(&setup.database);
        config.application_name("matriarch").connect_timeout(PROBE);
        if let Some(password) = &setup.superuser.password {
            config.password(password);
        }
        Self {
            local: Arc::new(Local {
                config,
                at,
                kept: Mutex::new(None),
            }),
        }
    }

    /// Asks the server how it is, in one statement.
    pub async fn probe(&self) -> Result<Probe, PostgresError> {
        let work = async {
            let mut kept = self.local.kept.lock().await;
            let mut live = self.take(&mut kept).await?;
            let statement = match live.probe.take() {
                Some(statement) => statement,
                None => live
                    .client
                    .prepare(probe::SQL)
                    .await
                    .map_err(refused("answer a probe"))?,
            };
            let row = live
                .client
                .query_one(&statement, &[])
                .await
                .map_err(refused("answer a probe"))?;
            live.probe = Some(statement);
            *kept = Some(live);
            Probe::read(&row).map_err(refused("answer a probe"))
        };
        bounded("a probe of the local PostgreSQL", PROBE, work).await
    }

    /// Ends recovery; the answer does not wait for it.
    pub async fn promote(&self) -> Result<(), PostgresError> {
        self.act("promote", "SELECT pg_catalog.pg_promote(false)").await
    }

    /// Has the server read its configuration files again.
    pub async fn reload(&self) -> Result<(), PostgresError> {
        self.act("reload its configuration", "SELECT pg_catalog.pg_reload_conf()")
            .await
    }

    /// Writes a checkpoint on a connection of its own, so that probes go on.
    pub async fn checkpoint(&self) -> Result<(), PostgresError> {
        let work = async {
            let live = self.connect().await?;
            live.client
                .batch_execute("CHECKPOINT")
                .await
                .map_err(refused("write a checkpoint"))
        };
        bounded("a checkpoint", CHECKPOINT, work).await
    }

    /// Makes sure that every member has its physical slot; none is ever dropped.
    pub async fn ensure_slots(&self, members: &[MemberName]) -> Result<(), PostgresError> {
        if members.is_empty() {
            return Ok(());
        }
        const CREATE: &str = "SELECT pg_catalog.pg_create_physical_replication_slot($1::text::name, true) \
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text::name)";
        let work = async {
            let live = self.connect().await?;
            for member in members {
                let slot = slot_name(member.as_str());
                live.client
                    .execute(CREATE, &[&slot])
                    .await
                    .map_err(refused("create a replication slot"))?;
            }
            Ok(())
        };
        bounded("the creation of replication slots", ACT, work).await
    }

    async fn act(&self, what: &'static str, sql: &str) -> Result<(), PostgresError> {
        let work = async {
            let mut kept = self.local.kept.lock().await;
            let live = self.take(&mut kept).await?;
            live.client.batch_execute(sql).await.map_err(refused(what))?;
            *kept = Some(live);
            Ok(())
        };
        bounded(what, ACT, work).await
    }

    /// The kept connection, or a new one. It is out of its place while in use: one that failed, or whose user gave up,
    /// is not put back.
    async fn take(&self, kept: &mut Option<Live>) -> Result<Live, PostgresError> {
        match kept.take() {
            Some(live) if !live.client.is_closed() => Ok(live),
            _ => self.connect().await,
        }
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Live, PostgresError> {
        let connected = self.local.config.connect(NoTls).await;
        let (client, connection) = connected.map_err(|why| PostgresError::Unreachable {
            at: self.local.at.clone(),
            why: words(&why),
        })?;
        let task = tokio::spawn(async move {
            // Whoever uses the client hears of its end.
            let _ = connection.await;
        });
        Ok(Live {
            client,
            probe: None,
            task,
        })
    }
}

/// Where the local server listens for us.
fn address(setup: &Setup, config: &mut Config) -> String {
    if let Some(dir) = &setup.unix_socket_dir {
        config.host_path(dir);
        return format!("{}/.s.PGSQL.{}", dir.display(), setup.port);
    }
    let first = setup
        .listen_addresses
        .split(',')
        .map(str::trim)
        .next()
        .unwrap_or_default();
    let host = match first {
        "" | "*" | "0.0.0.0" | "localhost" => "127.0.0.1",
        "::" => "::1",
        other => other,
    };
    config.host(host);
    format!("{host}:{}", setup.port)
}

/// The work with a bound.
pub(super) async fn bounded<T>(
    what: &str,
    deadline: Duration,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(PostgresError::Late {
            what: what.to_owned(),
            seconds: deadline.as_secs(),
        }),
    }
}

/// For `map_err` on statements.
pub(super) fn refused(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
    move |why| PostgresError::Refused {
        what,
        why: words(&why),
    }
}

/// The server's own words where there are some; never the statement, which may hold a password.
fn words(why: &tokio_postgres::Error) -> String {
    use std::error::Error;
    match (why.as_db_error(), why.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => source.to_string(),
        (None, None) => why.to_string(),
    }
}
