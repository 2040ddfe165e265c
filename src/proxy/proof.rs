//! Asks the primary what the proxy cannot see: whether its standbys have a commit, whether a backend waits for them.
//!
//! It waits by looking at positions, not by a commit of its own: one that is given up would leave a backend behind that
//! waits for ever. What the primary has answered it has written, so its position is asked for after the answer came; so many
//! standbys as a commit needs, of those that count, have flushed that position before the answer is passed on.

use super::house::House;
use super::session::{Answer, Batch, Proofs, Ticket};
use crate::cluster::{Endpoint, Epoch};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Client, Config, NoTls};

/// A completion that nothing proves within this time is not told.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request to cancel must not be late.
const HASTE: Duration = Duration::from_secs(2);
/// A primary that does not take a connection by then is tried again.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two looks at the standbys' positions.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two attempts at a primary that does not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// Questions that may wait.
const QUEUE: usize = 1_024;

const POSITION: &str = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text";
/// How many are needed stands before the parenthesis; a list without a number needs one.
const PROVEN: &str = "SELECT count(standby.pid) >= CASE WHEN names = '' THEN 0 \
     ELSE coalesce(substring(names FROM '([0-9]+)[[:space:]]*\\(')::int, 1) END \
     FROM pg_catalog.current_setting('synchronous_standby_names') AS setting(names) \
     LEFT JOIN pg_catalog.pg_stat_replication AS standby ON standby.sync_state IN ('sync', 'quorum') \
     AND standby.state = 'streaming' AND standby.flush_lsn >= $1::text::pg_lsn GROUP BY names";
const WAITS: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')";

/// What sessions ask.
pub(crate) enum Question {
    /// Have the standbys everything that the primary of this epoch has answered until now?
    Proof(Epoch, oneshot::Sender<bool>),
    /// Does this backend of the primary wait for a standby?
    Waits(i32, oneshot::Sender<bool>),
}

/// Where questions are asked.
pub(crate) struct Desk {
    questions: mpsc::Sender<Question>,
    asked: Mutex<Option<mpsc::Receiver<Question>>>,
}

impl Default for Desk {
    fn default() -> Self {
        let (questions, asked) = mpsc::channel(QUEUE);
        Self {
            questions,
            asked: Mutex::new(Some(asked)),
        }
    }
}

impl Desk {
    /// Whether the standbys have what the primary of this epoch has answered until now; `false` if that cannot be said.
    pub(crate) fn proof(&self, epoch: Epoch) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let (answer, answered) = oneshot::channel();
        let asked = self.questions.try_send(Question::Proof(epoch, answer)).is_ok();
        Box::pin(
            async move { asked && matches!(tokio::time::timeout(PATIENCE, answered).await, Ok(Ok(true))) },
        )
    }

    /// Whether this backend of the primary waits for a standby, as far as that can be said.
    pub(crate) async fn waits(&self, pid: u32) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = i32::try_from(pid).is_ok_and(|pid| {
            let question = Question::Waits(pid, answer);
            self.questions.try_send(question).is_ok()
        });
        asked && matches!(tokio::time::timeout(HASTE, answered).await, Ok(Ok(true)))
    }

    fn take(&self) -> Option<mpsc::Receiver<Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A proof that is under way.
struct Attempt {
    batch: Batch,
    work: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// Doubts of one epoch.
#[derive(Default)]
struct Doubts {
    epoch: Epoch,
    proofs: Proofs,
    waiting: Vec<(Ticket, oneshot::Sender<bool>)>,
}

impl Doubts {
    fn take_in(&mut self, epoch: Epoch, answer: oneshot::Sender<bool>) {
        if epoch == self.epoch {
            let ticket = self.proofs.want();
            self.waiting.push((ticket, answer));
        } else {
            let _ = answer.send(false);
        }
    }

    /// Another primary, another book: what is not proved by now never will be.
    fn follow(&mut self, epoch: Epoch) {
        if epoch != self.epoch {
            self.proofs.abandon();
            self.tell();
            *self = Self {
                epoch,
                ..Self::default()
            };
        }
    }

