//! The checker on histories known to be wrong, and against trying every order on thousands of small random ones.

use super::*;
use crate::chaos::dice::Dice;
use crate::chaos::history::Call;

fn txn(begin: u64, end: u64, fate: Fate, steps: Vec<Step>) -> ListTxn {
    let call = Call {
        client: 0,
        node: 0,
        begin,
        end,
        fate,
        timeline: 1,
        lsn: 0,
    };
    ListTxn { call, steps }
}

fn append(key: i64, value: i64) -> Step {
    Step::Append(key, value)
}

fn read(key: i64, seen: &[i64]) -> Step {
    Step::Read(key, seen.to_vec())
}

fn orders(lists: &[(i64, &[i64])]) -> Orders {
    lists.iter().map(|(key, list)| (*key, list.to_vec())).collect()
}

fn wrong(txns: &[ListTxn], lists: &[(i64, &[i64])]) -> Vec<String> {
    check(&txns.iter().collect::<Vec<_>>(), &orders(lists), true)
}

#[test]
fn a_history_in_order_is_right() {
    let txns = [
        txn(0, 1, Fate::Ok, vec![append(1, 10), append(2, 20)]),
        txn(
            2,
            3,
            Fate::Ok,
            vec![read(1, &[10]), append(1, 11), read(1, &[10, 11])],
        ),
        txn(2, 9, Fate::Unknown, vec![append(2, 21)]),
        txn(4, 5, Fate::Ok, vec![read(2, &[20]), read(1, &[10, 11])]),
    ];
    assert_eq!(
        wrong(&txns, &[(1, &[10, 11]), (2, &[20, 21])]),
        Vec::<String>::new()
    );
    assert_eq!(wrong(&txns, &[(1, &[10, 11]), (2, &[20])]), Vec::<String>::new());
}

#[test]
fn a_write_skew_is_a_circle() {
    let txns = [
        txn(0, 9, Fate::Ok, vec![read(1, &[]), append(2, 20)]),
        txn(0, 9, Fate::Ok, vec![read(2, &[]), append(1, 10)]),
    ];
    assert_eq!(wrong(&txns, &[(1, &[10]), (2, &[20])]).len(), 1);
}

#[test]
fn a_lost_update_is_a_circle() {
    let txns = [
        txn(0, 9, Fate::Ok, vec![read(1, &[]), append(1, 10)]),
        txn(0, 9, Fate::Ok, vec![read(1, &[]), append(1, 11)]),
    ];
    assert_eq!(wrong(&txns, &[(1, &[10, 11])]).len(), 1);
}

#[test]
fn a_stale_read_is_a_circle_with_time() {
    let txns = [
        txn(0, 1, Fate::Ok, vec![append(1, 10)]),
        txn(2, 3, Fate::Ok, vec![read(1, &[])]),
    ];
    let found = wrong(&txns, &[(1, &[10])]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("Time"), "{found:?}");
}

#[test]
fn half_of_a_transaction_that_was_read_is_a_circle() {
    let txns = [
        txn(0, 9, Fate::Ok, vec![append(1, 10), append(2, 20)]),
        txn(0, 9, Fate::Ok, vec![read(1, &[10]), read(2, &[])]),
    ];
    assert_eq!(wrong(&txns, &[(1, &[10]), (2, &[20])]).len(), 1);
}

#[test]
fn what_nobody_wrote_what_failed_and_what_is_there_twice_is_found() {
    let txns = [txn(0, 1, Fate::Failed, vec![append(1, 10)])];
    assert_eq!(wrong(&txns, &[(1, &[10])]).len(), 1);
    assert_eq!(wrong(&txns, &[(1, &[11])]).len(), 1);
    let txns = [txn(0, 1, Fate::Ok, vec![append(1, 10)])];
    assert_eq!(wrong(&txns, &[(1, &[10, 10])]).len(), 1);
    let half = [txn(0, 1, Fate::Unknown, vec![append(1, 10), append(2, 20)])];
    assert!(!wrong(&half, &[(1, &[10]), (2, &[])]).is_empty());
}

