//! The connection to the local server: kept while it works, made anew when it does not, every statement bounded.

use super::probe::{self, Pending};
use super::ways::{Way, ways};
use super::{Postgres, PostgresError, Probe};
use crate::cluster::MemberName;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Row, Statement};

/// A server that needs longer than this for a probe is not well.
pub(super) const PROBE: Duration = Duration::from_secs(1);
/// Bound of a short act.
pub(super) const ACT: Duration = Duration::from_secs(5);
/// Bound of a checkpoint, which writes all that is dirty.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// Bound of the wait for one standby's stream, and how often it is looked for.
const STREAM: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Our SQL session with the local server, as its superuser.
#[derive(Clone)]
pub struct Session {
    local: Arc<Local>,
}

struct Local {
    /// Where the server may be reached, the best way first.
    ways: RwLock<Vec<Way>>,
    kept: Mutex<Option<Live>>,
}

/// A connection, ended when dropped.
pub(super) struct Live {
    pub(super) client: Client,
    statement: Option<Statement>,
    /// What waits for a restart, as of the time when the server loaded its configuration.
    pending: Option<(String, Vec<Pending>)>,
    task: JoinHandle<()>,
}

impl Live {
    /// The view of settings costs ten times the rest, and says something new only after a reload.
    async fn probe(&mut self) -> Result<Probe, tokio_postgres::Error> {
        let statement = match self.statement.take() {
            Some(statement) => statement,
            None => self.client.prepare(probe::SQL).await?,
        };
        let row = self.client.query_one(&statement, &[]).await?;
        self.statement = Some(statement);
        let loaded: String = row.try_get("loaded")?;
        let pending = match self.pending.take().filter(|(at, _)| *at == loaded) {
            Some((_, pending)) => pending,
            None => probe::pending(&self.client.query_one(probe::PENDING, &[]).await?)?,
        };
        self.pending = Some((loaded, pending.clone()));
        Probe::read(&row, pending)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// A session that connects when it is first used.
    pub fn new(postgres: &Postgres) -> Self {
        Self {
            local: Arc::new(Local {
                ways: RwLock::new(ways(postgres.setup())),
                kept: Mutex::new(None),
            }),
        }
    }

    /// Connects as these settings say from now on; a connection that works is kept.
    pub fn renew(&self, postgres: &Postgres) {
        *self.local.ways.write().unwrap_or_else(PoisonError::into_inner) = ways(postgres.setup());
    }

    /// Asks the server how it is, in one statement.
    pub async fn probe(&self) -> Result<Probe, PostgresError> {
        let work = async {
            let mut kept = self.local.kept.lock().await;
            let mut live = self.take(&mut kept).await?;
            let answer = live.probe().await.map_err(refused("answer a probe"))?;
            *kept = Some(live);
            Ok(answer)
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

    /// Waits until this member streams from here, for a second at most.
    pub async fn await_stream(&self, member: &MemberName) -> Result<(), PostgresError> {
        const STREAMS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_replication \
             WHERE lower(application_name) = lower($1) AND state = 'streaming')";
        let work = async {
            let live = self.connect().await?;
            loop {
                let row = live.client.query_one(STREAMS, &[&member.as_str()]).await;
                let streams = row.and_then(|row| row.try_get(0));
                if streams.map_err(refused("say who streams"))? {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        bounded("the stream of the next primary", STREAM, work).await
    }

    /// The values of these numeric parameters; one that the server does not know is missing.
    pub async fn numbers(&self, names: &[&str]) -> Result<BTreeMap<String, u64>, PostgresError> {
        const VALUES: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY($1::text[])";
        let work = async {
            let live = self.connect().await?;
            let rows = live.client.query(VALUES, &[&names]).await;
            let rows = rows.map_err(refused("show its parameters"))?;
            let pair = |row: &Row| {
                Some((
                    row.try_get(0).ok()?,
                    row.try_get::<_, String>(1).ok()?.parse().ok()?,
                ))
            };
            Ok(rows.iter().filter_map(pair).collect())
        };
        bounded("a look at parameters", ACT, work).await
    }

    async fn act(&self, what: &'static str, sql: &str) -> Result<(), PostgresError> {
        let work = async {
            let mut kept = self.local.kept.lock().await;
            // The server may have ended the kept connection unnoticed; that is no answer to what is asked now.
            if let Some(live) = kept.take().filter(|live| !live.client.is_closed()) {
                match live.client.batch_execute(sql).await {
                    Err(why) if why.is_closed() => {}
                    answer => {
                        *kept = Some(live);
                        return answer.map_err(refused(what));
                    }
                }
            }
            let live = self.connect().await?;
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

    /// A connection of its own. Where the rules of pg_hba.conf turn us away at the socket (`peer`, when we are root),
    /// they may let us in over TCP; and a
    /// socket may be elsewhere since the node file was read again.
    pub(super) async fn connect(&self) -> Result<Live, PostgresError> {
        let mut failed = None;
        let ways = self
            .local
            .ways
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for way in &ways {
            match way.connect().await {
                Ok((client, task)) => {
                    return Ok(Live {
                        client,
                        statement: None,
                        pending: None,
                        task,
                    });
                }
                Err(why) => {
                    let at = way.at.clone();
                    failed = Some(PostgresError::Unreachable { at, why });
                }
            }
        }
        Err(failed.unwrap_or_else(|| {
            PostgresError::Misconfigured("postgresql.listen: the server listens nowhere".to_owned())
        }))
    }
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
pub(super) fn words(why: &tokio_postgres::Error) -> String {
    use std::error::Error;
    match (why.as_db_error(), why.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => source.to_string(),
        (None, None) => why.to_string(),
    }
}
