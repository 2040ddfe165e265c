//! What becomes of an order whose leader is lost: tried again with the next one only where it certainly changed nothing.

use super::super::peers_test::{self, Node, PATIENCE};
use super::*;
use matriarch_raft::{Inbox, Peer};
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The door for orders: obeys as the node does, or takes an order and never answers it.
struct Door {
    orders: OnceLock<Orders>,
    answers: bool,
    taken: Arc<AtomicUsize>,
}

impl Inbox for Door {
    fn handle(
        &self,
        _: Peer,
        message: Vec<u8>,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        Box::pin(async move {
            self.taken.fetch_add(1, Ordering::SeqCst);
            let Ok(PeerMessage::Order(order)) = envelope::open(Kind::Message, &message) else {
                panic!("only orders are sent here");
            };
            if !self.answers {
                std::future::pending::<()>().await;
            }
            let done = self.orders.get().unwrap().obey(&order).await;
            envelope::seal(Kind::Reply, &done.map_or(PeerReply::NotLeader, PeerReply::Done))
        })
    }
}

/// Three nodes, the leader first, and how many orders arrived at any of them.
async fn trio(answers: bool) -> (Vec<Node>, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let door = || {
        Arc::new(Door {
            orders: OnceLock::new(),
            answers,
            taken: taken.clone(),
        })
    };
    let nodes = peers_test::group(3, door).await;
    let opened = nodes.into_iter().map(|(node, door)| {
        assert!(door.orders.set(node.orders.clone()).is_ok());
        node
    });
    (opened.collect(), taken)
}

fn order() -> Order {
    let member = "d".to_owned();
    Order::Add { member }
}

async fn awaits(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "waited in vain for {what}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_did_not_reach_the_leader_is_obeyed_by_the_next_one() {
    let (nodes, _) = trio(true).await;
    let [leader, asked, _] = &nodes[..] else {
        panic!("three")
    };
    let closing = tokio::spawn({
        let group = leader.group.clone();
        async move { group.close().await }
    });
    awaits("the leader's port to close", async || {
        TcpStream::connect(&leader.addr).await.is_err()
    })
    .await;
    let still = asked.group.status().borrow().leader.clone();
    let gone = leader.group.id();
    assert_eq!(still.map(|peer| peer.id), Some(gone), "it is to be asked in vain");
    let done = timeout(PATIENCE, asked.orders.ask(order()))
        .await
        .expect("an answer");
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.starts_with("d may join"), "{}", done.text);
    closing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_may_have_reached_the_leader_is_not_tried_again() {
    let (nodes, taken) = trio(false).await;
    let [leader, asked, other] = &nodes[..] else {
        panic!("three")
    };
    let asking = tokio::spawn({
        let orders = asked.orders.clone();
        async move { orders.ask(order()).await }
    });
    awaits("the order to arrive", async || taken.load(Ordering::SeqCst) == 1).await;
    timeout(PATIENCE, leader.group.close()).await.expect("it closes");
    let done = timeout(PATIENCE, asking).await.expect("an answer").unwrap();
    assert_eq!(done.status, 503, "{}", done.text);
    assert!(
        done.text
            .starts_with("it is unknown whether anything was changed: peer"),
        "{}",
        done.text
    );
    awaits("the next leader", async || {
        [asked, other]
            .iter()
            .any(|node| node.group.status().borrow().lead.is_some())
    })
    .await;
    assert_eq!(taken.load(Ordering::SeqCst), 1, "nobody else was asked");
}