/// Whether some order of the transactions explains everything, by trying all.
fn explained(txns: &[&ListTxn], orders: &Orders) -> bool {
    let known: HashSet<i64> = orders.values().flatten().copied().collect();
    let part: Vec<&ListTxn> = txns
        .iter()
        .copied()
        .filter(|txn| takes_part(txn, &known))
        .collect();
    extend(&part, &mut vec![false; part.len()], &mut BTreeMap::new(), orders)
}

fn extend(part: &[&ListTxn], used: &mut [bool], lists: &mut Orders, orders: &Orders) -> bool {
    if used.iter().all(|used| *used) {
        return orders
            .iter()
            .all(|(key, order)| lists.get(key).map_or(order.is_empty(), |list| list == order));
    }
    for i in 0..part.len() {
        let must_wait = |j: usize| {
            j != i && !used[j] && part[j].call.fate == Fate::Ok && part[j].call.end < part[i].call.begin
        };
        if used[i] || (0..part.len()).any(must_wait) {
            continue;
        }
        let mut after = lists.clone();
        let is_possible = part[i].steps.iter().all(|step| match step {
            Step::Append(key, value) => {
                after.entry(*key).or_default().push(*value);
                true
            }
            Step::Read(key, seen) => after.get(key).map_or(seen.is_empty(), |list| list == seen),
        });
        used[i] = true;
        let found = is_possible && extend(part, used, &mut after, orders);
        used[i] = false;
        if found {
            return true;
        }
    }
    false
}

/// A random history: transactions run one after the other, then reads and times are disturbed.
fn random(dice: &mut Dice) -> (Vec<ListTxn>, Orders) {
    let mut lists: Orders = [(1, Vec::new()), (2, Vec::new())].into();
    let mut value = 0;
    let mut txns = Vec::new();
    for i in 0..dice.between(2, 6) {
        let mut steps = Vec::new();
        let mut after = lists.clone();
        for _ in 0..dice.between(1, 3) {
            let key = i64::try_from(dice.between(1, 2)).unwrap();
            if dice.one_in(2) {
                value += 1;
                after.get_mut(&key).unwrap().push(value);
                steps.push(append(key, value));
            } else {
                let mut seen = after[&key].clone();
                if dice.one_in(8) {
                    seen.pop();
                }
                steps.push(read(key, &seen));
            }
        }
        let fate = if dice.one_in(5) { Fate::Unknown } else { Fate::Ok };
        if fate == Fate::Ok || dice.one_in(2) {
            lists = after;
        }
        let begin = (10 * i).saturating_sub(dice.below(25));
        txns.push(txn(begin, 10 * i + 5 + dice.below(25), fate, steps));
    }
    if dice.one_in(4) {
        let list = lists.get_mut(&1).unwrap();
        let length = list.len();
        if length > 1 {
            list.swap(length - 1, length - 2);
        }
    }
    if dice.one_in(4) {
        let (a, b) = (txns[0].call.clone(), txns[1].call.clone());
        (txns[0].call.begin, txns[0].call.end) = (b.begin, b.end);
        (txns[1].call.begin, txns[1].call.end) = (a.begin, a.end);
    }
    (txns, lists)
}

#[test]
fn the_checker_says_what_trying_every_order_says() {
    let mut dice = Dice::new(7);
    let (mut right, mut bad) = (0, 0);
    for round in 0..20_000 {
        let (txns, lists) = random(&mut dice);
        let all: Vec<&ListTxn> = txns.iter().collect();
        let found = check(&all, &lists, true);
        let is_right = explained(&all, &lists);
        assert_eq!(
            found.is_empty(),
            is_right,
            "round {round}: {found:?}\n{txns:#?}\n{lists:?}"
        );
        if is_right {
            right += 1;
        } else {
            bad += 1;
        }
    }
    assert!(
        right > 2_000 && bad > 2_000,
        "{right} right and {bad} wrong histories"
    );
}
