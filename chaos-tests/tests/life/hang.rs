//! PostgreSQL hangs: connections are made and nothing is answered, for longer than `primary_hang_timeout`.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::{Herd, Options, Verdict, processes};

const HANG_S: u64 = 2;

async fn herd(mode: Option<&'static str>, hang_s: u64) -> Herd {
    let options = Options {
        synchronous_mode: mode,
        // On a crowded machine a silence would be taken for the fault, and answered by a restart in place.
        dcs: vec![
            format!("primary_hang_timeout: {hang_s}"),
            "fence_after: 5s".to_owned(),
        ],
        ..Options::calm()
    };
    Herd::grown(3, options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_does_not_answer_is_replaced_and_returns_as_a_standby() {
    let verdict = a_hang(None).await;
    // What its walsenders had not sent when they stood still was acknowledged: asynchronous mode may lose so much.
    verdict.demand_sound();
    eprintln!(
        "{} of {} acknowledged rows lost",
        verdict.lost.len(),
        verdict.acked
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quorum_mode_a_primary_that_does_not_answer_is_replaced_and_nothing_is_lost() {
    a_hang(Some("quorum")).await.demand_nothing_lost();
}

async fn a_hang(mode: Option<&'static str>) -> Verdict {
    let herd = herd(mode, HANG_S).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let since = matriarch::clock::boot_ns();
    let frozen = herd.nodes[old].freeze_postgres();
    assert!(frozen.len() > 3, "only {frozen:?} stood still");
    let new = herd.await_primary(10 * HANG_S + 20, |i| i != old).await;
    crowd.await_flow(&herd).await;
    let left: Vec<i32> = frozen
        .into_iter()
        .filter(|pid| processes::is_alive(*pid))
        .collect();
    assert!(left.is_empty(), "{left:?} of the hung PostgreSQL live");
    herd.await_streaming(old, RETURN_S).await;
    assert_eq!(herd.await_whole(RETURN_S).await, new, "the primary moved again");
    let (verdict, writes) = crowd.judge(&herd).await;
    let gap = matriarch_chaos::oracle::gap_s(&writes, since);
    eprintln!("rows stood still for {gap:.2} s");
    assert!(gap < (10 * HANG_S) as f64, "rows stood still for {gap:.2} s");
    assert!(
        herd.nodes[old].log().contains("PostgreSQL has not answered for"),
        "it was replaced for another reason"
    );
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_answers_again_in_time_stays() {
    // Ten times as long as it is made to hang.
    let herd = herd(None, 10 * HANG_S).await;
    let (primary, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let postmaster = herd.nodes[primary].postmaster_pid();
    let frozen = herd.nodes[primary].freeze_postgres();
    tokio::time::sleep(std::time::Duration::from_secs(HANG_S)).await;
    frozen.into_iter().for_each(processes::thaw);
    crowd.await_flow(&herd).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    assert_eq!(herd.nodes[primary].postmaster_pid(), postmaster);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

/// The inversion: with the timeout switched off nobody takes a hung primary's place while its lease is renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_timeout_a_hung_primary_stays() {
    let options = Options::calm().with("primary_hang_timeout: 0");
    let herd = Herd::grown(3, options).await;
    let (primary, _) = herd.await_leader_elsewhere(20).await;
    let frozen = herd.nodes[primary].freeze_postgres();
    tokio::time::sleep(std::time::Duration::from_secs(HANG_S * 3)).await;
    let named = herd.find("who is the primary", 20, async || {
        herd.nodes[primary].explain("/primary/name").await
    });
    assert_eq!(named.await, herd.nodes[primary].name);
    frozen.into_iter().for_each(processes::thaw);
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
}
