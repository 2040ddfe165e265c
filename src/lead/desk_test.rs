//! The one lock: which lease is granted, which is withheld and until when, which report counts.

use super::*;
use crate::cluster::{Incarnation, Lsn, Outcome, Timeline, WalEnd, apply};
use crate::decide::script::World;

const VOTE: Vote = Vote { term: 3, node: 1 };
const LATER: Vote = Vote { term: 4, node: 1 };
const FIRST: Epoch = Epoch(1);

/// A leader's desk that has heard a healthy herd: `a` is primary of epoch 1, `b` and `c` follow.
struct Office {
    desk: Desk,
    world: World,
}

fn agreed<'a>(state: &'a State, settings: &'a Settings) -> Agreed<'a> {
    Agreed {
        state,
        settings,
        voters: 3,
    }
}

impl Office {
    fn open() -> Self {
        let office = Self {
            desk: Desk::default(),
            world: World::herd(&["a", "b", "c"]),
        };
        office.desk.note_state(&office.world.state, office.world.now);
        office.desk.note_lead(Some(VOTE), office.world.now);
        for name in ["a", "b", "c"] {
            office.hear(name, |_| {});
        }
        office
    }

    fn report(&self, name: &str) -> Report {
        let mut report = self.world.heard[&name.into()].report.clone();
        report.sent_at = self.world.now;
        report
    }

    fn hear(&self, name: &str, change: impl FnOnce(&mut Report)) -> Option<String> {
        let mut report = self.report(name);
        change(&mut report);
        let world = &self.world;
        self.desk.hear(report, &world.state, &world.settings, world.now)
    }

    fn end(&self, epoch: Epoch) {
        self.hear("a", |report| {
            let end = Some(WalEnd::default());
            let why = "postmaster died".to_owned();
            report.tenure = Tenure::Ended { epoch, end, why };
        });
    }

    fn pass(&mut self, ms: u64) {
        self.world.now = self.world.now.plus(ms);
    }

    fn grant(&self, name: &str, epoch: Epoch) -> Option<Grant> {
        let world = &self.world;
        self.desk.grant(&name.into(), epoch, &world.state, world.now)
    }

    fn judge(&self) -> Option<Judgement> {
        let world = &self.world;
        self.desk.judge(
            &agreed(&world.state, &world.settings),
            world.now,
            world.wall_ms,
            true,
        )
    }

    fn rule(&self) -> &'static str {
        self.judge().unwrap().rule
    }

    /// Carries the verdict out, without telling the desk.
    fn carry_out(&mut self, judgement: Judgement) {
        let Verdict::Propose(act, reason) = judgement.verdict else {
            panic!("{} proposes nothing", judgement.rule);
        };
        let command = crate::cluster::Command {
            expected: Some(self.world.state.revision),
            vote: judgement.vote,
            rule: judgement.rule.to_owned(),
            reason,
            at_ms: 0,
            act,
        };
        let outcome = apply::apply(&mut self.world.state, &command, judgement.vote);
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }

    /// Everybody but `a` reports on; `a` has been silent until its lease is over.
    fn outlast_a(&mut self) {
        self.pass(2_120);
        self.hear("b", |_| {});
        self.hear("c", |_| {});
    }
}

/// `fence_after` of 500 ms is the shortest silence that means anything.
#[test]
fn the_leader_is_calm_only_as_long_as_nobody_is_about_to_be_silent_too_long() {
    let mut office = Office::open();
    assert_eq!(office.rule(), "healthy");
    let pause = |office: &Office| {
        let judgement = office.judge().unwrap();
        (judgement.calm, judgement.changes_in_ms)
    };
    assert_eq!(pause(&office), (true, Some(500)));
    office.pass(349);
    assert_eq!(pause(&office), (true, Some(151)));
    office.pass(1);
    assert_eq!(pause(&office), (false, Some(150)));
    office.hear("a", |_| {});
    office.hear("b", |_| {});
    assert_eq!(pause(&office), (false, Some(150)), "c is the last");
    office.pass(150);
    assert_eq!(pause(&office), (false, Some(101)), "until nobody counts on it");
    office.pass(101);
    assert_eq!(pause(&office).1, Some(249), "a and b are next");
    office.pass(248);
    for name in ["a", "b", "c"] {
        office.hear(name, |_| {});
    }
    assert_eq!(pause(&office), (true, Some(500)));
}

