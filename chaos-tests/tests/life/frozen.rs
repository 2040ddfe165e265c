//! The whole machine stands still for longer than the lease, and goes on: who is first, the guard or a client's commit?

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::Herd;
use matriarch_chaos::freezer::Freezer;
use matriarch_chaos::writer::{Outcome, Write};

/// What a thaw showed.
struct Thaw {
    /// Acknowledgements of the old primary that ended after the thaw, in microseconds after it.
    late_us: Vec<u64>,
}

/// Freezes the primary's daemon, guard and PostgreSQL together until another writes, and thaws them.
async fn freeze_once(herd: &Herd) -> Option<Thaw> {
    let (old, _) = herd.await_leader_elsewhere(RETURN_S).await;
    let crowd = Crowd::gather(herd).await;
    let freezer = Freezer::around(&herd.nodes[old].dir)?;
    freezer.freeze();
    crowd.await_flow(herd).await;
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    freezer.take(&herd.nodes[old].dir);
    let thawed = freezer.thaw();
    herd.await_streaming(old, RETURN_S).await;
    let mut writes = crowd.writer.stop().await;
    writes.append(&mut matriarch_chaos::Pinned::stop_all(crowd.pinned).await);
    let timeline = |write: &Write| match write.outcome {
        Outcome::Acked { timeline } => Some(timeline),
        Outcome::Refused | Outcome::Unknown => None,
    };
    let newest = writes.iter().filter_map(timeline).max();
    let late = writes
        .iter()
        .filter(|write| write.node == old && write.ended > thawed && timeline(write) < newest);
    let late_us = late
        .filter(|write| write.is_acked())
        .map(|write| (write.ended - thawed) / 1_000)
        .collect();
    Some(Thaw { late_us })
}

/// What is promised: nothing without a watchdog. What is seen: at most the answers that were under way, and no more
/// once the guard has had a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_thaws_after_its_lease_ends_postgresql_before_anything_else() {
    let freezes = std::env::var("FREEZES").ok().and_then(|text| text.parse().ok());
    let herd = Herd::three().await;
    let mut thaws = Vec::new();
    for _ in 0..freezes.unwrap_or(1) {
        let Some(thaw) = freeze_once(&herd).await else {
            eprintln!("no control groups here: nothing was frozen, nothing is shown");
            return;
        };
        println!(
            "acknowledged after the thaw: {} at {:?} us",
            thaw.late_us.len(),
            thaw.late_us
        );
        thaws.push(thaw);
    }
    let with = thaws.iter().filter(|thaw| !thaw.late_us.is_empty()).count();
    let latest = thaws.iter().flat_map(|thaw| &thaw.late_us).max();
    println!(
        "{with} of {} thaws let an acknowledgement out, the latest {latest:?} us after the thaw",
        thaws.len()
    );
    assert!(
        latest.is_none_or(|latest| *latest < 500_000),
        "PostgreSQL went on for {latest:?} us"
    );
}
