//! HAProxy and pgBouncer are told of a change: slow checks do not matter, and a switchover is a wait without an error.

use crate::haproxy;
use crate::pgbouncer::{Pooler, Servers};
use crate::{FAILOVER_S, RETURN_S, arrive, arrives_at, front, through};
use matriarch::clock::boot_ns;
use matriarch_chaos::companions::{self, program};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{FORM_S, Herd, Node, Options};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Config, NoTls};

/// HAProxy's own checks need twice three seconds for a new server (`rise 2`), and this starts when it serves.
const TOLD_S: u64 = 5;
const CLIENTS: usize = 4;

/// What a client saw: when it was answered last, how long it waited at most, and what went wrong.
#[derive(Default)]
struct Seen {
    longest_ns: u64,
    rows: u64,
    errors: Vec<String>,
}

/// Clients that write rows through the pooler and never give up.
struct Writers {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(config: &Config) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let tasks = (0..CLIENTS).map(|_| tokio::spawn(write(config.clone(), seen.clone(), stop.clone())));
        let tasks = tasks.collect();
        Self { seen, stop, tasks }
    }

    fn rows(&self) -> u64 {
        self.seen.lock().unwrap().rows
    }

    /// Waits until rows flow.
    async fn await_flow(&self, herd: &Herd) {
        let before = self.rows();
        herd.until("rows through pgBouncer", FAILOVER_S, async || {
            self.rows() > before + 20
        })
        .await;
    }

    async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn write(config: Config, seen: Arc<Mutex<Seen>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let (client, connection) = match config.connect(NoTls).await {
            Ok(connected) => connected,
            Err(error) => {
                seen.lock().unwrap().errors.push(error.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let driver = tokio::spawn(connection);
        while !stop.load(Ordering::SeqCst) {
            let sent = boot_ns();
            let outcome = client.batch_execute("INSERT INTO told VALUES (1)").await;
            let mut seen = seen.lock().unwrap();
            match outcome {
                Ok(()) => {
                    seen.rows += 1;
                    seen.longest_ns = seen.longest_ns.max(boot_ns() - sent);
                }
                Err(error) => {
                    seen.errors.push(matriarch_chaos::writer::describe(&error));
                    break;
                }
            }
        }
        driver.abort();
    }
}

/// Adds the section to a node's file.
fn configure(herd: &Herd, node: &Node) {
    let section = format!(
        "notify:\n  haproxy:\n    socket: {}\n    backend: habit-primary\n  pgbouncer:\n    address: {}:6432\n    \
         password: {PASSWORD}\n    hosts_file: {}\n",
        companions::haproxy_socket(herd.dir()).display(),
        front(herd),
        Pooler::hosts_file(herd).display()
    );
    let text = std::fs::read_to_string(node.file()).unwrap();
    std::fs::write(node.file(), text + &section).unwrap();
}

/// A daemon that was killed while the pooler was paused lets the clients go when it is back.
async fn let_go(herd: &mut Herd, pooler: &Pooler, primary: usize) {
    let standby = herd.others(primary)[0];
    let (console, connection) = pooler.console(herd).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    console.batch_execute("PAUSE").await.unwrap();
    let label = front(herd).to_string().replace('.', "-");
    let mark = herd.nodes[standby]
        .dir
        .join(format!("raft/pgbouncer-{label}-6432.paused"));
    herd.nodes[standby].kill_daemon();
    std::fs::write(&mark, "").unwrap();
    assert!(
        !arrives_at(herd, &pooler.client(herd), primary).await,
        "it is not paused"
    );
    herd.nodes[standby].start();
    herd.until("the pooler goes on", RETURN_S, async || {
        arrives_at(herd, &pooler.client(herd), primary).await
    })
    .await;
    herd.until("the mark is gone", RETURN_S, async || !mark.exists())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_and_pgbouncer_hear_of_a_change_at_once() {
    let (Some(balancer), Some(pgbouncer)) = (program("haproxy"), program("pgbouncer")) else {
        return;
    };
    let mut herd = Herd::new(3, Options::calm());
    let _balancer = haproxy::start(&balancer, &herd);
    std::fs::write(Pooler::hosts_file(&herd), "").unwrap();
    let pooler = Pooler::start(&pgbouncer, &herd, &Servers::Named, "transaction", 6432);
    for node in &herd.nodes {
        configure(&herd, node);
    }
    herd.nodes.iter_mut().for_each(Node::start);
    let first = herd.await_whole(FORM_S).await;
    herd.nodes[first].sql("CREATE TABLE told (n int)").await.unwrap();
    let slow = through(&herd, front(&herd), 5100);
    for config in [&slow, &pooler.client(&herd)] {
        herd.until("a way to the primary", FAILOVER_S, async || {
            arrives_at(&herd, config, first).await
        })
        .await;
    }
    let writers = Writers::start(&pooler.client(&herd));
    writers.await_flow(&herd).await;
    let second = herd.others(first)[0];
    herd.switch_over(first, second).await;
    herd.until("HAProxy leads to the new primary", TOLD_S, async || {
        arrives_at(&herd, &slow, second).await
    })
    .await;
    writers.await_flow(&herd).await;
    let seen = writers.stop().await;
    println!(
        "switchover through pgBouncer: {} rows, longest wait {:.3} s",
        seen.rows,
        Duration::from_nanos(seen.longest_ns).as_secs_f64()
    );
    let log = herd.nodes[first].log();
    let told = log
        .lines()
        .filter(|line| line.contains("paused") || line.contains("for the switchover"));
    let told: Vec<&str> = told.collect();
    assert!(seen.errors.is_empty(), "{:?}: {told:#?}", seen.errors);
    herd.await_whole(RETURN_S).await;
    // A failover: nobody was asked to wait, and both go to the new primary.
    let writers = Writers::start(&pooler.client(&herd));
    writers.await_flow(&herd).await;
    herd.nodes[second].kill_whole();
    for config in [&slow, &pooler.client(&herd)] {
        herd.until(
            "both lead to a new primary",
            FAILOVER_S,
            async || matches!(arrive(&herd, config).await, Some((_, node, false)) if node != second),
        )
        .await;
    }
    writers.await_flow(&herd).await;
    writers.stop().await;
    herd.nodes[second].start();
    let third = herd.await_whole(RETURN_S).await;
    let_go(&mut herd, &pooler, third).await;
}