/// Its PostgreSQL may serve on, which the standbys find out before a fence after 500 ms.
#[test]
fn the_leader_worries_about_a_primary_whose_report_is_late_until_its_lease_is_over() {
    let mut office = Office::open();
    office.grant("a", FIRST).unwrap();
    let worried = |office: &Office| office.judge().unwrap().worried;
    office.pass(300);
    assert!(!worried(&office), "nobody is fenced for silence");
    let copy = office.world.state.members[&"a".into()].info.incarnation;
    let alone = crate::cluster::Quorum::only("a".into(), copy);
    office.world.state.sync.quorums.push(alone);
    assert!(worried(&office));
    office.hear("a", |_| {});
    office.pass(299);
    assert!(!worried(&office));
    office.pass(1);
    assert!(worried(&office));
    office.outlast_a();
    assert!(!worried(&office), "its lease is over");
}

/// Its leader stood still, and not the primary, whose report lay there all the while.
#[test]
fn a_look_that_is_not_acted_on_withholds_nothing() {
    let mut office = Office::open();
    office.outlast_a();
    let world = &office.world;
    let agreed = agreed(&world.state, &world.settings);
    let look = office.desk.judge(&agreed, world.now, world.wall_ms, false);
    assert_ne!(look.unwrap().rule, "healthy");
    assert!(office.grant("a", FIRST).is_some());
}

#[test]
fn a_report_that_lay_unread_is_known_to_be_overtaken() {
    let mut office = Office::open();
    let lying = office.report("a");
    assert!(!office.desk.knows_later(&lying));
    office.pass(10);
    office.hear("a", |_| {});
    assert!(office.desk.knows_later(&lying));
    let again = Report {
        run: lying.run + 1,
        ..lying
    };
    assert!(!office.desk.knows_later(&again), "of another run of the daemon");
}

#[test]
fn a_lease_is_for_the_holder_of_the_present_epoch_only() {
    let mut office = Office::open();
    let granted = Grant {
        epoch: FIRST,
        ttl_ms: 2_000,
    };
    assert_eq!(office.grant("a", FIRST), Some(granted));
    assert_eq!(office.grant("b", FIRST), None);
    assert_eq!(office.grant("a", Epoch(0)), None);
    assert_eq!(office.grant("a", Epoch(2)), None);
    office.world.state.primacy = crate::cluster::Primacy::Vacant;
    assert_eq!(office.grant("a", FIRST), None);
}

#[test]
fn only_a_leader_grants_or_judges() {
    let office = Office::open();
    office.desk.note_lead(None, office.world.now);
    assert_eq!(office.grant("a", FIRST), None);
    assert!(office.judge().is_none());
    office.desk.note_lead(Some(LATER), office.world.now);
    assert!(office.grant("a", FIRST).is_some());
    assert_eq!(office.judge().unwrap().vote, LATER);
}

#[test]
fn an_ended_epoch_is_never_leased_again() {
    let office = Office::open();
    // An end of an older epoch is no news: the holder said it before it was given this one.
    office.end(Epoch(0));
    assert!(office.grant("a", FIRST).is_some());
    office.end(FIRST);
    assert_eq!(office.grant("a", FIRST), None);
    office.end(Epoch(0));
    assert_eq!(office.grant("a", FIRST), None, "nothing takes it back");
}

#[test]
fn a_moving_verdict_withholds_the_lease_until_it_is_known_to_have_failed() {
    let mut office = Office::open();
    office.outlast_a();
    assert_eq!(office.rule(), "lease-over");
    office.hear("a", |_| {});
    assert_eq!(
        office.rule(),
        "healthy",
        "the holder is back, but the proposal is on its way"
    );
    assert_eq!(office.grant("a", FIRST), None);
    office.desk.release(Epoch(7));
    assert_eq!(office.grant("a", FIRST), None, "another epoch was released");
    office.desk.release(FIRST);
    assert!(office.grant("a", FIRST).is_some());
}

#[test]
fn a_standing_or_harmless_verdict_withholds_nothing() {
    let mut office = Office::open();
    assert_eq!(office.rule(), "healthy");
    assert!(office.grant("a", FIRST).is_some());
    office.hear("b", |report| report.info.api_url.push('/'));
    assert_eq!(office.rule(), "register");
    assert!(office.grant("a", FIRST).is_some());
    office.pass(700);
    assert_eq!(office.rule(), "lease-running");
    assert!(office.grant("a", FIRST).is_some());
}

