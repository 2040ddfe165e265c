use super::super::peers_test::{self, PATIENCE};
use super::*;
use crate::decide::script::World;
use matriarch_raft::{Inbox, Peer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::timeout;

fn missed(is_long: bool) -> Missed {
    Missed {
        holder: "a".into(),
        fresh_ms: 300,
        is_long,
    }
}

#[test]
fn a_primary_is_missed_from_a_late_report_on_and_until_its_lease_is_over() {
    let mut world = World::herd(&["a", "b", "c"]);
    let seen = |world: &World| world.view().missed();
    world.hear_line("time: +299");
    assert_eq!(seen(&world), None);
    world.hear_line("time: +1");
    assert_eq!(seen(&world), Some(missed(false)));
    // It stops PostgreSQL 0.5 s before the end of its lease of 2 s.
    world.hear_line("time: +449");
    assert_eq!(seen(&world), Some(missed(false)));
    world.hear_line("time: +1");
    assert_eq!(seen(&world), Some(missed(true)));
    world.hear_line("hear: a");
    assert_eq!(seen(&world), None);
    world.hear_line("time: +3000");
    assert_eq!(seen(&world), None, "nobody's lead renews a lease that is over");
    // Whoever leads since a moment ago will hear soon.
    world.hear_line("time: granted=10 leads=299");
    assert_eq!(seen(&world), None);
    world.hear_line("time: leads=300");
    assert_eq!(seen(&world), Some(missed(true)));
}

/// What becomes of answers: when each came and how old the voter's newest report was.
fn heir(words: &[(u64, Option<u64>)]) -> Option<u64> {
    let mut hearsay = Hearsay::default();
    for (at, age_ms) in words {
        let word = Word {
            voter: 7,
            at: Moment(*at),
            age_ms: *age_ms,
        };
        hearsay.note(&word, &missed(true));
    }
    assert_eq!(hearsay.heir(&missed(false)), None, "not before half of the time");
    hearsay.heir(&missed(true))
}

#[test]
fn a_voter_hears_the_primary_if_it_does_for_longer_than_one_report_is_fresh() {
    let steady: Vec<(u64, Option<u64>)> = (0..5).map(|n| (n * 100, Some(100 * (n % 2)))).collect();
    assert_eq!(heir(&steady[..4]), None);
    assert_eq!(heir(&steady), Some(7));
    // The last words of a dead one were heard a little later there.
    let last: Vec<(u64, Option<u64>)> = (0..8).map(|n| (n * 100, Some(40 + n * 100))).collect();
    for count in 0..last.len() {
        assert_eq!(heir(&last[..count]), None, "{count}");
    }
    // An answer that did not come is no evidence.
    let lost = [(0, Some(0)), (100, None), (200, Some(0)), (500, Some(0))];
    assert_eq!(heir(&lost), None);
}

#[test]
fn asked_are_the_voters_that_know_the_question_and_have_the_whole_log() {
    let mut state = World::herd(&["a", "b", "c", "d", "e"]).state;
    for (id, member) in (1..).zip(state.members.values_mut()) {
        (member.info.raft_id, member.info.level) = (id, HEARSAY_LEVEL);
    }
    state.members.get_mut(&"d".into()).unwrap().info.level = HEARSAY_LEVEL - 1;
    let status = Status {
        id: 2,
        peers_level: vec![(1, true), (3, true), (4, true), (5, false)],
        ..Status::default()
    };
    assert_eq!(ears(&status, &state, &"a".into()), [3]);
}

/// Answers that its newest report of anybody is this old.
struct Ear {
    age_ms: Option<u64>,
    asked: Arc<AtomicUsize>,
}

impl Inbox for Ear {
    fn handle(
        &self,
        _: Peer,
        message: Vec<u8>,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        let asked = envelope::open(Kind::Message, &message);
        assert_eq!(asked, Ok(PeerMessage::HeardOf("a".into())));
        self.asked.fetch_add(1, Ordering::SeqCst);
        let reply = envelope::seal(Kind::Reply, &PeerReply::HeardOf(self.age_ms));
        Box::pin(async move { reply })
    }
}

/// Whom the leader of three names, after as many questions as it takes, or after ten; and who the third is.
async fn named(age_ms: Option<u64>) -> (Option<u64>, u64) {
    let asked = Arc::new(AtomicUsize::new(0));
    let ear = || {
        let asked = asked.clone();
        Arc::new(Ear { age_ms, asked })
    };
    let nodes = peers_test::group(3, ear).await;
    let [(leader, _), (primary, _), (third, _)] = &nodes[..] else {
        panic!("three were started");
    };
    let is_level = |status: &Status| status.peers_level.contains(&(third.group.id(), true));
    leader.until("the third has the whole log", is_level).await;
    let mut state = World::herd(&["a", "b", "c"]).state;
    for (node, member) in [primary, leader, third]
        .into_iter()
        .zip(state.members.values_mut())
    {
        member.info.raft_id = node.group.id();
    }
    let mut hearsay = Hearsay::default();
    let asking = async {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            let named = hearsay.listen(&leader.group, &state, &missed(true), clock::now());
            if named.is_some() || asked.load(Ordering::SeqCst) > 10 {
                return named;
            }
        }
    };
    let named = timeout(PATIENCE, asking).await.expect("ten questions are asked");
    (named, third.group.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_is_asked_over_a_socket_and_named_if_it_hears_the_primary() {
    let (named_one, third) = named(Some(120)).await;
    assert_eq!(named_one, Some(third));
    assert_eq!(named(Some(1_000)).await.0, None);
    assert_eq!(named(None).await.0, None);
}
