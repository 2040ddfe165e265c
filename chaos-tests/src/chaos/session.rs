//! A client's connection: found as clients find the primary, or pinned to a node; it hears the server's warnings.

use crate::addresses::REST_PORT;
use crate::chaos::history::{Call, Fate};
use crate::chaos::network;
use crate::rest;
use matriarch::clock::boot_ns;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, Row, Statement};

/// A server that does not accept and greet a client within this time is passed over.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1_000);
/// A statement without an answer for so long is given up.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(3);

/// Timeline and position of a server that accepts writes; an error on one that does not.
pub const STAMP: &str = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, \
     (pg_current_wal_lsn() - '0/0')::bigint";

/// Where a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Wherever `GET /primary` says yes.
    Primary,
    /// To this node, whatever it is.
    Node(usize),
}

/// A connection.
pub struct Session {
    /// The connection itself.
    pub client: Client,
    /// Where it leads.
    pub node: usize,
    task: JoinHandle<()>,
    unwaited: Arc<AtomicU64>,
}

/// How an operation failed.
pub enum Failure {
    /// The server said why.
    Server(Error),
    /// No answer in time.
    Silence,
}

impl Failure {
    /// What has become of a commit that ended so.
    pub fn of_commit(&self) -> Fate {
        let Self::Server(error) = self else {
            return Fate::Unknown;
        };
        match error.code() {
            Some(code) if is_certain(code) => Fate::Failed,
            _ => Fate::Unknown,
        }
    }
}

/// Errors after which a transaction has certainly changed nothing.
fn is_certain(code: &SqlState) -> bool {
    let text = code.code();
    let is_rolled_back = text.starts_with("40") && text != "40003";
    is_rolled_back
        || ["23", "53", "42", "25", "0A"]
            .iter()
            .any(|class| text.starts_with(class))
        || text == "57014"
}

impl Session {
    /// Connects, or says nothing.
    pub async fn open(aim: Aim, nodes: usize) -> Option<Self> {
        match aim {
            Aim::Node(node) => Self::connect(node).await,
            Aim::Primary => {
                for node in 0..nodes {
                    if matches!(
                        rest::get(network::ip(node), REST_PORT, "/primary").await,
                        Some((200, _))
                    ) {
                        return Self::connect(node).await;
                    }
                }
                None
            }
        }
    }

    async fn connect(node: usize) -> Option<Self> {
        let config = config(network::ip(node));
        let (client, mut connection) = tokio::time::timeout(CONNECT_DEADLINE, config.connect(NoTls))
            .await
            .ok()?
            .ok()?;
        let unwaited = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&unwaited);
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.code().code() == "01000"
                    && notice.message().contains("synchronous replication")
                {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Some(Self {
            client,
            node,
            task,
            unwaited,
        })
    }

    /// How often the server has said that it did not wait for a standby.
    pub fn unwaited(&self) -> u64 {
        self.unwaited.load(Ordering::SeqCst)
    }

    /// A prepared statement.
    pub async fn prepare(&self, text: &str) -> Result<Statement, Failure> {
        within(self.client.prepare(text)).await
    }

    /// The rows of a query, or of what a string of statements without parameters did.
    pub async fn rows(
        &self,
        statement: &Statement,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        within(self.client.query(statement, parameters)).await
    }

    /// Statements without parameters and rows.
    pub async fn run(&self, text: &str) -> Result<(), Failure> {
        within(self.client.batch_execute(text)).await
    }

    /// An operation that begins now.
    pub fn call(&self, client: u32) -> Call {
        Call {
            client,
            node: self.node,
            begin: boot_ns(),
            end: u64::MAX,
            fate: Fate::Failed,
            timeline: 0,
            lsn: 0,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(STATEMENT_DEADLINE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Failure::Server(error)),
        Err(_) => Err(Failure::Silence),
    }
}

fn config(ip: Ipv4Addr) -> Config {
    let mut config = Config::new();
    config
        .host(ip.to_string())
        .port(crate::addresses::POSTGRES_PORT)
        .user("postgres")
        .password(crate::node_file::PASSWORD)
        .dbname("postgres")
        .application_name("judge");
    config
}