#[test]
fn another_reign_or_another_epoch_ends_the_withholding() {
    let mut office = Office::open();
    office.outlast_a();
    assert_eq!(office.rule(), "lease-over");
    office.desk.note_lead(Some(VOTE), office.world.now);
    assert_eq!(office.grant("a", FIRST), None, "the same reign goes on");
    office.desk.note_lead(Some(LATER), office.world.now);
    assert!(office.grant("a", FIRST).is_some());

    let mut office = Office::open();
    office.outlast_a();
    let judgement = office.judge().unwrap();
    office.carry_out(judgement);
    assert!(office.grant("b", Epoch(2)).is_some());
    assert_eq!(office.grant("a", FIRST), None);
}

#[test]
fn a_state_that_was_read_before_the_move_grants_nothing_after_it() {
    let mut office = Office::open();
    office.outlast_a();
    let before = office.world.state.clone();
    let judgement = office.judge().unwrap();
    office.carry_out(judgement);
    office.desk.note_state(&office.world.state, office.world.now);
    let late = office.desk.grant(&"a".into(), FIRST, &before, office.world.now);
    assert_eq!(late, None, "a was deposed while its answer was being written");
    let judged = office.desk.judge(
        &agreed(&before, &office.world.settings),
        office.world.now,
        office.world.wall_ms,
        true,
    );
    assert!(judged.is_none(), "nor is anything judged by it");
}

#[test]
fn a_new_holder_gets_its_time_even_before_the_state_was_noted() {
    let mut office = Office::open();
    office.outlast_a();
    let judgement = office.judge().unwrap();
    office.carry_out(judgement);
    assert_eq!(
        office.rule(),
        "lease-running",
        "b has not even heard that it was chosen"
    );
    office.pass(2_119);
    office.hear("c", |_| {});
    assert_eq!(office.rule(), "lease-running");
    office.pass(1);
    assert_eq!(office.rule(), "lease-over");
}

#[test]
fn a_lowered_ttl_counts_from_when_it_was_first_seen() {
    let mut office = Office::open();
    office.world.state.ttl_ms = 30_000;
    office.world.state.wait_ttl_ms = 30_000;
    office.world.state.revision = Revision(1);
    assert_eq!(office.rule(), "healthy");
    office.pass(60_000);
    office.world.state.ttl_ms = 2_000;
    office.world.state.revision = Revision(2);
    office.hear("a", |_| {});
    assert_ne!(office.rule(), "settle-ttl", "a grant of 30 s may be a moment old");
    office.pass(30_399);
    assert_ne!(office.rule(), "settle-ttl");
    office.pass(1);
    assert_eq!(office.rule(), "settle-ttl");
}

#[test]
fn each_grant_postpones_a_move_and_a_grant_of_another_epoch_does_not() {
    let mut office = Office::open();
    office.pass(2_000);
    assert!(office.grant("a", FIRST).is_some());
    office.outlast_a();
    office.pass(0);
    assert_eq!(office.rule(), "lease-over", "2120 ms after the grant");

    let mut office = Office::open();
    office.pass(2_000);
    assert!(office.grant("a", FIRST).is_some());
    office.pass(2_119);
    office.hear("b", |_| {});
    assert_eq!(office.rule(), "lease-running");
}

#[test]
fn an_old_report_of_the_same_run_is_ignored_and_one_of_a_new_run_is_not() {
    let mut office = Office::open();
    office.pass(1_000);
    let trouble = |office: &Office| office.desk.lock().heard[&"a".into()].report.unpromotable.clone();
    office.hear("a", |report| report.unpromotable = Some("tired".to_owned()));
    office.hear("a", |report| report.sent_at = Moment(report.sent_at.0 - 1));
    assert!(
        trouble(&office).is_some(),
        "that was said later than this was sent"
    );
    // The clock of a machine that was rebooted begins anew.
    office.hear("a", |report| {
        report.run = 9;
        report.sent_at = Moment(1);
    });
    assert_eq!(trouble(&office), None);
}

