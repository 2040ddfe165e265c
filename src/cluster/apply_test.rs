//! The replicated state machine as a transcript (`testdata/apply.txt`), and what no sequence of commands may break.

use super::*;
use crate::cluster::{Incarnation, Lsn, Revision};
use crate::decide::golden::{act_text, recorded};
use crate::decide::script_words::member_info;
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

const VOTE: Vote = Vote { term: 5, node: 2 };

fn info(name: &str) -> MemberInfo {
    MemberInfo {
        incarnation: Some(Incarnation(1)),
        ..member_info(name, 0)
    }
}

fn command(act: Act, expected: Option<Revision>) -> Command {
    Command {
        expected,
        vote: VOTE,
        rule: "test".to_owned(),
        reason: String::new(),
        at_ms: 0,
        act,
    }
}

fn bootstrap(member: &str, epoch: u64) -> Act {
    Act::Bootstrap {
        member: member.into(),
        epoch: Epoch(epoch),
        config: "{}".to_owned(),
        ttl_ms: 2_000,
    }
}

fn initialized(member: &str, epoch: u64, system_id: u64, timeline: u32) -> Act {
    Act::Initialized {
        member: member.into(),
        epoch: Epoch(epoch),
        system_id,
        timeline: Timeline(timeline),
    }
}

fn promote(member: &str, epoch: u64, timeline: u32) -> Act {
    Act::Promote {
        member: member.into(),
        epoch: Epoch(epoch),
        timeline: Timeline(timeline),
    }
}

fn restart(member: &str, epoch: u64) -> Act {
    Act::Restart {
        member: member.into(),
        epoch: Epoch(epoch),
    }
}

fn promoted(member: &str, epoch: u64, timeline: u32, parent: u32) -> Act {
    Act::Promoted(Promotion {
        timeline: Timeline(timeline),
        parent: Timeline(parent),
        switch: Lsn(0x500_0000),
        member: member.into(),
        incarnation: None,
        epoch: Epoch(epoch),
        rule: "lease-over".to_owned(),
        at_ms: 0,
    })
}

fn judge(member: &str, fit: bool) -> Act {
    Act::Judge {
        member: member.into(),
        fitness: if fit {
            Fitness::Fit
        } else {
            Fitness::Unfit("it was away".to_owned())
        },
    }
}

fn configure(ttl_ms: u64) -> Act {
    Act::Configure {
        config: format!("{{\"ttl\":{ttl_ms}}}"),
        ttl_ms,
        paused: false,
    }
}

fn forget(member: &str) -> Act {
    Act::Forget {
        member: member.into(),
    }
}

/// A transcript in the making.
struct Clerk {
    state: State,
    text: String,
}

impl Clerk {
    fn note(&mut self, title: &str) {
        writeln!(self.text, "\n# {title}").unwrap();
    }

    fn does(&mut self, act: Act) {
        let before = self.state.clone();
        let command = command(act, Some(self.state.revision));
        let outcome = apply(&mut self.state, &command, VOTE);
        writeln!(self.text, "{}", act_text(&command.act)).unwrap();
        match outcome {
            Outcome::Refused(why) => {
                assert_eq!(self.state, before, "a refused command changes nothing");
                writeln!(self.text, "    refused: {why}").unwrap();
            }
            Outcome::Applied(revision) if revision == before.revision => {
                assert_eq!(self.state, before);
                writeln!(self.text, "    nothing new").unwrap();
            }
            outcome => writeln!(self.text, "    {outcome:?}: {}", self.summary()).unwrap(),
        }
    }

    fn summary(&self) -> String {
        let state = &self.state;
        let members: Vec<String> = state
            .members
            .iter()
            .map(|(name, member)| {
                let mark = if member.fitness == Fitness::Fit { "" } else { "?" };
                format!("{name}{mark}")
            })
            .collect();
        let primacy = match &state.primacy {
            Primacy::Vacant => "vacant".to_owned(),
            Primacy::Held {
                member,
                origin,
                timeline,
                ..
            } => {
                let on = timeline.map_or("?".to_owned(), |timeline| timeline.to_string());
                format!("{member} by {origin:?} on {on}")
            }
            Primacy::Fencing { member, last, .. } => format!("nobody after {member} of epoch {last}"),
        };
        let sure = if state.is_confirmed() { "" } else { ", unconfirmed" };
        format!(
            "epoch {}, {primacy}{sure}, reserved {}, ttl {}/{}, {}",
            state.epoch,
            state.reserved,
            state.ttl_ms,
            state.wait_ttl_ms,
            members.join(" ")
        )
    }
}

