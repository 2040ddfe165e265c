//! Members that come and go: a fourth and a fifth, one that is taken out and let in again, one without a port, and a
//! survivor that goes on alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Applied, Cluster, Recorder, Running, logs};
use matriarch_raft::{Group, Inbox, Peer, Settings, Status, recover};

/// Who was taken out, by name, with the id it had then.
type Out = Arc<Mutex<BTreeMap<String, u64>>>;

/// An inbox that admits everybody but those.
struct Door(Out);

impl Inbox for Door {
    fn admits(&self, peer: &Peer) -> Result<(), String> {
        match self.0.lock().unwrap().get(&peer.name) {
            Some(id) if peer.id == 0 || peer.id == *id => Err(format!("{} was taken out", peer.name)),
            _ => Ok(()),
        }
    }

    fn handle(
        &self,
        from: Peer,
        message: Vec<u8>,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        Box::pin(async move { [from.name.as_bytes(), b":", &message].concat() })
    }
}

/// Starts a member that knows one partner only.
async fn start(cluster: &mut Cluster, i: usize, partners: &[usize], out: &Out) {
    let partners = partners.iter().map(|j| cluster.addrs[*j].clone()).collect();
    let settings = Settings {
        partners,
        ..cluster.settings(i)
    };
    start_as(cluster, i, settings, out).await;
}

async fn start_as(cluster: &mut Cluster, i: usize, settings: Settings, out: &Out) {
    let applied = Applied::default();
    let machine = Box::new(Recorder(applied.clone()));
    let group = Group::start(settings, machine, Arc::new(Door(out.clone())))
        .await
        .unwrap();
    let heard = tokio::sync::watch::channel(Vec::new()).1;
    cluster.running[i] = Some(Running {
        group,
        applied,
        heard,
    });
}

async fn three(n: usize, out: &Out) -> Cluster {
    logs();
    let mut cluster = Cluster::new(n);
    for (i, partners) in [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])] {
        start(&mut cluster, i, &partners, out).await;
    }
    cluster.leader().await;
    cluster
}

fn votes(status: &Status) -> bool {
    status.voters.iter().any(|voter| voter.id == status.id)
}

