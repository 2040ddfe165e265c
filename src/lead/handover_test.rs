//! Every refusal of a switchover or failover, in Patroni's order and words, over a healthy herd and hurt ones.

use super::*;
use crate::decide::script::World;

const FUTURE: &str = "2099-01-01T00:00+00";

fn order(failover: bool, leader: &str, candidate: &str, at: &str, loss: bool) -> HandoverOrder {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    HandoverOrder {
        failover,
        leader: some(leader),
        candidate: some(candidate),
        scheduled_at: some(at),
        accept_data_loss: loss,
    }
}

fn answer(world: &World, order: &HandoverOrder) -> String {
    match ask(&world.view(), order) {
        Judged::NotYet(done) => format!("{} {}, in a moment perhaps", done.status, done.text),
        Judged::Answer(done) => format!("{} {}", done.status, done.text),
        Judged::Propose(act, _, reason, done) => match *act {
            Act::Ask(asked) => match asked.under_way {
                Some(begun) => format!("{} to {}: {reason}", done.status, begun.to),
                None => format!("{} {}: {reason}", done.status, done.text),
            },
            other => format!("{other:?}"),
        },
    }
}

fn told(lines: &[&str]) -> World {
    let mut world = World::herd(&["a", "b", "c"]);
    for line in lines {
        assert!(world.hear_line(line).is_none(), "{line}");
    }
    world
}

fn switchover(world: &World, leader: &str, candidate: &str, at: &str) -> String {
    answer(world, &order(false, leader, candidate, at, false))
}

fn failover(world: &World, candidate: &str, loss: bool) -> String {
    answer(world, &order(true, "", candidate, "", loss))
}

#[test]
fn a_switchover_is_checked_in_patronis_order() {
    let world = told(&[]);
    for (leader, candidate, at, answer) in [
        (
            "",
            "b",
            "",
            "400 Switchover could be performed only from a specific leader",
        ),
        ("a", "a", "", "400 Switchover target and source are the same"),
        (
            "a",
            "",
            "2020-01-01T00:00+00",
            "422 Cannot schedule switchover in the past",
        ),
        (
            "a",
            "",
            "2099-01-01T00:00",
            "400 Timezone information is mandatory for the scheduled switchover",
        ),
        ("b", "", "", "412 leader name does not match"),
        ("a", "z", "", "412 candidate does not exists"),
        (
            "a",
            "b",
            "",
            "202 to b: an operator asked for a switchover from a to b",
        ),
        (
            "a",
            "",
            "",
            "202 to b: an operator asked for a switchover from a to the best",
        ),
        (
            "a",
            "",
            FUTURE,
            "202 Switchover scheduled: an operator asked for a switchover from a to the best, scheduled for \
             2099-01-01T00:00:00+00:00",
        ),
        ("a", "z", FUTURE, "412 candidate does not exists"),
    ] {
        assert_eq!(switchover(&world, leader, candidate, at), answer);
    }
    let lagging = told(&["b: nofailover", "c: age=60000"]);
    let none_good = "412 switchover is not possible: no good candidates have been found";
    for candidate in ["", "b", "c"] {
        assert_eq!(switchover(&lagging, "a", candidate, ""), none_good);
    }
    let silent = told(&["a: age=60000"]);
    assert_eq!(
        switchover(&silent, "a", "b", ""),
        "412 leader name does not match, in a moment perhaps"
    );
    let alone = World::herd(&["a"]);
    assert_eq!(
        switchover(&alone, "a", "", ""),
        "412 switchover is not possible: cluster does not have members except leader"
    );
}