#[test]
fn the_life_of_a_cluster() {
    let mut clerk = Clerk {
        state: State::default(),
        text: "# Commands and what they did; '?' marks a member that may not be promoted, a ttl is in force/waited for.\n"
            .to_owned(),
    };
    clerk.note("Members join; a witness holds no data");
    clerk.does(bootstrap("a", 1));
    let mut witness = info("w");
    witness.postgres = None;
    for member in [info("a"), info("b"), info("c"), witness, info("a")] {
        clerk.does(Act::Register(member));
    }
    clerk.note("One creates the database cluster");
    clerk.does(promote("a", 1, 1));
    clerk.does(restart("a", 1));
    clerk.does(bootstrap("w", 1));
    clerk.does(bootstrap("a", 2));
    clerk.does(bootstrap("a", 1));
    clerk.does(initialized("b", 1, 7, 1));
    clerk.does(restart("a", 2));
    clerk.does(bootstrap("b", 2));
    clerk.does(initialized("a", 1, 7, 1));
    clerk.does(initialized("b", 2, 7, 1));
    clerk.does(initialized("b", 2, 7, 1));
    clerk.does(initialized("b", 2, 8, 1));
    clerk.does(initialized("b", 2, 7, 4));
    clerk.does(bootstrap("a", 3));
    clerk.note("Fitness, and who may be promoted");
    clerk.does(promote("a", 3, 2));
    clerk.does(judge("a", true));
    clerk.does(judge("x", true));
    clerk.does(promote("x", 3, 2));
    clerk.does(promote("w", 3, 2));
    clerk.does(promote("a", 4, 2));
    clerk.does(promote("a", 2, 2));
    clerk.does(promote("a", 3, 1));
    clerk.does(promote("a", 3, 2));
    clerk.note("Until it has reached its timeline it is not started again");
    clerk.does(restart("a", 4));
    clerk.does(promoted("b", 3, 2, 1));
    clerk.does(promoted("a", 2, 2, 1));
    clerk.does(promoted("a", 3, 3, 1));
    clerk.does(promoted("a", 3, 2, 1));
    clerk.does(promoted("a", 3, 2, 1));
    clerk.does(initialized("a", 3, 7, 2));
    clerk.does(restart("b", 4));
    clerk.does(restart("a", 3));
    clerk.does(restart("a", 4));
    clerk.does(promoted("a", 4, 2, 1));
    clerk.note("A promotion that never came about leaves its timeline unused");
    clerk.does(promote("b", 5, 3));
    clerk.does(promote("b", 6, 3));
    clerk.does(promote("b", 6, 4));
    clerk.does(promoted("b", 6, 4, 2));
    clerk.note("A new copy of the data has proved nothing; a tag forbids");
    let mut cloned = info("a");
    cloned.incarnation = Some(Incarnation(2));
    clerk.does(Act::Register(cloned.clone()));
    clerk.does(promote("a", 7, 5));
    clerk.does(judge("a", true));
    cloned.tags.nofailover = true;
    clerk.does(Act::Register(cloned));
    clerk.does(promote("a", 7, 5));
    clerk.note("Waits cover the longest ttl that may still run");
    clerk.does(configure(0));
    clerk.does(configure(30_000));
    clerk.does(configure(2_000));
    clerk.does(configure(5_000));
    clerk.does(Act::TtlSettled { ttl_ms: 2_000 });
    clerk.does(Act::TtlSettled { ttl_ms: 5_000 });
    clerk.note("Members leave, the primary does not");
    clerk.does(forget("b"));
    clerk.does(forget("c"));
    clerk.does(forget("c"));
    clerk.does(judge("c", true));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/testdata/apply.txt");
    recorded(&file, &clerk.text);
}

