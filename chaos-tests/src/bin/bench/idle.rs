//! What a cluster costs in which nothing happens.

use crate::beats::Beats;
use matriarch_chaos::{Herd, Options, node::Node, processes};
use std::time::Duration;

/// Time for the herd to come to rest after it has formed.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory and processor time for each process of each node, and how far the Raft log has grown.
pub(crate) async fn measure(ttl: f64, seconds: u64) -> String {
    let herd = Herd::grown(
        3,
        Options {
            ttl,
            ..Options::default()
        },
    )
    .await;
    tokio::time::sleep(SETTLE).await;
    let before: Vec<Sample> = sample(&herd).await;
    let beats = Beats::begin();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let floor = beats.and_then(Beats::end);
    let after: Vec<Sample> = sample(&herd).await;
    let mut text = format!(
        "`make bench-idle` ({seconds} s, ttl {ttl} s)\n\n\
         | node | daemon resident / anonymous, MiB | daemon CPU, % of one core | guard resident / anonymous, MiB | \
         guard CPU, % | PostgreSQL CPU, % | Raft log entries appended |\n|---|---|---|---|---|---|---|\n"
    );
    for (node, (then, now)) in herd.nodes.iter().zip(before.iter().zip(&after)) {
        let percent = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e7 / seconds as f64;
        let mib = |kib: u64| kib as f64 / 1024.0;
        let entries = match (then.log_index, now.log_index) {
            (Some(from), Some(to)) => (to - from).to_string(),
            _ => "not shown".to_owned(),
        };
        text.push_str(&format!(
            "| {}{} | {:.1} / {:.1} | {:.2} | {:.1} / {:.1} | {:.2} | {:.2} | {entries} |\n",
            node.name,
            now.roles,
            mib(now.daemon.resident_kib),
            mib(now.daemon.anonymous_kib),
            percent(then.daemon.cpu_ns, now.daemon.cpu_ns),
            mib(now.guard.resident_kib),
            mib(now.guard.anonymous_kib),
            percent(then.guard.cpu_ns, now.guard.cpu_ns),
            percent(then.postgres_ns, now.postgres_ns),
        ));
    }
    let percent = |ns: u64| ns as f64 / 1e7 / seconds as f64;
    match floor {
        Ok(floor) => text.push_str(&format!(
            "\nThe floor, in the same {seconds} s: a bare thread that sends two heartbeats every 50 ms and reads their answers, \
             {:.2} %; one that answers them, {:.2} %.\n",
            percent(floor.leader_ns),
            percent(floor.follower_ns)
        )),
        Err(why) => text.push_str(&format!("\nThe floor could not be measured: {why}\n")),
    }
    text
}

struct Sample {
    daemon: processes::Usage,
    guard: processes::Usage,
    postgres_ns: u64,
    log_index: Option<u64>,
    roles: String,
}

async fn sample(herd: &Herd) -> Vec<Sample> {
    let (primary, leader) = (herd.primary().await, herd.raft_leader().await);
    let mut samples = Vec::new();
    for (i, node) in herd.nodes.iter().enumerate() {
        let mut roles = String::new();
        if primary == Some(i) {
            roles.push_str(", primary");
        }
        if leader == Some(i) {
            roles.push_str(", Raft leader");
        }
        samples.push(sample_node(node, roles).await);
    }
    samples
}

async fn sample_node(node: &Node, roles: String) -> Sample {
    let postgres = node.postgres_processes();
    Sample {
        daemon: processes::usage(node.daemon_pid()),
        guard: node.guard_pid().map(processes::usage).unwrap_or_default(),
        postgres_ns: postgres
            .iter()
            .map(|process| processes::usage(process.pid).cpu_ns)
            .sum(),
        log_index: node
            .explain("/raft/last_log")
            .await
            .and_then(|text| text.parse().ok()),
        roles,
    }
}