    fn tell(&mut self) {
        let all = std::mem::take(&mut self.waiting);
        for (ticket, answer) in all {
            match self.proofs.state(ticket) {
                Answer::Pending if answer.is_closed() => {}
                Answer::Pending => self.waiting.push((ticket, answer)),
                known => drop(answer.send(known == Answer::Proved)),
            }
        }
    }
}

/// Answers questions as long as the proxy lives.
pub(crate) async fn run(house: Arc<House>) {
    let Some(mut questions) = house.desk.take() else {
        return;
    };
    let mut routes = house.routes.subscribe();
    let mut doubts = Doubts::default();
    let mut line = Line::default();
    let mut attempt: Option<Attempt> = None;
    loop {
        let (epoch, primary) = {
            let routes = routes.borrow_and_update();
            (routes.epoch, routes.primary().cloned())
        };
        if epoch != doubts.epoch {
            attempt = None;
            doubts.follow(epoch);
        }
        if attempt.is_none()
            && let Some(batch) = doubts.proofs.begin()
        {
            let client = line.to(&house, primary.as_ref()).await;
            attempt = Some(Attempt {
                batch,
                work: Box::pin(prove(client)),
            });
        }
        tokio::select! {
            _ = routes.changed() => {}
            question = questions.recv() => match question {
                Some(Question::Proof(epoch, answer)) => {
                    let now = routes.borrow().epoch;
                    if now != doubts.epoch {
                        attempt = None;
                        doubts.follow(now);
                    }
                    doubts.take_in(epoch, answer);
                }
                Some(Question::Waits(pid, answer)) => {
                    let client = line.to(&house, primary.as_ref()).await;
                    tokio::spawn(async move {
                        let row = match client {
                            Some(client) => client.query_one(WAITS, &[&pid]).await.ok(),
                            None => None,
                        };
                        let waits = row.and_then(|row| row.try_get(0).ok());
                        let _ = answer.send(waits.unwrap_or_default());
                    });
                }
                None => return,
            },
            proved = outcome(&mut attempt) => {
                match attempt.take() {
                    Some(Attempt { batch, .. }) if proved => doubts.proofs.proved(batch),
                    Some(Attempt { batch, .. }) => {
                        line = Line::default();
                        doubts.proofs.failed(batch);
                    }
                    None => {}
                }
                doubts.tell();
            }
        }
    }
}

async fn outcome(attempt: &mut Option<Attempt>) -> bool {
    match attempt {
        Some(attempt) => attempt.work.as_mut().await,
        None => std::future::pending().await,
    }
}

/// One proof; `false` if the primary did not answer to the end.
async fn prove(client: Option<Arc<Client>>) -> bool {
    let Some(client) = client else {
        tokio::time::sleep(PAUSE).await;
        return false;
    };
    let position: String = match client
        .query_one(POSITION, &[])
        .await
        .and_then(|row| row.try_get(0))
    {
        Ok(position) => position,
        Err(_) => return false,
    };
    loop {
        match client
            .query_one(PROVEN, &[&position])
            .await
            .and_then(|row| row.try_get(0))
        {
            Ok(true) => return true,
            Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
            Err(_) => return false,
        }
    }
}

/// The connection to the primary that all questions share.
#[derive(Default)]
struct Line {
    there: Option<(Endpoint, Arc<Client>)>,
}

impl Line {
    async fn to(&mut self, house: &House, primary: Option<&Endpoint>) -> Option<Arc<Client>> {
        let primary = primary?;
        match &self.there {
            Some((endpoint, client)) if endpoint == primary && !client.is_closed() => {
                return Some(client.clone());
            }
            _ => self.there = None,
        }
        let terms = house.terms.borrow().clone();
        let asker = terms.asker.as_ref()?;
        let mut config = Config::new();
        config
            .host(&primary.host)
            .port(primary.port)
            .user(&asker.username)
            .dbname(&asker.database)
            .application_name("matriarch proxy")
            .connect_timeout(CONNECT);
        if let Some(password) = &asker.password {
            config.password(password);
        }
        let (client, connection) = tokio::time::timeout(CONNECT, config.connect(NoTls))
            .await
            .ok()?
            .ok()?;
        tokio::spawn(async move {
            // Whoever uses the client hears of its end.
            let _ = connection.await;
        });
        let client = Arc::new(client);
        self.there = Some((primary.clone(), client.clone()));
        Some(client)
    }
}
