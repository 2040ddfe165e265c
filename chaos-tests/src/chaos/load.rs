//! All clients together: started once the cluster is there, stopped when the faults are over.

use crate::chaos::arena::NODES;
use crate::chaos::history::{History, Shared};
use crate::chaos::session::{Aim, Session};
use crate::chaos::{load_bank, load_cancel, load_lists, load_register, load_standby};
use crate::herd::Herd;
use crate::writer::{self, Pinned, Writer};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Pause before the next attempt to connect.
const RETRY: Duration = Duration::from_millis(50);
/// Pause of the numbered writer after each row: the machine has other work.
const PACE: Duration = Duration::from_millis(4);

/// What the clients of one load share.
#[derive(Clone)]
pub struct Crew {
    /// What they did.
    pub history: Shared,
    /// Numbers that are given out once.
    pub numbers: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    /// Whether the clients are to go on.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// A number nobody else gets.
    pub fn number(&self) -> i64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes commits that the server did not wait for a standby with.
    pub fn note_unwaited(&self, count: u64) {
        self.history.lock().unwrap().unwaited += count;
    }
}

/// The clients at work.
pub struct Load {
    crew: Crew,
    tasks: Vec<JoinHandle<()>>,
    writer: Writer,
    pinned: Vec<Pinned>,
}

impl Load {
    /// Makes the tables and starts everybody.
    pub async fn start(herd: &Herd) -> Result<Self, String> {
        writer::prepare(herd).await;
        let primary = herd.await_primary(20, |_| true).await;
        for table in [load_lists::TABLE, load_register::TABLE, load_bank::TABLE] {
            for statement in table.split(';') {
                herd.nodes[primary].sql(statement).await?;
            }
        }
        let crew = Crew {
            history: Shared::default(),
            numbers: Arc::new(AtomicI64::new(1)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let mut tasks = Vec::new();
        let mut client = 0;
        let mut next = || {
            client += 1;
            client
        };
        let aims = [Aim::Primary, Aim::Primary].into_iter();
        for aim in aims.chain((0..NODES).map(Aim::Node)) {
            tasks.push(tokio::spawn(load_lists::client(crew.clone(), next(), aim)));
            tasks.push(tokio::spawn(load_register::client(crew.clone(), next(), aim)));
        }
        for aim in [Aim::Primary, Aim::Primary] {
            tasks.push(tokio::spawn(load_bank::client(crew.clone(), next(), aim)));
        }
        for node in 0..NODES {
            tasks.push(tokio::spawn(load_standby::client(crew.clone(), next(), node)));
        }
        tasks.push(tokio::spawn(load_cancel::client(crew.clone(), next())));
        Ok(Self {
            crew,
            tasks,
            writer: Writer::start_paced(herd, PACE),
            pinned: Pinned::start_all(herd),
        })
    }

    /// Waits until so many transactions sent from now on are acknowledged; false when the deadline came first.
    pub async fn flows(&self, commits: usize, deadline_s: u64) -> bool {
        let since = matriarch::clock::boot_ns();
        while self.writer.acked_since(since) + self.acknowledged_since(since) < commits {
            if matriarch::clock::boot_ns() - since > deadline_s * 1_000_000_000 {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        true
    }

    fn acknowledged_since(&self, since: u64) -> usize {
        let history = self.crew.history.lock().unwrap();
        let acknowledged = history.acknowledged();
        acknowledged.iter().filter(|call| call.begin > since).count()
    }

    /// Whether a write sent after this moment was acknowledged by a node that is not one of these.
    pub fn flows_elsewhere(&self, nodes: &[usize], since: u64) -> bool {
        let history = self.crew.history.lock().unwrap();
        history
            .acknowledged()
            .iter()
            .any(|call| call.begin > since && !nodes.contains(&call.node))
    }

    /// Ends everybody and hands over what they did.
    pub async fn stop(self) -> History {
        self.crew.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client's task ends");
        }
        let mut rows = self.writer.stop().await;
        rows.append(&mut Pinned::stop_all(self.pinned).await);
        let mut history = std::mem::take(&mut *self.crew.history.lock().unwrap());
        history.rows.append(&mut rows);
        history
    }
}

/// One client's life: connect, work until something goes wrong, connect again.
pub async fn live<Fut>(crew: &Crew, aim: Aim, mut work: impl FnMut(Session) -> Fut)
where
    Fut: Future<Output = ()>,
{
    while crew.goes_on() {
        match Session::open(aim, NODES).await {
            Some(session) => work(session).await,
            None => tokio::time::sleep(RETRY).await,
        }
        tokio::time::sleep(RETRY).await;
    }
}