#[test]
fn a_name_that_differs_in_case_only_is_refused() {
    let mut state = State::default();
    let register = |name: &str| command(Act::Register(info(name)), None);
    assert!(matches!(
        apply(&mut state, &register("node1"), VOTE),
        Outcome::Applied(_)
    ));
    let refused = Outcome::Refused(
        "Node1 differs from node1 in case only, and PostgreSQL takes the two for one".to_owned(),
    );
    assert_eq!(apply(&mut state, &register("Node1"), VOTE), refused);
    assert!(matches!(
        apply(&mut state, &register("node1"), VOTE),
        Outcome::Applied(_)
    ));
    assert!(matches!(
        apply(&mut state, &register("node2"), VOTE),
        Outcome::Applied(_)
    ));
}

#[test]
fn a_decision_on_another_revision_or_under_another_vote_is_stale() {
    let register = || Act::Register(info("a"));
    let mut state = State {
        revision: Revision(4),
        ..State::default()
    };
    let before = state.clone();
    for expected in [3, 5] {
        let stale = apply(&mut state, &command(register(), Some(Revision(expected))), VOTE);
        assert_eq!(stale, Outcome::Stale(Revision(4)));
    }
    for vote in [Vote { term: 6, node: 2 }, Vote { term: 5, node: 3 }] {
        for expected in [None, Some(Revision(4))] {
            let stale = apply(&mut state, &command(register(), expected), vote);
            assert_eq!(stale, Outcome::Stale(Revision(4)), "{vote:?}");
        }
    }
    assert_eq!(state, before, "a stale command changes nothing");
    let applied = apply(&mut state, &command(register(), None), VOTE);
    assert_eq!(applied, Outcome::Applied(Revision(5)));
}

#[test]
fn each_change_of_primacy_is_an_event_and_the_oldest_are_dropped() {
    let mut state = State::default();
    let mut does = |act| {
        let outcome = apply(&mut state, &command(act, None), VOTE);
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    };
    does(Act::Register(info("a")));
    does(bootstrap("a", 1));
    does(initialized("a", 1, 7, 1));
    for epoch in 2..=1_005 {
        does(restart("a", epoch));
        does(configure(epoch * 1_000));
    }
    assert_eq!(state.events.len(), State::EVENTS);
    let last = state.events.last().unwrap();
    assert_eq!(
        (last.epoch, last.member.clone()),
        (Epoch(1_005), Some("a".into()))
    );
    assert_eq!(
        last.revision + 1,
        state.revision.0,
        "the configuration came after it"
    );
    let epochs: Vec<u64> = state.events.iter().map(|event| event.epoch.0).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]));
}

/// Acts near enough to each other to meet, good and bad ones.
fn any_act() -> impl Strategy<Value = Act> {
    let name = || prop::sample::select(vec!["a", "b", "c", "w"]);
    let epoch = || 0..12_u64;
    let timeline = || 0..10_u32;
    prop_oneof![
        (name(), 1..3_u64, any::<bool>()).prop_map(|(name, incarnation, nofailover)| {
            let mut info = info(name);
            info.incarnation = Some(Incarnation(incarnation));
            info.tags.nofailover = nofailover && name == "c";
            if name == "w" {
                info.postgres = None;
            }
            Act::Register(info)
        }),
        (name(), epoch()).prop_map(|(name, epoch)| bootstrap(name, epoch)),
        (name(), epoch(), 7..9_u64, timeline()).prop_map(|(n, e, id, t)| initialized(n, e, id, t)),
        (name(), epoch(), timeline()).prop_map(|(name, epoch, on)| promote(name, epoch, on)),
        (name(), epoch()).prop_map(|(name, epoch)| restart(name, epoch)),
        (name(), epoch(), timeline(), timeline()).prop_map(|(n, e, t, p)| promoted(n, e, t, p)),
        (name(), any::<bool>()).prop_map(|(name, fit)| judge(name, fit)),
        (0..5_u64).prop_map(|s| configure(s * 1_000)),
        (0..5_u64).prop_map(|s| Act::TtlSettled { ttl_ms: s * 1_000 }),
        name().prop_map(forget),
    ]
}

