//! Every change of the set, interrupted after every step, against everything that can have acknowledged by then.

use super::*;
use crate::cluster::{Act, Command, Epoch, Outcome, State, Vote, apply};
use crate::decide::script::World;

const NAMES: [&str; 4] = ["p", "a", "b", "c"];

/// Copies as bits, in the order of `NAMES`.
type Copies = u32;

fn quorum(count: u32, members: Copies) -> Quorum {
    let members = (1..4).filter(|bit| members >> bit & 1 == 1);
    Quorum {
        primary: "p".into(),
        copy: Some(Incarnation(1)),
        members: members.map(|bit| (NAMES[bit].into(), Incarnation(1))).collect(),
        count,
    }
}

fn all_quorums() -> Vec<Quorum> {
    let members = (0..8).map(|members| members << 1);
    members
        .flat_map(|members: Copies| (0..=members.count_ones() + 1).map(move |count| quorum(count, members)))
        .collect()
}

fn bit(name: &MemberName) -> usize {
    NAMES.iter().position(|known| *known == name.as_str()).unwrap()
}

/// Every set of copies by which a commit can have been acknowledged.
fn acknowledging(quorum: &Quorum) -> Vec<Copies> {
    let members: Copies = quorum.members.keys().map(|name| 1 << bit(name)).sum();
    (0..16)
        .filter(|set| set & 1 == 1 && (set & members).count_ones() >= quorum.count)
        .filter(|set| set & !(members | 1) == 0)
        .collect()
}

/// Whether every set that may elect has every commit, each of which is on one of these sets of copies.
fn sound(state: &State, holders: &[Copies]) -> bool {
    (0..16_u32)
        .filter(|heard| state.sync.met_by(|name, _| heard >> bit(name) & 1 == 1))
        .all(|heard| holders.iter().all(|set| set & heard != 0))
}

fn agree(state: &mut State, act: Act) {
    let vote = Vote { term: 1, node: 1 };
    let command = Command {
        expected: None,
        vote,
        rule: String::new(),
        reason: String::new(),
        at_ms: 0,
        act,
    };
    assert!(
        matches!(apply::apply(state, &command, vote), Outcome::Applied(_)),
        "{command:?}"
    );
}

/// A cluster whose only quorum is `old`.
fn settled(old: &Quorum) -> State {
    let mut state = World::herd(&NAMES).state;
    agree(
        &mut state,
        Act::Resync {
            quorum: Some(old.clone()),
        },
    );
    let serial = state.sync.serial;
    agree(
        &mut state,
        Act::Settle {
            epoch: Epoch(1),
            serial,
        },
    );
    assert_eq!(state.sync.quorums, std::slice::from_ref(old));
    state
}

/// What the change can do wrong, for the inversions.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Right,
    NamesBeforeTheRecord,
    SettledWithoutProof,
}

/// Walks through one change and says whether every interrupted prefix of it is sound.
fn walk(old: &Quorum, new: &Quorum, order: Order) -> bool {
    let mut state = settled(old);
    let before = acknowledging(old);
    let either: Vec<Copies> = before.iter().copied().chain(acknowledging(new)).collect();
    if order == Order::NamesBeforeTheRecord && !sound(&state, &either) {
        return false;
    }
    let nothing_yet = sound(&state, &before);
    agree(
        &mut state,
        Act::Resync {
            quorum: Some(new.clone()),
        },
    );
    let recorded = sound(&state, &before);
    let renamed = sound(&state, &either);
    // The proof: a later record, and so all that was acknowledged before it, is flushed by enough of the new members.
    let proved: Vec<Copies> = either
        .iter()
        .flat_map(|had| acknowledging(new).into_iter().map(move |has| had | has))
        .collect();
    let proved = if order == Order::SettledWithoutProof {
        either
    } else {
        proved
    };
    let kept = sound(&state, &proved);
    if !new.is_blocked() {
        let serial = state.sync.serial;
        agree(
            &mut state,
            Act::Settle {
                epoch: Epoch(1),
                serial,
            },
        );
    }
    nothing_yet && recorded && renamed && kept && sound(&state, &proved)
}

#[test]
fn every_interrupted_prefix_of_every_change_is_sound() {
    for old in all_quorums() {
        for new in all_quorums() {
            assert!(walk(&old, &new, Order::Right), "{old:?} -> {new:?}");
        }
    }
}

#[test]
fn the_order_of_steps_matters() {
    for order in [Order::NamesBeforeTheRecord, Order::SettledWithoutProof] {
        let wrong = all_quorums()
            .iter()
            .flat_map(|old| all_quorums().into_iter().map(move |new| (old.clone(), new)))
            .filter(|(old, new)| !walk(old, new, order))
            .count();
        assert!(wrong > 0, "nothing goes wrong in another order");
    }
}

#[test]
fn a_mode_that_is_switched_on_begins_with_the_primary_alone() {
    let mut state = World::herd(&NAMES).state;
    let new = quorum(1, 0b0110);
    agree(
        &mut state,
        Act::Resync {
            quorum: Some(new.clone()),
        },
    );
    let alone = Quorum::only("p".into(), Some(Incarnation(1)));
    assert_eq!(state.sync.quorums, [alone, new]);
}

#[test]
fn names_as_postgresql_reads_them() {
    let told = |count, members, mode| names(&quorum(count, members), mode);
    assert_eq!(told(1, 0b0110, SyncMode::Quorum), "ANY 1 (\"a\",\"b\")");
    assert_eq!(told(1, 0b0010, SyncMode::Quorum), "ANY 1 (\"a\")");
    assert_eq!(told(1, 0b0010, SyncMode::On), "\"a\"");
    assert_eq!(told(2, 0b0110, SyncMode::On), "2 (\"a\",\"b\")");
    assert_eq!(told(0, 0, SyncMode::On), "");
    assert_eq!(told(1, 0, SyncMode::On), "\"(nobody)\"");
}
