//! The table of rules as a golden file, situations as text in `testdata/plan`, and what no situation may bring about.

use super::super::golden::{recorded, run_all, testdata};
use super::super::random::{any_script, carry_out, told};
use super::super::script::World;
use super::*;
use crate::cluster::{Fitness, Outcome, Pause, Tenure};
use proptest::prelude::*;
use std::fmt::Write;

#[test]
fn the_table_is_the_one_that_was_reviewed() {
    let mut text = String::new();
    for rule in RULES {
        writeln!(text, "{:<17} {}", rule.name, rule.says).unwrap();
    }
    recorded(&testdata("rules.txt"), &text);
}

#[test]
fn situations_and_every_rule_is_met_in_one() {
    let fired = run_all("plan");
    let silent: Vec<_> = RULES
        .iter()
        .map(|rule| rule.name)
        .chain(["nobody"])
        .filter(|name| !fired.contains(name))
        .collect();
    assert!(silent.is_empty(), "no situation for {silent:?}");
}

/// The holder's own word that the present epoch is over.
fn holder_ended(world: &World) -> bool {
    let Some((name, held)) = world.state.primacy.held() else {
        return false;
    };
    matches!(world.heard[name].report.tenure, Tenure::Ended { epoch, .. } if epoch == held)
}

/// Written out once more, apart from the code under test: no lease can be running any more.
fn leases_are_over(world: &World) -> bool {
    // A pause takes the deadline away; only an operator's word stands for its end then.
    let word = world
        .state
        .handover
        .as_ref()
        .is_some_and(|asked| asked.accept_loss);
    if world.state.pause != Pause::Off && !word {
        return false;
    }
    let from = [Some(world.lead_since), Some(world.held_since), world.last_grant];
    let from = from.into_iter().flatten().max().unwrap();
    let ttl = world.state.wait_ttl_ms;
    world.now.0 >= from.0 + ttl + ttl / 100 + 100
}

fn may_be_promoted(world: &World, name: &MemberName) -> Result<(), TestCaseError> {
    let (member, heard) = (&world.state.members[name], &world.heard[name]);
    let silence = (3 * world.settings.report_interval_ms).max(600);
    // One whom an operator named need be neither fit nor near, if nothing that the last primary said is missing.
    let asked = world
        .state
        .handover
        .as_ref()
        .and_then(|asked| asked.under_way.as_ref());
    // One of another epoch is a wish that is over.
    let its_epoch = world.state.primacy.last().map(|(_, epoch)| epoch);
    let named = asked.is_some_and(|begun| begun.to == *name && Some(begun.epoch) == its_epoch);
    prop_assert!(named || member.fitness == Fitness::Fit);
    prop_assert!(!member.is_witness());
    prop_assert!(!member.info.tags.nofailover && member.info.tags.failover_priority > 0);
    prop_assert!(world.now.0 - heard.at.0 <= silence, "silent");
    prop_assert_eq!(&heard.report.unpromotable, &None);
    prop_assert_eq!(heard.report.info.incarnation, member.info.incarnation);
    let postgres = heard.report.postgres.as_ref().unwrap();
    prop_assert_eq!(postgres.role, Role::Replica);
    prop_assert_eq!(postgres.state, PostgresState::Running);
    prop_assert_eq!(postgres.timeline, world.state.timeline());
    let reach = postgres.received.max(postgres.replayed).unwrap();
    if let Some((holder, held)) = world.state.primacy.held() {
        prop_assert!(holder != name || !world.state.is_confirmed());
        let last = &world.heard[holder].report;
        let known = last.postgres.as_ref().and_then(|postgres| postgres.location);
        let near = |at: u64| at <= reach.0 + world.settings.maximum_lag_on_failover;
        prop_assert!(named || known.is_none_or(|at| near(at.0)));
        if let Tenure::Ended {
            epoch,
            end: Some(end),
            ..
        } = last.tenure
            && epoch == held
        {
            let word = world.state.handover.as_ref().is_some_and(|asked| asked.failover);
            prop_assert!(named && word || near(end.lsn.0));
            // No switchover begins before its epoch's promotion is agreed on.
            let switches = named && !word && world.state.is_confirmed();
            prop_assert!(!switches || end.lsn <= reach, "a switchover loses nothing");
        }
    }
    Ok(())
}