#[test]
fn the_end_of_an_epoch_stays_said_whatever_a_daemon_that_wakes_up_sends() {
    let mut office = Office::open();
    office.pass(1_000);
    // The guard's messenger: another run, sent while the daemon was stopped.
    office.hear("a", |report| {
        report.run = 77;
        report.tenure = Tenure::Ended {
            epoch: FIRST,
            end: None,
            why: "fenced".to_owned(),
        };
    });
    let said = office.world.now;
    for run in [0, 9] {
        office.pass(10);
        office.hear("a", |report| report.run = run);
        assert_eq!(
            office.grant("a", FIRST),
            None,
            "what the daemon knew before it was stopped"
        );
        office.hear("a", |report| {
            report.run = run;
            report.tenure = Tenure::None;
        });
        let inner = office.desk.lock();
        let heard = &inner.heard[&"a".into()];
        assert_eq!(heard.ended_at, Some(said));
        assert!(matches!(heard.report.tenure, Tenure::Ended { epoch: FIRST, .. }));
    }
    // What the daemon adds is welcome, and is not lost again.
    let end = WalEnd {
        timeline: Timeline(1),
        lsn: Lsn(500),
    };
    for end_said in [Some(end), None] {
        office.pass(10);
        office.hear("a", |report| {
            report.run = 9;
            report.tenure = Tenure::Ended {
                epoch: FIRST,
                end: end_said,
                why: "PostgreSQL is gone".to_owned(),
            };
        });
        let inner = office.desk.lock();
        let tenure = &inner.heard[&"a".into()].report.tenure;
        assert!(matches!(tenure, Tenure::Ended { end: known, .. } if *known == Some(end)));
    }
    office.world.state.epoch = Epoch(2);
    office.hear("a", |report| report.run = 9);
    assert!(matches!(
        office.desk.lock().heard[&"a".into()].report.tenure,
        Tenure::Holding { .. }
    ));
}

#[test]
fn the_first_word_of_an_end_dates_it_and_each_end_has_its_own() {
    let mut office = Office::open();
    office.end(FIRST);
    let said = office.world.now;
    office.pass(10);
    office.end(FIRST);
    let ended_at = |office: &Office| office.desk.lock().heard[&"a".into()].ended_at;
    assert_eq!(ended_at(&office), Some(said));
    office.pass(300);
    let judgement = office.judge().unwrap();
    assert_eq!(judgement.rule, "has-every-byte");
    office.world.state.epoch = Epoch(2);
    office.end(Epoch(2));
    assert_eq!(ended_at(&office), Some(office.world.now));
}

#[test]
fn of_two_nodes_with_one_name_the_first_is_kept_while_a_lease_of_it_may_run() {
    let mut office = Office::open();
    let twin = |report: &mut Report| {
        report.info.raft_addr = "elsewhere:2222".to_owned();
        report.info.incarnation = Some(Incarnation(99));
    };
    assert_eq!(office.hear("a", twin), Some("a:2222".to_owned()));
    assert_eq!(office.desk.lock().heard[&"a".into()].report, office.report("a"));
    office.pass(2_119);
    assert_eq!(office.hear("a", twin), Some("a:2222".to_owned()));
    office.pass(1);
    assert_eq!(office.hear("a", twin), None);
    assert_eq!(office.hear("a", |_| {}), Some("elsewhere:2222".to_owned()));

    let mut office = Office::open();
    office.world.state.wait_ttl_ms = 30_000;
    office.pass(30_399);
    assert_eq!(office.hear("a", twin), Some("a:2222".to_owned()));
}

#[test]
fn who_left_is_dropped_after_ten_seconds_of_silence() {
    let mut office = Office::open();
    office.world.state.members.remove(&"c".into());
    office.pass(9_999);
    office.desk.note_state(&office.world.state, office.world.now);
    assert_eq!(office.desk.digest(office.world.now).len(), 3);
    office.pass(1);
    office.desk.note_state(&office.world.state, office.world.now);
    let left = office.desk.digest(office.world.now);
    assert_eq!(left.len(), 2, "members stay however silent they are");
    assert!(left.iter().all(|seen| seen.age_ms == 10_000));
}

#[test]
fn a_new_leader_takes_everybody_for_a_follower_for_a_while() {
    let mut office = Office::open();
    office.pass(60_000);
    for name in ["a", "b", "c"] {
        office.hear(name, |report| {
            report.postgres.as_mut().unwrap().streamed_in = None
        });
    }
    assert_eq!(office.rule(), "lost-right");
    office.desk.note_lead(Some(LATER), office.world.now);
    assert_eq!(office.rule(), "healthy");
}

#[test]
fn the_standing_names_the_rule_and_why_each_may_not() {
    let office = Office::open();
    office.judge();
    let standing = office.desk.standing();
    assert_eq!(standing.rule, "healthy");
    let whys: Vec<_> = standing
        .candidates
        .iter()
        .map(|(_, why)| why.as_deref())
        .collect();
    assert_eq!(whys, [Some("it is the primary"), None, None]);
}
