//! Clients that commit one numbered row after another and remember when each was sent and acknowledged.

use crate::herd::Herd;
use crate::node::Node;
use matriarch::clock::boot_ns;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// A server that does not accept and greet a client within this time is passed over; within sixteen times as long when
/// nobody did: the arithmetic of passwords alone may take longer on a busy machine.
const CONNECT_DEADLINE: Duration = Duration::from_millis(300);
/// A statement without an answer for so long is given up; its outcome is unknown.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(3);
/// Pause before the next attempt after a failed one.
const RETRY: Duration = Duration::from_millis(10);
/// Pause of a pinned client between two rows: it shows who accepts, it is not the load.
const PINNED_PACE: Duration = Duration::from_millis(5);

/// Makes the table of the rows. The writing client numbers them; nothing in the table prevents a double.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS judge (writer int NOT NULL, seq bigint NOT NULL)";
/// Writes a row and says on which timeline: each timeline has one writer.
const INSERT: &str = "INSERT INTO judge VALUES ($1, $2) \
     RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, on this timeline.
    Acked {
        /// The timeline the server was writing.
        timeline: i32,
    },
    /// Certainly not committed: the server said it accepts no writes.
    Refused,
    /// Sent, and no certain answer.
    Unknown,
}

/// One attempt to commit one row. Times are nanoseconds of the boot-time clock.
#[derive(Clone, Debug)]
pub struct Write {
    /// The client.
    pub writer: i32,
    /// Number of the row, unique for the client.
    pub seq: i64,
    /// Index of the node it was sent to.
    pub node: usize,
    /// When it was sent.
    pub sent: u64,
    /// When the answer came or was given up.
    pub ended: u64,
    /// What became of it.
    pub outcome: Outcome,
}

impl Write {
    /// Whether the client was told that it is committed.
    pub fn is_acked(&self) -> bool {
        matches!(self.outcome, Outcome::Acked { .. })
    }
}

/// Makes the table on the primary.
pub async fn prepare(herd: &Herd) {
    herd.until("the table of the rows", 30, async || match herd.primary().await {
        Some(primary) => prepare_on(&herd.nodes[primary]).await.is_ok(),
        None => false,
    })
    .await;
}

/// Makes the table on this node.
pub async fn prepare_on(node: &Node) -> Result<(), String> {
    node.sql(TABLE).await.map(drop)
}

/// A client as libpq is one when it is given all hosts and `target_session_attrs=read-write`.
pub struct Writer {
    running: Running,
}

impl Writer {
    /// Starts writing, at full speed, wherever writes are accepted.
    pub fn start(herd: &Herd) -> Self {
        Self {
            running: Running::start(0, hosts(herd, |_| true), false, Duration::ZERO),
        }
    }

    /// Starts writing through whatever stands in front of the nodes.
    pub fn start_through(config: Config) -> Self {
        Self {
            running: Running::start(0, vec![(0, config)], false, Duration::ZERO),
        }
    }

    /// Starts writing with a pause after each acknowledged row.
    pub fn start_paced(herd: &Herd, pace: Duration) -> Self {
        Self {
            running: Running::start(0, hosts(herd, |_| true), false, pace),
        }
    }

    /// How many connections it has needed so far; one means that it never noticed anything.
    pub fn connections(&self) -> usize {
        self.running.shared.connections.load(Ordering::SeqCst)
    }

    /// How many rows sent after this moment have been acknowledged.
    pub fn acked_since(&self, since: u64) -> usize {
        self.running.with(|writes| {
            writes
                .iter()
                .rev()
                .take_while(|w| w.ended > since)
                .filter(|w| w.is_acked() && w.sent > since)
                .count()
        })
    }

    /// Waits until writes flow: so many rows sent from now on are acknowledged.
    pub async fn await_flow(&self, herd: &Herd, rows: usize, deadline_s: u64) {
        let since = boot_ns();
        let what = format!("{rows} more acknowledged rows");
        herd.until(&what, deadline_s, async || self.acked_since(since) >= rows)
            .await;
    }

    /// Ends it and hands over what it did.
    pub async fn stop(self) -> Vec<Write> {
        self.running.stop().await
    }
}

/// A client that knows one node only and keeps asking it to write, whatever the node is.
pub struct Pinned {
    running: Running,
}

impl Pinned {
    /// One for every node that holds data.
    pub fn start_all(herd: &Herd) -> Vec<Self> {
        (0..herd.nodes.len())
            .filter(|node| herd.options.witness != Some(*node))
            .map(|node| {
                let writer = 1 + i32::try_from(node).unwrap();
                Self {
                    running: Running::start(writer, hosts(herd, |i| i == node), true, PINNED_PACE),
                }
            })
            .collect()
    }

    /// End of its newest acknowledged row.
    pub fn last_ack(&self) -> Option<u64> {
        self.running
            .with(|writes| writes.iter().rev().find(|w| w.is_acked()).map(|w| w.ended))
    }