fn is_allowed(world: &World, act: &Act) -> Result<(), TestCaseError> {
    let next = Epoch(world.state.epoch.0 + 1);
    let held = world.state.primacy.held();
    let may_move = held.is_none() || holder_ended(world) || leases_are_over(world);
    match act {
        Act::Promote {
            member,
            epoch,
            timeline,
        } => {
            prop_assert!(may_move, "a lease may be running");
            prop_assert_eq!(*epoch, next);
            prop_assert!(*timeline > world.state.reserved);
            may_be_promoted(world, member)?;
        }
        Act::Restart { member, epoch } => {
            prop_assert!(
                holder_ended(world),
                "only its own word lets a primary start again"
            );
            prop_assert_eq!(held.map(|(name, _)| name), Some(member));
            prop_assert_eq!(*epoch, next);
            prop_assert!(world.state.is_confirmed());
        }
        Act::Fence { epoch } => {
            prop_assert!(world.state.sync.is_on() && held.is_some());
            prop_assert_eq!(*epoch, next);
        }
        Act::Elect { member, epoch, .. } => {
            prop_assert!(world.state.sync.is_on());
            prop_assert!(may_move, "nobody said that the last epoch is over");
            prop_assert_eq!(*epoch, next);
            prop_assert!(world.state.members[member].info.tags.nofailover.eq(&false));
        }
        Act::Resync { .. } | Act::Settle { .. } => prop_assert!(held.is_some()),
        Act::Bootstrap { member, epoch, .. } => {
            prop_assert!(may_move, "a lease may be running");
            prop_assert_eq!(world.state.system_id, None);
            prop_assert_eq!(*epoch, next);
            prop_assert!(!world.state.members[member].is_witness());
        }
        Act::Judge {
            member,
            fitness: Fitness::Unfit(_),
        } => prop_assert_ne!(held.map(|(name, _)| name), Some(member)),
        Act::TtlSettled { ttl_ms } => prop_assert_eq!(*ttl_ms, world.state.ttl_ms),
        Act::Forget { member } => prop_assert!(world.state.is_removed(member), "only people ask for that"),
        Act::Configure { .. } | Act::Ask(_) | Act::Dismiss { .. } | Act::Readmit { .. } => {
            prop_assert!(false, "only people ask for that")
        }
        Act::Begin { epoch, to } => {
            prop_assert_eq!(held.map(|(_, epoch)| epoch), Some(*epoch));
            may_be_promoted(world, to)?;
        }
        Act::Resumed { since } => prop_assert_eq!(world.state.pause, Pause::Ending { since: *since }),
        Act::CallOff { .. } => prop_assert!(world.state.handover.is_some()),
        Act::Judge { .. } | Act::Register(_) | Act::Initialized { .. } | Act::Promoted(_) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_situation_makes_it_propose_what_is_not_allowed(script in any_script()) {
        let mut world = told(&script);
        // A proposal that is carried out must change something, or the leader would make it again and again.
        for _ in 0..12 {
            let (rule, verdict) = plan(&world.view());
            let Verdict::Propose(act, _) = verdict else { return Ok(()) };
            is_allowed(&world, &act)?;
            let (before, epoch) = (world.state.revision, world.state.epoch);
            let outcome = carry_out(&mut world, rule, act.clone());
            prop_assert_eq!(outcome, Outcome::Applied(before.next()), "{:?}", act);
            if world.state.epoch != epoch {
                world.held_since = world.now;
                world.last_grant = None;
            }
        }
        prop_assert!(false, "it does not come to rest");
    }
}

#[test]
fn nothing_is_decided_that_a_member_could_not_apply() {
    let mut world = super::super::script::World::empty(&["a", "b", "c"]);
    for member in world.state.members.values_mut() {
        member.info.level = 0;
    }
    let verdict = understood(
        &world.view(),
        Verdict::Propose(Act::TtlSettled { ttl_ms: 2_000 }, String::new()),
    );
    assert!(matches!(verdict, Verdict::Stand(why) if why.contains("must be upgraded")));
}
