//! Measurements, run by hand: `cargo test -p matriarch-raft --test measure -- --ignored --nocapture --test-threads 1`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::Duration;

use common::Cluster;
use tokio::time::{Instant, sleep};

async fn three() -> Cluster {
    let mut cluster = by_default();
    for i in 0..3 {
        cluster.start(i).await;
    }
    cluster.leader().await;
    cluster
}

/// Three members with the timings that everybody has.
fn by_default() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.timing = (50, 200, 400);
    cluster
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |p: usize| times[(times.len() - 1) * p / 100];
    println!(
        "{what}: n {} p50 {:?} p99 {:?} max {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
}

/// User and system time of this process so far, from clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idle_cpu_of_three_nodes() {
    let mut cluster = three().await;
    sleep(Duration::from_secs(2)).await;
    let (before, began) = (cpu(), Instant::now());
    sleep(Duration::from_secs(20)).await;
    let share = (cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!(
        "idle, heartbeat 50 ms: {share:.2} % of a core for three nodes, {:.2} % each",
        share / 3.0
    );
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn time_of_a_proposal() {
    let mut cluster = three().await;
    let leader = cluster.leader().await;
    for (what, node) in [
        ("at the leader", leader),
        ("through a follower", (leader + 1) % 3),
    ] {
        let mut times = Vec::new();
        for _ in 0..500 {
            let began = Instant::now();
            cluster.group(node).propose(vec![7; 200]).await.unwrap();
            times.push(began.elapsed());
        }
        percentiles(&format!("proposal of 200 bytes {what}"), times);
    }
    let mut times = Vec::new();
    for _ in 0..500 {
        let began = Instant::now();
        cluster.group(leader).confirm().await.unwrap();
        times.push(began.elapsed());
    }
    percentiles("confirm", times);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn time_of_a_failover() {
    let mut times = Vec::new();
    let mut cluster = three().await;
    for n in 0..15u8 {
        let leader = cluster.leader().await;
        let began = Instant::now();
        cluster.stop(leader).await;
        let survivor = (leader + 1) % 3;
        cluster.group(survivor).propose(vec![n]).await.unwrap();
        times.push(began.elapsed());
        cluster.start(leader).await;
        cluster.level().await;
    }
    percentiles("leader gone to first committed write, 50/200/400", times);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn time_of_a_hand_over() {
    let mut times = Vec::new();
    let mut cluster = three().await;
    for n in 0..15u8 {
        let leader = cluster.leader().await;
        let to = (leader + 1) % 3;
        let id = cluster.id(to).await;
        cluster
            .wait(leader, "a level voter", |s| s.peers_level.contains(&(id, true)))
            .await;
        let began = Instant::now();
        cluster.group(leader).hand_over(id).await.unwrap();
        cluster.group(to).propose(vec![n]).await.unwrap();
        times.push(began.elapsed());
        cluster.wait(to, "the leadership", |s| s.lead.is_some()).await;
        cluster.level().await;
    }
    percentiles("hand-over to first committed write", times);
    cluster.close().await;
}
