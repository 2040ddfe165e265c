//! Every protection left out once: a promise must break within a few stories, and none in the same ones with it.

use matriarch_chaos::stories::{self, Bend};

/// The first seed that breaks a promise must come within this many.
fn within(bend: Bend) -> u64 {
    match bend {
        // About one story in twenty and one in ten.
        Bend::DeadlineFromReceipt | Bend::WaitLessVoteLease => 150,
        _ => 30,
    }
}

/// `promises` are those that may be the ones to break.
fn breaks(bend: Bend, promises: &[&str]) {
    let runs = within(bend);
    let mut found = None;
    for seed in 1..=runs {
        let kept = stories::run_protected(seed, bend);
        assert_eq!(
            kept.broken, None,
            "{bend:?}, seed {seed}, with the protection in its place"
        );
        if let Some(broken) = stories::run(seed, bend, false).broken {
            found = Some((seed, broken));
            break;
        }
    }
    assert!(found.is_some(), "{bend:?} broke no promise in {runs} stories");
    let (seed, broken) = found.unwrap_or_default();
    println!("{bend:?}: seed {seed}: {broken}");
    assert!(
        promises.iter().any(|promise| broken.starts_with(promise)),
        "{bend:?}, seed {seed} broke another promise than it should: {broken}"
    );
}

#[test]
fn lease_no_wait_by_a_new_leader() {
    breaks(Bend::NoWaitByANewLeader, &["P1"]);
}

#[test]
fn lease_wait_counted_from_noticing_the_leader_missing() {
    breaks(Bend::WaitFromNoticing, &["P1"]);
}

#[test]
fn lease_answered_without_a_quorum() {
    breaks(Bend::AnswerUnconfirmed, &["P1", "P4"]);
}

#[test]
fn lease_deadline_counted_from_receipt() {
    breaks(Bend::DeadlineFromReceipt, &["P1", "P4"]);
}

#[test]
fn lease_wait_shortened_by_rafts_vote_lease() {
    breaks(Bend::WaitLessVoteLease, &["P1"]);
}

#[test]
fn lease_epoch_used_again_after_a_stop() {
    breaks(Bend::EpochReused, &["P6"]);
}

#[test]
fn lease_ttl_lowered_without_settling() {
    breaks(Bend::TtlUnsettled, &["P1"]);
}

#[test]
fn guard_late_or_missing() {
    breaks(Bend::GuardLate, &["P1", "P4"]);
    breaks(Bend::GuardMissing, &["P1", "P4"]);
}

#[test]
fn lease_for_any_epoch() {
    breaks(Bend::AnyEpochLeased, &["P1"]);
}

#[test]
fn sync_names_before_the_record() {
    breaks(Bend::NamesBeforeRecord, &["P1/P2", "P2"]);
}

#[test]
fn sync_settled_without_proof() {
    breaks(Bend::SettleUnproved, &["P1/P2", "P2"]);
}

#[test]
fn fence_promise_lost_in_a_crash() {
    breaks(Bend::PromiseForgotten, &["P1/P2", "P2"]);
}

#[test]
fn fence_one_standby_heard() {
    breaks(Bend::OneHeard, &["P1/P2", "P2"]);
}

#[test]
fn fence_position_as_postgresql_says_it() {
    breaks(Bend::SaidPosition, &["P1/P2", "P2"]);
}

#[test]
fn orphans_left() {
    breaks(Bend::OrphansLeft, &["P1", "P2"]);
}

#[test]
fn timelines_unreserved() {
    breaks(Bend::TimelineUnreserved, &["P6"]);
}

#[test]
fn gate_without_barrier() {
    breaks(Bend::BarrierSkipped, &["P2"]);
}

#[test]
fn switchover_to_a_candidate_that_lacks_the_end() {
    breaks(Bend::CandidateUnchecked, &["P2"]);
}

#[test]
fn pause_hands_on() {
    breaks(Bend::HandsOn, &["P7"]);
}

#[test]
fn pause_ended_by_time() {
    breaks(Bend::PauseTimed, &["P1", "P7"]);
}

#[test]
fn tail_followed_instead_of_rewound() {
    breaks(Bend::RewindSkipped, &["P3", "P5"]);
}

#[test]
fn failover_that_loses_what_nobody_gave_up() {
    breaks(Bend::LossUnasked, &["P2"]);
}

#[test]
fn scheduled_switchover_before_its_time() {
    breaks(Bend::TimeIgnored, &["P5"]);
}

#[test]
fn tag_nofailover_unheard() {
    breaks(Bend::TagUnheard, &["P3"]);
}

#[test]
fn taken_out_and_still_running() {
    breaks(Bend::LeaverStays, &["P3"]);
}