/// Random acts are refused mostly; those that fit the state make it go on.
fn fitting(state: &State, act: Act) -> Act {
    match act {
        Act::Bootstrap {
            member,
            config,
            ttl_ms,
            ..
        } => Act::Bootstrap {
            member,
            epoch: state.epoch.next(),
            config,
            ttl_ms,
        },
        Act::Initialized {
            system_id, timeline, ..
        } => {
            let (member, epoch) = state
                .primacy
                .held()
                .unwrap_or((const { &MemberName(String::new()) }, Epoch(0)));
            Act::Initialized {
                member: member.clone(),
                epoch,
                system_id,
                timeline,
            }
        }
        Act::Promote { member, .. } => Act::Promote {
            member,
            epoch: state.epoch.next(),
            timeline: state.reserved.next(),
        },
        Act::Restart { member, .. } => Act::Restart {
            member,
            epoch: state.epoch.next(),
        },
        Act::Promoted(promotion) => match &state.primacy {
            Primacy::Held {
                member,
                epoch,
                timeline: Some(timeline),
                ..
            } => Act::Promoted(Promotion {
                member: member.clone(),
                epoch: *epoch,
                timeline: *timeline,
                ..promotion
            }),
            _ => Act::Promoted(promotion),
        },
        other => other,
    }
}

fn keeps_its_promises(old: &State, new: &State, outcome: &Outcome, command: &Command) {
    match outcome {
        Outcome::Applied(revision) => assert_eq!(*revision, new.revision),
        Outcome::Stale(_) | Outcome::Refused(_) => assert_eq!(old, new, "nothing was carried out"),
    }
    if old != new {
        assert_eq!(new.revision, old.revision.next());
        assert!(command.expected.is_none_or(|expected| expected == old.revision));
    }
    assert!(new.epoch >= old.epoch && new.epoch.0 <= old.epoch.0 + 1);
    assert!(new.reserved >= old.reserved);
    assert!(
        old.first.is_none() || new.first == old.first,
        "the first timeline is fixed"
    );
    assert!(old.system_id.is_none() || new.system_id == old.system_id);
    assert!(new.wait_ttl_ms >= new.ttl_ms);
    let lowered = new.wait_ttl_ms < old.wait_ttl_ms;
    assert!(
        !lowered || matches!(command.act, Act::TtlSettled { .. }),
        "a wait was cut short"
    );
    assert!(
        new.timelines.starts_with(&old.timelines),
        "history is only added to"
    );
    match (old.primacy.held(), new.primacy.held()) {
        (Some(_), None) => panic!("a holder keeps primacy until there is another"),
        (was, Some((member, epoch))) => {
            assert_eq!(epoch, new.epoch, "the holder has the newest epoch");
            let holds = &new.members[member];
            assert!(!holds.is_witness() || was.is_some_and(|(name, _)| name == member));
            if was != Some((member, epoch)) {
                assert!(epoch > old.epoch, "a holder of its own for each epoch");
                assert_eq!(new.events.last().map(|event| event.epoch), Some(epoch));
            }
        }
        (None, None) => {}
    }
    if let Act::Promote { member, timeline, .. } = &command.act
        && old != new
    {
        assert_eq!(old.members[member].fitness, Fitness::Fit);
        assert!(!old.members[member].info.tags.nofailover && !old.members[member].is_witness());
        assert!(*timeline > old.reserved, "a timeline is reserved once");
    }
    for promotion in &new.timelines {
        assert!(promotion.timeline <= new.reserved);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_commands_breaks_an_invariant(
        acts in prop::collection::vec((any_act(), 0..8_u8), 1..80)
    ) {
        let mut state = State::default();
        let mut holders = std::collections::BTreeMap::new();
        for (act, how) in acts {
            let act = if how == 0 { act } else { fitting(&state, act) };
            let expected = match how {
                0 | 1 => None,
                2 => Some(Revision(state.revision.0.saturating_sub(1))),
                _ => Some(state.revision),
            };
            let mut command = command(act, expected);
            if how == 3 {
                command.vote.term += 1;
            }
            let old = state.clone();
            let outcome = apply(&mut state, &command, VOTE);
            keeps_its_promises(&old, &state, &outcome, &command);
            if how == 3 {
                prop_assert_eq!(&old, &state);
            }
            if let Some((member, epoch)) = state.primacy.held() {
                let first = holders.entry(epoch).or_insert_with(|| member.clone());
                prop_assert_eq!(&*first, member, "an epoch has one holder for ever");
            }
        }
    }
}