/// The next leader, once no change of the voters is half done any more: until then it may take a majority of the old ones.
async fn settled(cluster: &Cluster) -> usize {
    let leader = cluster.leader().await;
    cluster
        .wait(leader, "the end of the change", |s| !s.changing)
        .await;
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_learns_and_a_fifth_makes_five_voters_that_survive_two_losses() {
    let out = Out::default();
    let mut cluster = three(5, &out).await;
    start(&mut cluster, 3, &[0], &out).await;
    cluster
        .wait(3, "its place among the learners", |s| {
            s.learners.iter().any(|l| l.id == s.id)
        })
        .await;
    assert_eq!(cluster.group(3).status().borrow().voters.len(), 3);
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"four".to_vec()).await.unwrap();
    start(&mut cluster, 4, &[3], &out).await;
    for i in 0..5 {
        cluster
            .wait(i, "five voters", |s| s.voters.len() == 5 && votes(s))
            .await;
    }
    cluster.close().await;
    // Everybody comes back with the file it had: the members that joined stand in nobody else's.
    for (i, partners) in [
        (0, vec![1, 2]),
        (1, vec![0, 2]),
        (2, vec![0, 1]),
        (3, vec![0]),
        (4, vec![3]),
    ] {
        start(&mut cluster, i, &partners, &out).await;
    }
    let leader = settled(&cluster).await;
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    cluster
        .group(leader)
        .propose(b"three of five".to_vec())
        .await
        .unwrap();
    cluster.level().await;
    for i in cluster.alive() {
        assert_eq!(cluster.applied(i), [b"four".to_vec(), b"three of five".to_vec()]);
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_dies_while_it_joins_neither_stops_the_group_nor_is_lost() {
    let out = Out::default();
    let mut cluster = three(5, &out).await;
    start(&mut cluster, 3, &[0], &out).await;
    cluster
        .wait(3, "its place among the learners", |s| {
            s.learners.iter().any(|l| l.id == s.id)
        })
        .await;
    start(&mut cluster, 4, &[0], &out).await;
    // Wherever the change to five voters is by now, its initiator and a newcomer go.
    let leader = cluster.leader().await;
    cluster.stop(4).await;
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"on".to_vec()).await.unwrap();
    for i in 0..5 {
        if cluster.running[i].is_none() {
            start(&mut cluster, i, &[(i + 1) % 3], &out).await;
        }
    }
    for i in 0..5 {
        cluster
            .wait(i, "five voters", |s| s.voters.len() == 5 && votes(s))
            .await;
    }
    cluster.level().await;
    assert_eq!(cluster.applied(4), [b"on".to_vec()]);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_taken_out_is_refused_until_it_is_let_in_again() {
    let out = Out::default();
    let mut cluster = three(3, &out).await;
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"one".to_vec()).await.unwrap();
    let gone = (leader + 1) % 3;
    let old = cluster.id(gone).await;
    out.lock().unwrap().insert(format!("node{gone}"), old);
    // Another change of the membership may be under way.
    let removed = async { while cluster.group(leader).remove(old).await.is_err() {} };
    let removed = tokio::time::timeout(common::STEP, removed).await;
    removed.expect("its place in the membership was to be taken");
    cluster
        .wait(leader, "two voters", |s| {
            s.voters.len() == 2 && s.learners.is_empty()
        })
        .await;
    // It hears of it with the first thing it says.
    let survivor = cluster.id(leader).await;
    let told = cluster
        .group(gone)
        .ask(survivor, b"hello".to_vec(), common::STEP)
        .await;
    assert!(told.unwrap_err().to_string().contains("was taken out"));
    let status = cluster.wait(gone, "its end", |s| s.fatal.is_some()).await;
    assert_eq!(status.fatal.unwrap(), format!("node{gone} was taken out"));
    cluster.stop(gone).await;

    start(&mut cluster, gone, &[leader], &out).await;
    let status = cluster.wait(gone, "the refusal", |s| s.expelled.is_some()).await;
    assert_eq!((status.joined, status.fatal), (false, None), "it goes on asking");
    out.lock().unwrap().clear();
    let status = cluster.wait(gone, "its vote", |s| s.joined && votes(s)).await;
    assert_eq!(status.expelled, None);
    let id = status.id;
    assert_ne!(id, old, "an id is never used twice");
    cluster.level().await;
    assert_eq!(cluster.applied(gone), [b"one".to_vec()]);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_port_is_told_everything_and_speaks_beside_the_log() {
    let out = Out::default();
    let mut cluster = three(4, &out).await;
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"one".to_vec()).await.unwrap();
    let settings = Settings {
        self_addr: String::new(),
        partners: cluster.addrs[..3].to_vec(),
        ..cluster.settings(3)
    };
    start_as(&mut cluster, 3, settings, &out).await;
    let status = cluster
        .wait(3, "the leader and its entries", |s| {
            s.leader.is_some() && s.applied > 0
        })
        .await;
    assert_eq!((status.voters.len(), status.joined), (3, true));
    assert_eq!(cluster.applied(3), [b"one".to_vec()]);
    let answer = cluster
        .group(3)
        .ask(status.leader.unwrap().id, b"hi".to_vec(), common::STEP)
        .await;
    assert_eq!(answer.unwrap(), b"node3:hi");
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"two".to_vec()).await.unwrap();
    cluster
        .wait(3, "the second entry", |_| cluster.applied(3).len() == 2)
        .await;
    let id = cluster.id(3).await;
    out.lock().unwrap().insert("node3".to_owned(), id);
    let status = cluster.wait(3, "the refusal", |s| s.expelled.is_some()).await;
    assert_eq!(status.fatal, None, "it goes on asking");
    out.lock().unwrap().clear();
    cluster
        .wait(3, "its return under the same id", |s| {
            s.expelled.is_none() && s.id == id
        })
        .await;
    assert_eq!(
        cluster.group(leader).status().borrow().voters.len(),
        3,
        "it has no vote"
    );
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_alone_and_the_old_majority_is_refused() {
    let out = Out::default();
    let mut cluster = three(3, &out).await;
    let leader = cluster.leader().await;
    cluster.group(leader).propose(b"one".to_vec()).await.unwrap();
    cluster.level().await;
    cluster.close().await;
    let machine = Box::new(Recorder(Applied::default()));
    let recovered = recover(&cluster.settings(0), machine, |_, state| Ok(state)).unwrap();
    assert_eq!(recovered.given_up.len(), 2);

    start(&mut cluster, 0, &[1, 2], &out).await;
    cluster.leader().await;
    cluster.group(0).propose(b"two".to_vec()).await.unwrap();
    assert_eq!(cluster.applied(0), [b"one".to_vec(), b"two".to_vec()]);
    for i in [1, 2] {
        start(&mut cluster, i, &[0, 3 - i], &out).await;
    }
    for i in [1, 2] {
        let status = cluster.wait(i, "its end", |s| s.fatal.is_some()).await;
        let why = status.fatal.unwrap();
        assert!(
            why.contains("recovered without this node") && why.contains("mv "),
            "{why}"
        );
        assert_eq!(status.lead, None);
        cluster.wipe(i).await;
    }
    for i in [1, 2] {
        start(&mut cluster, i, &[0, 3 - i], &out).await;
    }
    for i in 0..3 {
        cluster
            .wait(i, "three voters", |s| s.voters.len() == 3 && votes(s))
            .await;
    }
    cluster.level().await;
    assert_eq!(cluster.applied(2), cluster.applied(0));
    // A recovered store starts again as what it became.
    cluster.stop(0).await;
    start(&mut cluster, 0, &[1, 2], &out).await;
    cluster
        .wait(0, "its leader", |s| s.joined && s.leader.is_some())
        .await;
    cluster.close().await;
}
