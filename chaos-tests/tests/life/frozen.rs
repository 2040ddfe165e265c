//! The whole machine stands still for longer than the lease, and goes on: who is first, the guard or a client's commit?

use crate::{FAILOVER_S, RETURN_S};
use matriarch::clock::boot_ns;
use matriarch_chaos::freezer::Freezer;
use matriarch_chaos::{Herd, Node, Writer, writer};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

/// Clients that wait for their answer however long it takes: each has a commit under way when the machine freezes.
const PATIENT: i32 = 8;
/// On a busy machine a client may see so late what had come for it; without the fence answers would come for ever.
const LATE_NS: u64 = 1_000_000_000;

/// Commits on one node until the connection breaks; when each answer came.
async fn patient(node: &Node, number: i32) -> JoinHandle<Vec<u64>> {
    let (client, connection) = node
        .client_config()
        .connect(NoTls)
        .await
        .expect("a patient client");
    tokio::spawn(connection);
    tokio::spawn(async move {
        let mut answers = Vec::new();
        let mut row = 0_i64;
        while client
            .execute("INSERT INTO judge VALUES ($1, $2)", &[&(100 + number), &row])
            .await
            .is_ok()
        {
            answers.push(boot_ns());
            row += 1;
        }
        answers
    })
}

/// Freezes the primary's daemon, guard and PostgreSQL together until another writes, and thaws them. Answers the
/// old primary's acknowledgements after that, in microseconds after the thaw.
async fn freeze_once(herd: &Herd) -> Option<Vec<u64>> {
    let (old, _) = herd.await_leader_elsewhere(RETURN_S).await;
    writer::prepare(herd).await;
    let crowd = Writer::start(herd);
    crowd.await_flow(herd, 30, 20).await;
    let mut clients = Vec::new();
    for number in 0..PATIENT {
        clients.push(patient(&herd.nodes[old], number).await);
    }
    crowd.await_flow(herd, 30, 20).await;
    let freezer = Freezer::around(&herd.nodes[old].dir)?;
    freezer.freeze();
    let frozen = boot_ns();
    crowd.await_flow(herd, 30, FAILOVER_S).await;
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    let thawed = freezer.thaw();
    let mut late = Vec::new();
    for client in clients {
        let answers = tokio::time::timeout(Duration::from_secs(RETURN_S), client)
            .await
            .expect("the old primary's connections end")
            .expect("a client's task ends");
        assert!(
            answers
                .iter()
                .all(|answer| *answer < frozen + LATE_NS || *answer > thawed),
            "it was not frozen"
        );
        late.extend(
            answers
                .iter()
                .filter(|answer| **answer > thawed)
                .map(|answer| (answer - thawed) / 1_000),
        );
    }
    late.sort_unstable();
    crowd.stop().await;
    herd.await_streaming(old, RETURN_S).await;
    Some(late)
}

/// What is promised: nothing without a watchdog. What is seen: at most the answers that were under way, and no more
/// once the guard has had a moment. `FREEZES=20` for a measurement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_thaws_after_its_lease_ends_postgresql_at_once() {
    let freezes = std::env::var("FREEZES").ok().and_then(|text| text.parse().ok());
    let herd = Herd::three().await;
    let mut thaws = Vec::new();
    for _ in 0..freezes.unwrap_or(1) {
        let Some(late) = freeze_once(&herd).await else {
            eprintln!("no control groups here: nothing was frozen, nothing is shown");
            return;
        };
        println!("acknowledged after the thaw: {} at {late:?} us", late.len());
        thaws.push(late);
    }
    let with = thaws.iter().filter(|late| !late.is_empty()).count();
    let latest = thaws.iter().flatten().max();
    println!(
        "{with} of {} thaws let an acknowledgement out, the latest {latest:?} us after the thaw",
        thaws.len()
    );
    assert!(
        latest.is_none_or(|latest| *latest < LATE_NS / 1_000),
        "PostgreSQL went on for {latest:?} us"
    );
}
