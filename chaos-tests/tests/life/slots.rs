//! Replication slots of members that are away: kept for as long as was asked for, on every node that may be primary.

use crate::RETURN_S;
use crate::wal_gone::inode;
use matriarch_chaos::{FORM_S, Herd, Options};

/// Ten times what may pass between the end of the patience and the end of a slot.
const GONE_S: u64 = 30;

/// Nodes that have a slot for this member.
async fn keepers(herd: &Herd, of: &str, among: &[usize]) -> usize {
    let count = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{of}'");
    let mut keepers = 0;
    for &node in among {
        keepers += usize::from(herd.nodes[node].sql(&count).await.as_deref() == Ok("1"));
    }
    keepers
}

async fn configured(herd: &Herd, node: usize, change: &str) -> (u16, String) {
    herd.nodes[node].order("PATCH", "/config", change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stays_away_loses_its_slots_and_has_them_again_when_it_is_back() {
    let mut herd = Herd::three().await;
    let primary = herd.await_whole(FORM_S).await;
    let away = herd.others(primary)[0];
    let name = herd.nodes[away].name.clone();
    let rest = herd.others(away);
    herd.until("both others keep its slot", RETURN_S, async || {
        keepers(&herd, &name, &rest).await == 2
    })
    .await;
    let (status, why) = configured(&herd, primary, r#"{"member_slots_ttl": "soon"}"#).await;
    assert_eq!(status, 422, "{why}");
    assert!(why.contains("member_slots_ttl"), "{why}");
    let (status, why) = configured(&herd, primary, r#"{"member_slots_ttl": 600}"#).await;
    assert_eq!(status, 200, "{why}");

    herd.nodes[away].kill_whole();
    herd.until("it is shown to be away", RETURN_S, async || {
        let senders = "SELECT count(*) FROM pg_stat_replication";
        herd.nodes[primary].sql(senders).await.as_deref() == Ok("1")
    })
    .await;
    assert_eq!(keepers(&herd, &name, &rest).await, 2, "ten minutes are not over");
    // The one that is away may have led Raft.
    herd.until("the patience is shorter", RETURN_S, async || {
        configured(&herd, primary, r#"{"member_slots_ttl": 1}"#).await.0 == 200
    })
    .await;
    herd.until("nobody keeps its slot", GONE_S, async || {
        keepers(&herd, &name, &rest).await == 0
    })
    .await;

    herd.nodes[away].start();
    herd.await_streaming(away, FORM_S).await;
    herd.until("both others keep its slot again", GONE_S, async || {
        keepers(&herd, &name, &rest).await == 2
    })
    .await;
}

/// The primary has changed while it was away, and the new one has what it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_missed_is_kept_through_a_switchover() {
    let mut herd = Herd::grown(3, Options::short_log()).await;
    let old = herd.await_whole(FORM_S).await;
    let (away, new) = (herd.others(old)[0], herd.others(old)[1]);
    let name = herd.nodes[away].name.clone();
    herd.until("the standby keeps a slot, too", RETURN_S, async || {
        keepers(&herd, &name, &[new]).await == 1
    })
    .await;
    herd.nodes[away].kill_whole();
    let before = inode(&herd.nodes[away]);
    herd.fill_log(old, 8).await;
    let sql = async |node: usize, text: &str| herd.nodes[node].sql(text).await.unwrap();
    let end = sql(old, "SELECT pg_current_wal_lsn()").await;
    let there = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
    herd.until("the standby has it all", RETURN_S, async || {
        herd.nodes[new].sql(&there).await.as_deref() == Ok("t")
    })
    .await;
    for node in [old, old, new, new] {
        sql(node, "CHECKPOINT").await;
    }
    herd.switch_over(old, new).await;
    herd.nodes[away].start();
    herd.await_streaming(away, FORM_S).await;
    assert_eq!(
        inode(&herd.nodes[away]),
        before,
        "it was copied: {}",
        herd.nodes[away].log()
    );
    let rows = herd.nodes[away].sql("SELECT count(*) FROM filler").await;
    assert_eq!(rows.as_deref(), Ok("8"));
    herd.until("the slots move on with their members", GONE_S, async || {
        let kept = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn < '{end}'::pg_lsn AND slot_name <> '{}'",
            herd.nodes[old].name
        );
        let mut behind = Vec::new();
        for node in &herd.nodes {
            behind.push(node.sql(&kept).await);
        }
        behind.iter().all(|count| count.as_deref() == Ok("0"))
    })
    .await;
}
