//! The oracle on histories known to be wrong: each promise is seen to fail.

use super::*;
use crate::chaos::history::{StandbyRead, Total, Transfer};

fn call(node: usize, begin_ms: u64, end_ms: u64, fate: Fate, timeline: i32, lsn: i64) -> Call {
    Call {
        client: 1,
        node,
        begin: begin_ms * 1_000_000,
        end: end_ms * 1_000_000,
        fate,
        timeline,
        lsn,
    }
}

fn append(call: Call, key: i64, value: i64) -> ListTxn {
    ListTxn {
        call,
        steps: vec![Step::Append(key, value)],
    }
}

fn truth(list: &[i64]) -> Truth {
    Truth {
        lists: [(1, list.to_vec())].into(),
        money: MONEY,
        ..Truth::default()
    }
}

fn violations(history: &History, truth: &Truth, faults: &[Healed], mode: Mode) -> Vec<String> {
    judge(history, truth, faults, mode, 2_000).violations
}

fn two_writes() -> History {
    History {
        lists: vec![
            append(call(0, 0, 1, Fate::Ok, 1, 100), 1, 10),
            append(call(0, 2, 3, Fate::Ok, 1, 200), 1, 11),
        ],
        ..History::default()
    }
}

#[test]
fn everything_there_is_right_in_every_mode() {
    for mode in [Mode::Async, Mode::On, Mode::Quorum] {
        assert_eq!(
            violations(&two_writes(), &truth(&[10, 11]), &[], mode),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_lost_tail_is_counted_in_async_mode_and_blamed_in_the_others() {
    assert_eq!(
        violations(&two_writes(), &truth(&[10]), &[], Mode::Async),
        Vec::<String>::new()
    );
    assert!(!violations(&two_writes(), &truth(&[10]), &[], Mode::Quorum).is_empty());
}

#[test]
fn a_loss_in_the_middle_and_a_loss_beyond_the_lag_are_blamed_in_async_mode() {
    assert!(!violations(&two_writes(), &truth(&[11]), &[], Mode::Async).is_empty());
    let mut far = two_writes();
    far.lists[0].call.lsn = 100;
    far.lists[1].call.lsn = 100 + (2 << 20);
    far.lists[1].call.begin += 60_000_000_000;
    far.lists[1].call.end += 60_000_000_000;
    assert!(!violations(&far, &truth(&[]), &[], Mode::Async).is_empty());
}

#[test]
fn two_writers_at_once_are_blamed_unless_the_old_one_was_just_waking() {
    let mut history = two_writes();
    history
        .lists
        .push(append(call(1, 3_000, 3_001, Fate::Ok, 3, 150), 1, 12));
    history
        .lists
        .push(append(call(0, 9_001, 9_002, Fate::Ok, 1, 300), 1, 13));
    let world = truth(&[10, 12]);
    assert!(
        violations(&history, &world, &[], Mode::Async)
            .iter()
            .any(|what| what.contains("two nodes"))
    );
    let hurt = Hurt {
        since: 1_000_000_000,
        ..Hurt::new(Fault::FreezePrimary, vec![0], String::new(), Vec::new())
    };
    let frozen = [Healed {
        hurt,
        until: 9_000_000_000,
        over: 9_001_000_000,
    }];
    assert!(
        !violations(&history, &world, &frozen, Mode::Async)
            .iter()
            .any(|what| what.contains("two nodes"))
    );
    assert!(
        violations(&history, &world, &frozen, Mode::Quorum)
            .iter()
            .any(|what| what.contains("two nodes"))
    );
}

#[test]
fn an_acknowledgement_without_a_majority_is_blamed() {
    let mut history = two_writes();
    history
        .lists
        .push(append(call(0, 5_000, 5_001, Fate::Ok, 1, 300), 1, 12));
    let hurt = Hurt {
        since: 1_000_000_000,
        silent: vec![0],
        ..Hurt::new(Fault::CutPrimary, vec![0], String::new(), Vec::new())
    };
    let cut = [Healed {
        hurt,
        until: 9_000_000_000,
        over: 9_001_000_000,
    }];
    let found = violations(&history, &truth(&[10, 11, 12]), &cut, Mode::Async);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("without a majority"));
}

#[test]
fn money_that_appears_and_a_transfer_that_is_there_twice_are_blamed() {
    let mut history = two_writes();
    history.totals.push(Total {
        call: call(1, 0, 1, Fate::Ok, 0, 0),
        sum: MONEY + 1,
        on_standby: true,
    });
    history.transfers.push(Transfer {
        call: call(0, 0, 1, Fate::Ok, 1, 100),
        id: 5,
    });
    let mut world = truth(&[10, 11]);
    world.ledger.insert(5, 2);
    let found = violations(&history, &world, &[], Mode::Async);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_value_read_and_gone_later_is_blamed_in_synchronous_modes() {
    let mut history = two_writes();
    history.lists[1].call.fate = Fate::Unknown;
    history.lists.push(ListTxn {
        call: call(1, 4, 5, Fate::Ok, 1, 0),
        steps: vec![Step::Read(1, vec![10, 11])],
    });
    assert_eq!(
        violations(&history, &truth(&[10]), &[], Mode::Async),
        Vec::<String>::new()
    );
    assert!(!violations(&history, &truth(&[10]), &[], Mode::On).is_empty());
}

#[test]
fn a_value_read_on_a_standby_and_gone_later_is_blamed_if_it_had_been_acknowledged() {
    let mut history = two_writes();
    history.standby_reads.push(StandbyRead {
        call: call(1, 4, 5, Fate::Ok, 0, 0),
        lists: vec![(1, vec![10, 11])],
    });
    let count = |history: &History| violations(history, &truth(&[10]), &[], Mode::On).len();
    let blamed = count(&history);
    history.lists[1].call.fate = Fate::Unknown;
    assert!(blamed > 0);
    assert_eq!(count(&history), 0);
}

#[test]
fn a_list_that_lost_its_end_may_go_on_differently_on_the_next_timeline_only() {
    let read = |call: Call, seen: &[i64]| ListTxn {
        call,
        steps: vec![Step::Read(1, seen.to_vec())],
    };
    let mut history = two_writes();
    let mut elsewhere = append(call(1, 3_000, 3_001, Fate::Ok, 3, 150), 1, 12);
    elsewhere.steps.push(Step::Append(2, 20));
    elsewhere.steps.insert(0, Step::Read(1, vec![10]));
    history
        .lists
        .push(read(call(0, 4, 5, Fate::Ok, 1, 200), &[10, 11]));
    history
        .lists
        .push(append(call(0, 5, 6, Fate::Unknown, 1, 210), 2, 19));
    history
        .lists
        .push(read(call(0, 6, 7, Fate::Ok, 1, 210), &[10, 11]));
    history.lists[4].steps.push(Step::Read(2, Vec::new()));
    history.lists.push(elsewhere);
    let mut world = truth(&[10, 12]);
    world.lists.insert(2, vec![20]);
    assert_eq!(
        violations(&history, &world, &[], Mode::Async),
        Vec::<String>::new()
    );
    // The same reading on the later timeline would have seen what is lost.
    history.lists[4].call.timeline = 3;
    assert!(!violations(&history, &world, &[], Mode::Async).is_empty());
}

#[test]
fn a_herd_that_does_not_come_back_is_blamed_and_one_without_writes_too() {
    let found = |took, flows| {
        let mut verdict = Verdict::default();
        verdict.health(took, flows, 60);
        verdict.violations.len()
    };
    assert_eq!(found(Some(1.5), true), 0);
    assert_eq!(found(None, true), 1);
    assert_eq!(found(Some(1.5), false), 1);
}

#[test]
fn a_daemon_that_ends_by_itself_is_blamed_unless_its_own_disk_was_taken_then() {
    let s = 1_000_000_000;
    let healed = |fault, node| Healed {
        hurt: Hurt {
            since: 10 * s,
            ..Hurt::new(fault, vec![node], String::new(), Vec::new())
        },
        until: 15 * s,
        over: 16 * s,
    };
    let blamed = |at, fault, node| {
        let mut verdict = Verdict::default();
        verdict.gave_up(&[(at, 1, "it ended".into())], &[healed(fault, node)], 60 * s);
        verdict.violations.len()
    };
    assert_eq!(blamed(12 * s, Fault::DiskDead, 1), 0);
    assert_eq!(blamed(12 * s, Fault::DiskDead, 2), 1);
    assert_eq!(blamed(12 * s, Fault::CutPrimary, 1), 1);
    assert_eq!(blamed(30 * s, Fault::DiskDead, 1), 1);
}
