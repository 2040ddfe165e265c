//! Three members over loopback: forming, proposing, losing the leader, coming back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Cluster, logs};

#[tokio::test(flavor = "multi_thread")]
async fn three_form_and_a_follower_forwards_a_proposal() {
    logs();
    let mut cluster = Cluster::new(3);
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
    cluster.group(leader).confirm().await.unwrap();
    assert!(cluster.group(follower).confirm().await.is_err());
    cluster.close().await;
}
