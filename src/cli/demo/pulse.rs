//! The demo's own client: it commits row after row, as a well-behaved application would, and times the silences.

use super::ground::{Ground, PASSWORD, Place};
use crate::clock;
use crate::cluster::Moment;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

/// A node that does not greet a client within this time is passed over.
const CONNECT_DEADLINE: Duration = Duration::from_millis(300);
/// A commit without an answer for so long is given up and its connection with it.
const COMMIT_DEADLINE: Duration = Duration::from_secs(3);
/// Pause between rows, and between attempts.
const PACE: Duration = Duration::from_millis(10);
/// Silences shorter than this are ordinary disk and scheduling.
const STALL_MS: u64 = 80;

/// What the client has seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Beat {
    /// Rows acknowledged.
    pub(super) rows: u64,
    /// The newest acknowledgement and the node that gave it.
    pub(super) last: Option<(Moment, String)>,
    /// Silences that have ended: how many, and the newest in milliseconds with the node that ended it.
    pub(super) stalls: u64,
    pub(super) last_stall: Option<(u64, String)>,
}

/// The running client; it ends with this value.
pub(super) struct Pulse {
    beats: watch::Receiver<Beat>,
    task: JoinHandle<()>,
}

impl Pulse {
    pub(super) fn start(ground: &Ground) -> Self {
        let hosts = ground
            .places
            .iter()
            .map(|place| (place.name.clone(), config(place)))
            .collect();
        let (sender, beats) = watch::channel(Beat::default());
        Self {
            beats,
            task: tokio::spawn(write_for_ever(hosts, sender)),
        }
    }

    pub(super) fn beat(&self) -> Beat {
        self.beats.borrow().clone()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(place: &Place) -> Config {
    let mut config = Config::new();
    config
        .host(place.address.to_string())
        .port(place.postgres)
        .user("postgres")
        .password(PASSWORD)
        .dbname("postgres");
    config.application_name("matriarch demo");
    config
}

async fn write_for_ever(hosts: Vec<(String, Config)>, beats: watch::Sender<Beat>) {
    loop {
        for (name, config) in &hosts {
            if let Ok(Some(client)) = tokio::time::timeout(CONNECT_DEADLINE, connect(config)).await {
                write_to(name, &client, &beats).await;
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A connection to a node that accepts writes. Its task ends when the client is dropped.
async fn connect(config: &Config) -> Option<Client> {
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.ok()?;
    let is_standby: bool = row.try_get(0).ok()?;
    (!is_standby).then_some(client)
}

/// Commits rows until the node no longer takes them.
async fn write_to(name: &str, client: &Client, beats: &watch::Sender<Beat>) {
    let table = "CREATE TABLE IF NOT EXISTS demo (n bigserial PRIMARY KEY, at timestamptz DEFAULT now())";
    if client.batch_execute(table).await.is_err() {
        return;
    }
    loop {
        let commit = client.batch_execute("INSERT INTO demo DEFAULT VALUES");
        match tokio::time::timeout(COMMIT_DEADLINE, commit).await {
            Ok(Ok(())) => beats.send_modify(|beat| beat.acknowledge(name)),
            Ok(Err(_)) | Err(_) => return,
        }
        tokio::time::sleep(PACE).await;
    }
}

impl Beat {
    fn acknowledge(&mut self, node: &str) {
        let now = clock::now();
        if let Some((before, _)) = &self.last {
            let silence = now.since(*before);
            if silence >= STALL_MS {
                self.stalls += 1;
                self.last_stall = Some((silence, node.to_owned()));
            }
        }
        self.rows += 1;
        self.last = Some((now, node.to_owned()));
    }

    /// How long there has been no acknowledgement.
    pub(super) fn silence_ms(&self) -> u64 {
        self.last.as_ref().map_or(0, |(at, _)| clock::now().since(*at))
    }
}