/// After a restart of the primary its standbys come back one moment later, and look a segment behind until they do.
#[test]
fn a_candidate_that_only_reconnects_is_awaited() {
    let none_good = "412 switchover is not possible: no good candidates have been found";
    let perhaps = format!("{none_good}, in a moment perhaps");
    for line in [
        "b: cut",
        "b: streamed=none",
        "b: starting=",
        "b: received=0/100 replayed=0/100",
        "b: nowhere=",
    ] {
        let world = told(&[line, "c: nofailover"]);
        for candidate in ["", "b"] {
            assert_eq!(switchover(&world, "a", candidate, ""), perhaps, "{line}");
        }
        assert_eq!(switchover(&world, "a", "c", ""), none_good);
    }
    let unfit = told(&["b: unfit=\"it has not followed yet\"", "c: nofailover"]);
    assert_eq!(switchover(&unfit, "a", "b", ""), perhaps, "it streams");
    for line in [
        "b: unfit=\"it was away\" cut",
        "b: unpromotable=\"its disk is full\"",
    ] {
        assert_eq!(switchover(&told(&[line]), "a", "b", ""), none_good, "{line}");
    }
    // Whoever streams is taken where nobody is named, also if another has more.
    let world = told(&["b: cut= received=0/6000000"]);
    assert!(switchover(&world, "a", "", "").starts_with("202 to c"));
    let cut = told(&["b: cut"]);
    let answer = failover(&cut, "b", false);
    assert!(
        answer.contains("it does not stream") && answer.contains("in a moment"),
        "{answer}"
    );
    assert!(failover(&cut, "b", true).starts_with("202 to b"));
}

#[test]
fn a_failover_needs_a_candidate_and_sometimes_a_word() {
    let world = told(&[]);
    assert_eq!(
        failover(&world, "", false),
        "400 Failover could be performed only to a specific candidate"
    );
    let scheduled = order(true, "", "b", FUTURE, false);
    assert_eq!(answer(&world, &scheduled), "400 Failover can't be scheduled");
    let from_leader = order(true, "a", "c", "", false);
    assert_eq!(
        answer(&world, &from_leader),
        "202 to c: an operator asked for a switchover from a to c"
    );
    assert_eq!(
        failover(&world, "c", false),
        "202 to c: an operator asked for a failover from whoever is primary to c"
    );
    // Nobody else can be promoted by the rules, and by name it can.
    let unfit = told(&["a: age=60000", "b: unfit=\"it was away\"", "c: nofailover"]);
    assert!(failover(&unfit, "b", false).starts_with("202 to b"));
    assert_eq!(
        failover(&unfit, "c", false),
        "412 failover is not possible: no good candidates have been found"
    );
}

#[test]
fn one_at_a_time() {
    let mut world = told(&[]);
    let Judged::Propose(act, ..) = ask(&world.view(), &order(false, "a", "b", "", false)) else {
        panic!("it was refused");
    };
    let Act::Ask(asked) = *act else {
        panic!("it asks for something else")
    };
    assert!(matches!(cancel(&world.view()), Judged::Answer(done) if done.status == 404));
    world.state.handover = Some(asked.clone());
    assert_eq!(
        switchover(&world, "a", "c", ""),
        "409 a switchover is under way already"
    );
    assert!(matches!(cancel(&world.view()), Judged::Answer(done) if done.status == 404));
    world.state.handover = Some(Handover {
        under_way: None,
        ..asked
    });
    assert!(switchover(&world, "a", "c", "").starts_with("202 to c"));
    assert!(matches!(cancel(&world.view()), Judged::Propose(_, _, _, done) if done.status == 200));
}

#[test]
fn in_a_pause() {
    let world = told(&["cluster: pause=on"]);
    for (candidate, at, answer) in [
        ("b", FUTURE, "400 Can't schedule switchover in the paused state"),
        (
            "",
            "",
            "400 Switchover is possible only to a specific candidate in a paused state",
        ),
        (
            "b",
            "",
            "202 to b: an operator asked for a switchover from a to b",
        ),
    ] {
        assert_eq!(switchover(&world, "a", candidate, at), answer);
    }
    let silent = told(&["cluster: pause=on", "a: age=60000"]);
    let refusal = failover(&silent, "b", false);
    assert!(
        refusal.starts_with("412 ") && refusal.contains("accept_data_loss"),
        "{refusal}"
    );
    assert!(failover(&silent, "b", true).starts_with("202 to b"));
}
