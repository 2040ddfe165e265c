//! Situations of one node as text in `testdata/duty`, what it owes in each, and what it never does in any.

use super::super::golden::run_all;
use super::super::random::{any_script, told};
use super::*;
use proptest::prelude::*;

#[test]
fn situations() {
    run_all("duty");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_never_laxer_than_the_plan(script in any_script()) {
        let world = told(&script);
        let (local, now) = (world.local(), world.now);
        let owed = duty(&world.state, &local, now);
        let held = world.state.primacy.held();
        let leased = |epoch| {
            held == Some((local.me, epoch)) && local.lease_epoch == epoch && now.0 + 500 < local.lease_until.0
        };
        let runs_as_primary = matches!(local.process, Process::Up(Some(Role::Primary)))
            || local.running.is_some() && matches!(local.process, Process::Up(_));
        if local.leaving {
            prop_assert!(matches!(owed, Duty::Rest(_)));
        } else if runs_as_primary {
            let right = matches!(owed, Duty::Serve(_) | Duty::Yield(_) | Duty::Fence(_));
            prop_assert!(right, "{owed:?}");
        }
        match owed {
            Duty::Serve(epoch) | Duty::Yield(epoch) => {
                prop_assert!(leased(epoch), "served without a lease");
                prop_assert_eq!(local.running, Some(epoch));
            }
            Duty::Rise { epoch, .. } => {
                prop_assert!(leased(epoch), "rose without a lease");
                prop_assert!(local.used < epoch, "rose in a used epoch");
                prop_assert!(matches!(local.process, Process::Down | Process::Up(Some(_))));
                prop_assert!(*local.data != Data::Unknown);
            }
            Duty::AwaitLease(epoch) => {
                prop_assert_eq!(held, Some((local.me, epoch)));
                prop_assert!(local.used < epoch, "asks for a lease of a used epoch");
            }
            Duty::End(epoch) => {
                prop_assert_eq!(held, Some((local.me, epoch)));
                prop_assert!(local.process == Process::Down, "said to be over while something runs");
                prop_assert!(local.used >= epoch);
            }
            Duty::Follow(of) | Duty::Rewind(of, _) | Duty::Clone(of, _) => {
                prop_assert!(of != *local.me, "nobody follows itself");
                prop_assert_eq!(held.map(|(name, _)| name), Some(&of));
                let alien = matches!(local.data, Data::Present { system_id, .. } if Some(*system_id) != world.state.system_id);
                prop_assert!(!alien, "data of another cluster is left alone");
            }
            Duty::Promise(epoch) => {
                prop_assert_eq!(world.state.primacy.fencing(), Some(epoch));
                prop_assert!(local.running.is_none(), "promised while a primary of its own may run");
            }
            Duty::Rest(_) | Duty::Fence(_) | Duty::Stand | Duty::Withdraw(_) => {}
        }
        let why = "it was taken out";
        let stops = matches!(out_of_place(&local, why), Some(Duty::Withdraw(_)));
        let is_our_standby = matches!(local.process, Process::Up(role) if role != Some(Role::Primary))
            && local.running.is_none() && !local.guest && !local.leaving;
        prop_assert_eq!(stops, is_our_standby, "only a standby is stopped for having no place");
    }
}
