//! Random situations, told in the words of the scripts: what breaks a promise is printed as a script to keep.

use super::script::World;
use crate::cluster::{Command, Outcome, Revision, Vote, apply};
use proptest::prelude::*;

/// What may be said of a member that holds data.
const OF_A_MEMBER: &[&str] = &[
    "age=0",
    "age=600",
    "age=601",
    "followed=0",
    "followed=9999",
    "followed=10000",
    "fit",
    "unfit=away",
    "nofailover",
    "priority=0",
    "priority=2",
    "ended=0 end=1@0/5000100",
    "ended=1",
    "ended=1 end=1@0/5000100",
    "ended=2 end=2@0/5000200",
    "ended=3 end=1@0/4FFFFFF",
    "holding=1",
    "holding=2",
    "holding=3",
    "none",
    "unpromotable=broken",
    "unpromotable=no",
    "incarnation=9",
    "up=replica",
    "up=primary",
    "starting",
    "down",
    "timeline=1",
    "timeline=2",
    "timeline=3",
    "at=0/5000200",
    "at=0/6000000",
    "received=0/5000200",
    "received=0/5100000",
    "replayed=0/5000200",
    "received=0/4E00000 replayed=0/4E00000",
    "nowhere",
    "cut",
    "streams",
    "streamed=none",
    "streamed=1",
    "streamed=2",
    "offer",
    "offer=77",
    "offer=78",
    "fork=2<1@0/5000000",
    "fork=3<2@0/5000200",
];

/// What may be said of everything else.
const OF_THE_REST: &[&str] = &[
    "time: +1",
    "time: +599",
    "time: +1000",
    "time: +2119",
    "time: +2120",
    "time: +30400",
    "time: +300000",
    "time: leads=0",
    "time: leads=2119",
    "time: leads=2120",
    "time: granted=never",
    "time: granted=0",
    "time: granted=2119",
    "time: held=0",
    "time: ttl=0",
    "handover: to=b begun=1/b",
    "handover: begun=2/c",
    "handover: failover to=c begun=1/c",
    "handover: failover to=b begun=2/b loss",
    "handover: from=a to=b in=0",
    "handover: from=b in=-1000",
    "cluster: pause=on",
    "cluster: pause=7",
    "hear: a b c",
    "hear: b c",
    "cluster: ttl=2000 waits=30000",
    "cluster: ttl=2000 waits=2500",
    "settings: maximum_lag_on_failover=0",
    "settings: primary_start_timeout_s=1",
    "settings: report_interval_ms=1000",
    "primacy: a epoch=2 restart timeline=1",
    "primacy: b epoch=2 promotion timeline=2",
    "primacy: c epoch=2 promotion timeline=2",
    "primacy: c epoch=3 promotion timeline=3",
];

/// What may be said of the node itself.
const OF_ITSELF: &[&str] = &[
    "local: me=a",
    "local: me=b",
    "local: me=c",
    "local: data=unknown",
    "local: data=absent",
    "local: data=unread",
    "local: data=1@0/5000000",
    "local: data=1@0/5000001",
    "local: data=2@0/5000100",
    "local: data=3@0/5000100",
    "local: alien=8",
    "local: broken=torn",
    "local: down",
    "local: ending",
    "local: up",
    "local: up=primary",
    "local: up=replica",
    "local: up=demoted",
    "local: used=0",
    "local: used=1",
    "local: used=2",
    "local: used=3",
    "local: running=none",
    "local: running=1",
    "local: running=2",
    "local: lease=1",
    "local: lease=2",
    "local: lease=3",
    "local: left=0",
    "local: left=500",
    "local: left=501",
    "local: left=2000",
    "local: leaving",
];

/// How it began. `d` is a witness.
const BEGINNINGS: &[&str] = &[
    "herd: a b c d",
    "herd: a b c d",
    "herd: a b c d",
    "empty: a b c d",
    "empty: a b c d\ncluster: ttl=2000 waits=2000\nprimacy: a epoch=1 bootstrap",
];

/// Promotions that have come about, so that what follows is judged on their timeline.
const HISTORIES: &[&str] = &[
    "",
    "",
    "primacy: b epoch=2 promotion timeline=2\ncluster: history=2<1@0/5000000",
    "primacy: b epoch=2 promotion timeline=2\ncluster: history=2<1@0/5000000\nb: up=primary timeline=2 holding=2\n\
     c: timeline=2 streamed=2",
];

/// A script of up to 24 lines; some of them about the node itself.
pub(crate) fn any_script() -> impl Strategy<Value = String> {
    let member = (
        prop::sample::select(vec!["a", "b", "c"]),
        prop::sample::select(OF_A_MEMBER),
    )
        .prop_map(|(name, words)| format!("{name}: {words}"));
    let rest = prop::sample::select(OF_THE_REST).prop_map(str::to_owned);
    let line = prop_oneof![3 => member, 1 => rest];
    let itself = prop::sample::select(OF_ITSELF).prop_map(str::to_owned);
    (
        prop::sample::select(BEGINNINGS),
        prop::sample::select(HISTORIES),
        prop::collection::vec(line, 0..24),
        prop::collection::vec(itself, 0..12),
    )
        .prop_map(|(beginning, history, lines, own)| {
            let history = if beginning.starts_with("herd") {
                history
            } else {
                ""
            };
            let (lines, own) = (lines.join("\n"), own.join("\n"));
            format!("{beginning}\n{history}\nd: witness\n{lines}\n{own}\n")
        })
}

/// The situation that a script tells.
pub(crate) fn told(script: &str) -> World {
    let mut world = World::herd(&["a", "b", "c"]);
    for line in script.lines() {
        world.hear_line(line);
    }
    world
}

/// Carries out what a rule proposes.
pub(crate) fn carry_out(world: &mut World, rule: &str, act: crate::cluster::Act) -> Outcome {
    let vote = Vote { term: 1, node: 1 };
    let command = Command {
        expected: Some(world.state.revision),
        vote,
        rule: rule.to_owned(),
        reason: String::new(),
        at_ms: 0,
        act,
    };
    let before: Revision = world.state.revision;
    let outcome = apply::apply(&mut world.state, &command, vote);
    assert!(world.state.revision >= before);
    outcome
}
