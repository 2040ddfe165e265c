//! Three members over loopback: forming, proposing, losing the leader, coming back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::time::Duration;

use tokio::time::timeout;

use common::{Cluster, logs};
use matriarch_raft::{AskError, ProposeError};

#[tokio::test(flavor = "multi_thread")]
async fn three_form_and_a_follower_forwards_a_proposal() {
    logs();
    let mut cluster = Cluster::calm(3);
    for i in [2, 0, 1] {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let answer = cluster.group(follower).propose(b"one".to_vec()).await.unwrap();
    assert_eq!(answer, 1usize.to_le_bytes());
    cluster.level().await;
    for i in 0..3 {
        assert_eq!(cluster.applied(i), [b"one".to_vec()]);
    }
    cluster.confirmed().await;
    cluster.group(leader).confirm_by_heartbeat().await.unwrap();
    assert!(cluster.group(follower).confirm().await.is_err());
    assert!(cluster.group(follower).confirm_by_heartbeat().await.is_err());
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_form_and_the_third_is_taken_in_later() {
    logs();
    let mut cluster = Cluster::new(3);
    cluster.start(0).await;
    cluster.start(1).await;
    cluster.group(0).propose(b"early".to_vec()).await.ok();
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"one".to_vec()).await.unwrap();
    cluster.start(2).await;
    // The newcomer becomes a voter in place of the founder's id that never came up.
    let id = cluster
        .wait(2, "its admission", |s| {
            s.joined && s.voters.iter().any(|v| v.id == s.id)
        })
        .await
        .id;
    let voters = cluster.wait(leader, "three voters", |s| {
        s.voters.len() == 3 && s.voters.iter().any(|v| v.id == id)
    });
    let voters = voters.await.voters;
    assert!(
        voters.iter().all(|v| cluster.addrs.contains(&v.addr)),
        "{voters:?}"
    );
    cluster.level().await;
    assert_eq!(cluster.applied(2).last().unwrap(), b"one");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_empty_node_forms_nothing() {
    logs();
    let mut cluster = Cluster::new(3);
    cluster.start(0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let status = cluster.group(0).status().borrow().clone();
    assert_eq!((status.id, status.joined, status.lead), (0, false, None));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_configured_node_is_its_own_group() {
    logs();
    let mut cluster = Cluster::new(1);
    cluster.start(0).await;
    assert_eq!(cluster.leader().await, 0);
    cluster.group(0).propose(b"one".to_vec()).await.unwrap();
    cluster.confirmed().await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_list_other_voters_do_not_form() {
    logs();
    let mut cluster = Cluster::new(3);
    cluster.start(0).await;
    for i in [1, 2] {
        let mut settings = cluster.settings(i);
        settings.partners.push("127.9.9.9:9999".to_owned());
        settings.partners.push("127.9.9.8:9999".to_owned());
        cluster.start_with(i, settings).await.unwrap();
    }
    // Three of the five are a majority of the longer list, all agree but for node0.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for i in 0..3 {
        assert!(!cluster.group(i).status().borrow().joined);
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_and_returns_as_a_follower() {
    logs();
    let mut cluster = Cluster::calm(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let first = cluster.leader().await;
    let reign = cluster.group(first).status().borrow().lead.unwrap();
    cluster.group(first).propose(b"one".to_vec()).await.unwrap();
    cluster.stop(first).await;
    let second = cluster.leader().await;
    let next = cluster.group(second).status().borrow().lead.unwrap();
    assert!(next.term > reign.term);
    cluster.group(second).propose(b"two".to_vec()).await.unwrap();
    cluster.start(first).await;
    cluster
        .wait(first, "the second entry", |s| {
            s.leader.as_ref().is_some_and(|l| l.id == next.node)
        })
        .await;
    cluster.level().await;
    assert_eq!(cluster.applied(first), [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(
        cluster.group(second).status().borrow().lead,
        Some(next),
        "the return must not cost an election"
    );
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_stops_saying_so() {
    logs();
    let mut cluster = Cluster::new(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let longest = Duration::from_millis(cluster.timing.2);
    cluster.stop((leader + 1) % 3).await;
    cluster.stop((leader + 2) % 3).await;
    let lost = tokio::time::Instant::now();
    cluster
        .wait(leader, "the loss of the quorum", |s| s.lead.is_none())
        .await;
    assert!(lost.elapsed() < 10 * longest, "{:?}", lost.elapsed());
    assert!(cluster.group(leader).confirm().await.is_err());
    let refused = cluster.group(leader).propose(b"lost".to_vec()).await;
    assert!(
        matches!(refused, Err(ProposeError::Refused(_) | ProposeError::Unknown(_))),
        "{refused:?}"
    );
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_restart_and_remember() {
    logs();
    let mut cluster = Cluster::new(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    for n in 0..20u8 {
        cluster.group(leader).propose(vec![n]).await.unwrap();
    }
    let mut ids = Vec::new();
    for i in 0..3 {
        ids.push(cluster.id(i).await);
    }
    cluster.close().await;
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"after".to_vec()).await.unwrap();
    cluster.level().await;
    for (i, id) in ids.into_iter().enumerate() {
        assert_eq!(cluster.id(i).await, id, "a kept store keeps its id");
        assert_eq!(cluster.applied(i).len(), 21);
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_returns_under_a_new_id_and_its_old_one_is_dropped() {
    logs();
    let mut cluster = Cluster::calm(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    let old = cluster.id(wiped).await;
    let old_store = cluster.dir.path().join("old");
    cluster.group(leader).propose(b"one".to_vec()).await.unwrap();
    cluster.stop(wiped).await;
    std::fs::rename(cluster.data_dir(wiped), &old_store).unwrap();

    cluster.start(wiped).await;
    let id = cluster
        .wait(wiped, "its admission", |s| {
            s.joined && s.voters.iter().any(|v| v.id == s.id)
        })
        .await
        .id;
    assert_ne!(id, old);
    let status = cluster
        .wait(leader, "the old id to go", |s| {
            s.voters.iter().all(|v| v.id != old)
        })
        .await;
    assert_eq!(status.voters.len(), 3);
    cluster.level().await;
    assert_eq!(cluster.applied(wiped), [b"one".to_vec()]);

    // The old store comes back from a backup: it is refused and disturbs nobody.
    let reign = cluster.group(cluster.leader().await).status().borrow().lead;
    cluster.wipe(wiped).await;
    std::fs::rename(&old_store, cluster.data_dir(wiped)).unwrap();
    cluster.start(wiped).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let survivor = cluster.leader().await;
    assert_eq!(cluster.group(survivor).status().borrow().lead, reign);
    let refused = cluster.group(wiped).ask(
        cluster.id(survivor).await,
        b"hello".to_vec(),
        Duration::from_secs(1),
    );
    assert!(refused.await.is_err(), "an id that was replaced is refused");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_to_a_level_voter() {
    logs();
    let mut cluster = Cluster::calm(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let id = cluster.id(to).await;
    cluster
        .wait(leader, "a level voter", |s| s.peers_level.contains(&(id, true)))
        .await;
    cluster.group(leader).hand_over(id).await.unwrap();
    cluster.wait(to, "the leadership", |s| s.lead.is_some()).await;
    cluster
        .wait(leader, "the new leader", |s| {
            s.leader.as_ref().is_some_and(|l| l.id == id)
        })
        .await;
    assert!(cluster.group(leader).hand_over(id).await.is_err());
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_travel_beside_the_log_with_the_senders_proven_name() {
    logs();
    let mut cluster = Cluster::new(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let (from, to) = (cluster.group((leader + 1) % 3).clone(), cluster.id(leader).await);
    let knows = |s: &matriarch_raft::Status| s.voters.iter().any(|voter| voter.id == to);
    cluster
        .wait((leader + 1) % 3, "the follower that knows its voters", knows)
        .await;
    let answer = from.ask(to, b"report".to_vec(), common::STEP).await.unwrap();
    assert_eq!(answer, format!("node{}:report", (leader + 1) % 3).into_bytes());
    let unknown = from.ask(42, Vec::new(), Duration::from_secs(1)).await;
    assert_eq!(unknown, Err(AskError::NoSuchPeer(42)));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_hurry_arrives_and_what_needs_no_answer_gets_none() {
    logs();
    let mut cluster = Cluster::new(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let (i, to) = ((leader + 1) % 3, cluster.id(leader).await);
    let knows = |s: &matriarch_raft::Status| s.voters.iter().any(|voter| voter.id == to);
    cluster.wait(i, "the follower that knows its voters", knows).await;
    let from = cluster.group(i).clone();
    let mut heard = cluster.running[leader].as_ref().unwrap().heard.clone();
    // The first one learns what the peer speaks; from then on there is a lane for it.
    for turn in ["one", "two", "three"] {
        let answer = from.ask_at_leisure(to, turn.into(), common::STEP).await;
        assert_eq!(answer.unwrap(), format!("node{i}:{turn}").into_bytes());
        let told = format!("told {turn}");
        from.tell(to, told.clone().into(), common::STEP).await.unwrap();
        let arrived = heard.wait_for(|heard| heard.contains(&format!("node{i}:{told}")));
        timeout(common::STEP, arrived)
            .await
            .unwrap_or_else(|_| panic!("{told:?} does not arrive"))
            .unwrap();
    }
    assert_eq!(
        from.tell(42, Vec::new(), Duration::from_secs(1)).await,
        Err(AskError::NoSuchPeer(42))
    );
    cluster.stop(leader).await;
    let noticed = async { while from.tell(to, b"anybody?".to_vec(), common::STEP).await.is_ok() {} };
    timeout(common::STEP, noticed)
        .await
        .expect("it goes on telling a member that is gone");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_halts_takes_its_node_out_of_service() {
    logs();
    let mut cluster = Cluster::new(1);
    cluster.start(0).await;
    cluster.leader().await;
    let _ = cluster.group(0).propose(b"halt".to_vec()).await;
    let status = cluster.wait(0, "the fatal end", |s| s.fatal.is_some()).await;
    assert!(status.fatal.unwrap().contains("does not know"));
    assert_eq!(status.lead, None);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_clear_sentence() {
    let mut cluster = Cluster::new(1);
    let _taken = std::net::TcpListener::bind(&cluster.addrs[0]).unwrap();
    let settings = cluster.settings(0);
    let error = cluster.start_with(0, settings).await.unwrap_err();
    assert!(error.to_string().contains(&cluster.addrs[0]), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_password_and_certificates_only_loopback_is_accepted() {
    let mut cluster = Cluster::new(3);
    let mut settings = cluster.settings(0);
    settings.password = None;
    settings.partners[0] = "192.0.2.7:2222".to_owned();
    let error = cluster.start_with(0, settings).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("192.0.2.7:2222 is not a loopback address"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_missed_purged_entries_gets_a_snapshot() {
    logs();
    let mut cluster = Cluster::calm(3);
    for i in 0..3 {
        cluster.start(i).await;
    }
    let leader = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.stop(late).await;
    // More than a snapshot's interval and what is kept behind it.
    let mut proposals = tokio::task::JoinSet::new();
    for n in 0..64u32 {
        let group = cluster.group(leader).clone();
        proposals.spawn(async move {
            for m in 0..100u32 {
                // Twice is as good as once.
                let command = [n.to_le_bytes(), m.to_le_bytes()].concat();
                while group.propose(command.clone()).await.is_err() {}
            }
        });
    }
    while let Some(done) = proposals.join_next().await {
        done.unwrap();
    }
    cluster.start(late).await;
    cluster.level().await;
    assert_eq!(cluster.applied(late), cluster.applied(leader));
    // A wiped one starts from the snapshot too, and a restarted one from its own.
    cluster.wipe(late).await;
    cluster.start(late).await;
    cluster.level().await;
    assert_eq!(cluster.applied(late), cluster.applied(leader));
    let taken = std::fs::read_dir(cluster.data_dir(late).join("snapshots"))
        .unwrap()
        .count();
    assert!(taken > 0, "the whole log was sent instead of a snapshot");
    cluster.stop(late).await;
    cluster.start(late).await;
    cluster.level().await;
    assert_eq!(cluster.applied(late), cluster.applied(leader));
    cluster.close().await;
}
