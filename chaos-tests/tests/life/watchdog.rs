//! The watchdog: fed while the lease lives, disarmed when nothing is left, and the last resort when all stand still.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::kennel::Kennel;
use matriarch_chaos::{FORM_S, Herd, Node, Options, processes};

/// Half of a lease is left for the device to be late in: it is a thread that a busy machine may let wait.
const REQUIRED: &str =
    "watchdog:\n  mode: required\n  device: '{dir}/watchdog'\n  driver: testing\n  safety_margin: -1\n";

/// A herd in which these nodes have a watchdog; all of them need one.
async fn grown(with: &[usize]) -> (Herd, Vec<Kennel>) {
    let mut herd = Herd::new(
        3,
        Options {
            sections: REQUIRED.to_owned(),
            ..Options::calm()
        },
    );
    let kennels = with
        .iter()
        .map(|node| Kennel::open(&herd.nodes[*node].dir))
        .collect();
    herd.nodes.iter_mut().for_each(Node::start);
    herd.await_whole(FORM_S).await;
    (herd, kennels)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_fed_by_the_primary_alone_and_disarmed_after_the_fence() {
    let (herd, kennels) = grown(&[0, 1, 2]).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let armed = |node: usize| kennels[node].seen().timeout_ns.is_some();
    herd.until("the primary's device alone is armed", 20, async || {
        (0..3).all(|node| armed(node) == (node == old))
    })
    .await;
    let before = kennels[old].seen().disarmed.len();
    herd.nodes[old].freeze_daemon();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    crowd.await_flow(&herd).await;
    herd.until("all reaped, so disarmed", 20, async || {
        let seen = kennels[old].seen();
        (seen.timeout_ns, seen.disarmed.len()) == (None, before + 1)
    })
    .await;
    let seen = kennels[old].seen();
    assert!(seen.resets.is_empty(), "a fence that works resets nothing");
    herd.until("the next primary's device is armed", 20, async || armed(new))
        .await;
    herd.nodes[old].thaw_daemon();
    herd.await_streaming(old, RETURN_S).await;
    crowd.judge(&herd).await.0.demand_sound();
    assert!(kennels.iter().all(|kennel| kennel.seen().resets.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_and_guard_stand_still_and_the_node_is_reset_before_another_writes() {
    let (mut herd, kennels) = grown(&[0, 1, 2]).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let guard = herd.nodes[old].guard_pid().expect("a guard runs");
    // PostgreSQL runs on, and nobody is left to end it: without the device two nodes would write.
    herd.nodes[old].freeze_daemon();
    processes::freeze(guard);
    // PostgreSQL's own rows flow until the reset, so the flow that counts begins with another primary.
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    crowd.await_flow(&herd).await;
    let seen = kennels[old].seen();
    assert_eq!(seen.resets.len(), 1, "{seen:?}");
    assert!(processes::of(&herd.nodes[old].dir).is_empty());
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_sound();
    let first = writes
        .iter()
        .filter(|write| write.node != old && write.is_acked())
        .map(|write| write.ended)
        .min()
        .expect("another node has acknowledged");
    let ahead_ms = first.saturating_sub(seen.resets[0]) / 1_000_000;
    println!("reset {ahead_ms} ms before another node's first acknowledgement");
    assert!(seen.resets[0] < first);
    // Its child was killed by the reset: only now is that noted.
    herd.nodes[old].reap();
    herd.nodes[old].start();
    herd.await_streaming(old, RETURN_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_watchdog_it_needs_is_not_promoted_and_says_why() {
    let (herd, _kennels) = grown(&[1, 2]).await;
    let primary = herd.await_primary(20, |_| true).await;
    assert_ne!(primary, 0, "it has no watchdog");
    herd.until("the reason in explain", 20, async || {
        let explain = herd.nodes[primary].get("/explain").await;
        explain.is_some_and(|(_, text)| {
            text.contains("is required, but it cannot be used: No such file or directory")
        })
    })
    .await;
}