    /// Ends them all and hands over what they did.
    pub async fn stop_all(all: Vec<Self>) -> Vec<Write> {
        let mut writes = Vec::new();
        for pinned in all {
            writes.append(&mut pinned.running.stop().await);
        }
        writes
    }
}

fn hosts(herd: &Herd, wanted: impl Fn(usize) -> bool) -> Vec<(usize, Config)> {
    (0..herd.nodes.len())
        .filter(|i| wanted(*i) && herd.options.witness != Some(*i))
        .map(|i| (i, herd.nodes[i].client_config()))
        .collect()
}

/// What a client's task and its owner share.
struct Shared {
    stop: AtomicBool,
    connections: AtomicUsize,
    writes: Mutex<Vec<Write>>,
}

struct Running {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(writer: i32, hosts: Vec<(usize, Config)>, is_pinned: bool, pace: Duration) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            writes: Mutex::new(Vec::new()),
        });
        let task = tokio::spawn(write_on(writer, hosts, is_pinned, pace, Arc::clone(&shared)));
        Self { shared, task }
    }

    fn with<T>(&self, read: impl FnOnce(&Vec<Write>) -> T) -> T {
        read(&self.shared.writes.lock().unwrap())
    }

    async fn stop(self) -> Vec<Write> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("the client's task ends");
        std::mem::take(&mut self.shared.writes.lock().unwrap())
    }
}

/// One client's life. A pinned one stays connected to a server that refuses.
async fn write_on(
    writer: i32,
    hosts: Vec<(usize, Config)>,
    is_pinned: bool,
    pace: Duration,
    shared: Arc<Shared>,
) {
    let mut seq = 0;
    let mut patience = CONNECT_DEADLINE;
    while !shared.stop.load(Ordering::SeqCst) {
        let Some(session) = Session::open(&hosts, is_pinned, patience).await else {
            patience = (patience * 2).min(16 * CONNECT_DEADLINE);
            tokio::time::sleep(RETRY).await;
            continue;
        };
        patience = CONNECT_DEADLINE;
        shared.connections.fetch_add(1, Ordering::SeqCst);
        while !shared.stop.load(Ordering::SeqCst) {
            seq += 1;
            let write = session.write(writer, seq).await;
            let outcome = write.outcome;
            shared.writes.lock().unwrap().push(write);
            match outcome {
                Outcome::Acked { .. } if pace.is_zero() => {}
                Outcome::Acked { .. } => tokio::time::sleep(pace).await,
                Outcome::Refused if is_pinned => tokio::time::sleep(RETRY).await,
                Outcome::Refused | Outcome::Unknown => break,
            }
        }
        drop(session);
        tokio::time::sleep(RETRY).await;
    }
}

/// A connection with its prepared statement.
struct Session {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    insert: Statement,
    node: usize,
}

impl Session {
    /// Tries each host in turn, as libpq does; a pinned client takes its host as it is.
    async fn open(hosts: &[(usize, Config)], is_pinned: bool, patience: Duration) -> Option<Self> {
        for (node, config) in hosts {
            let attempt = Self::connect(*node, config, is_pinned);
            if let Ok(Some(session)) = tokio::time::timeout(patience, attempt).await {
                return Some(session);
            }
        }
        None
    }

    async fn connect(node: usize, config: &Config, is_pinned: bool) -> Option<Self> {
        let (client, connection) = config.connect(NoTls).await.ok()?;
        let driver = Driver(Some(tokio::spawn(connection)));
        if !is_pinned {
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
            if row.get::<_, bool>(0) {
                return None;
            }
        }
        let insert = client.prepare(INSERT).await.ok()?;
        Some(Self {
            client,
            driver: driver.keep(),
            insert,
            node,
        })
    }

    async fn write(&self, writer: i32, seq: i64) -> Write {
        let sent = boot_ns();
        let answer = tokio::time::timeout(
            STATEMENT_DEADLINE,
            self.client.query_one(&self.insert, &[&writer, &seq]),
        )
        .await;
        let ended = boot_ns();
        let outcome = match answer {
            Ok(Ok(row)) => Outcome::Acked { timeline: row.get(0) },
            Ok(Err(error)) if is_refusal(&error) => Outcome::Refused,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        Write {
            writer,
            seq,
            node: self.node,
            sent,
            ended,
            outcome,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection's task that is not forgotten when the attempt is given up half way.
struct Driver(Option<JoinHandle<Result<(), tokio_postgres::Error>>>);

impl Driver {
    fn keep(mut self) -> JoinHandle<Result<(), tokio_postgres::Error>> {
        self.0.take().expect("a driver is kept once")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// `read_only_sql_transaction`: the server is a standby and has done nothing.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// An error with the server's own words.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.code().code(), db.message()),
        None => error.to_string(),
    }
}
