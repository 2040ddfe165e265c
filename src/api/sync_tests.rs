//! What is answered where commits wait for standbys: codes, documents and metrics against recorded files (`testdata/`).

use super::fixtures::{NOW, facts, make_synchronous, name, postgres, recorded};
use super::golden_tests::{PROBES, ask, body, code};
use crate::cluster::{Facts, Lsn, Moment, SyncMode};
use std::fmt::Write;
use std::sync::Arc;

fn synchronous(node: usize, mode: SyncMode) -> Facts {
    let mut facts = facts(node);
    make_synchronous(&mut facts, mode);
    facts
}

/// node1 counts in both modes, node2 in quorum mode only.
#[test]
fn synchronous_modes() {
    let mut table = String::new();
    for (word, mode) in [("on", SyncMode::On), ("quorum", SyncMode::Quorum)] {
        for node in 0..3 {
            let facts = synchronous(node, mode);
            let _ = writeln!(table, "synchronous_mode {word}, node{node}");
            for target in PROBES.iter().filter(|target| {
                let path = target.trim_start_matches("/read-only-").trim_start_matches('/');
                [
                    "primary",
                    "replica",
                    "read-only",
                    "sync",
                    "synchronous",
                    "async",
                    "asynchronous",
                    "quorum",
                ]
                .contains(&path)
            }) {
                let _ = writeln!(table, "  {target:<25}{}", code(target, &facts));
            }
        }
        for (document, node) in [
            ("patroni", 0),
            ("patroni", 1),
            ("cluster", 2),
            ("explain", 1),
            ("metrics", 1),
        ] {
            let end = if document == "metrics" { "txt" } else { "json" };
            let body = ask("GET", &format!("/{document}"), Some(&synchronous(node, mode))).body;
            if document == "metrics" {
                let lines = body.lines().filter(|line| line.contains("_standby{"));
                let _ = writeln!(table, "{}", lines.collect::<Vec<_>>().join("\n"));
            } else {
                recorded(&format!("api/testdata/{document}_{word}_node{node}.{end}"), &body);
            }
        }
    }
    recorded("api/testdata/codes_synchronous.txt", &table);
}

/// While a change of the set is not proved, those who are in both sets count and no others.
#[test]
fn a_standby_counts_in_every_quorum_or_not_at_all() {
    let mut changing = synchronous(2, SyncMode::Quorum);
    assert_eq!(
        (code("/quorum", &changing), code("/async", &changing)),
        (200, 503)
    );
    let state = Arc::make_mut(&mut changing.state);
    let mut smaller = state.sync.quorums[0].clone();
    smaller.members.remove(&name(2));
    state.sync.quorums.push(smaller);
    assert_eq!(
        (code("/quorum", &changing), code("/async", &changing)),
        (503, 200)
    );
    assert_eq!(
        body("/cluster", &changing)["members"][1]["role"],
        "quorum_standby"
    );

    let mut cloned = synchronous(1, SyncMode::On);
    let members = &mut Arc::make_mut(&mut cloned.state).members;
    members.get_mut(&name(1)).unwrap().info.incarnation = None;
    assert_eq!((code("/sync", &cloned), code("/async", &cloned)), (503, 200));

    let mut stale = synchronous(1, SyncMode::On);
    stale.last_seen = Moment(NOW.0 - 2_000);
    assert_eq!(
        (code("/sync", &stale), code("/read-only-sync", &stale)),
        (503, 503)
    );

    let mut lagging = synchronous(1, SyncMode::On);
    postgres(&mut lagging).replayed = Some(Lsn(83_886_176 - 1_048_577));
    assert_eq!(
        (code("/sync", &lagging), code("/sync?lag=1MB", &lagging)),
        (200, 503)
    );
    assert_eq!(code("/sync?tag_zone=z1", &lagging), 200);
    assert_eq!(code("/sync?tag_zone=zz", &lagging), 503);
}

/// Only the members that are there count for an election, and the present primary is not there when it matters.
#[test]
fn explain_tells_whom_an_election_must_hear() {
    let mut facts = synchronous(0, SyncMode::Quorum);
    let quorum = |facts: &Facts| body("/explain", facts)["sync"]["quorums"][0].clone();
    assert_eq!(quorum(&facts)["met"], true);
    assert_eq!(quorum(&facts)["need"], 2);
    Arc::make_mut(&mut facts.members)[2].age_ms = 2_950;
    assert_eq!(quorum(&facts)["met"], false);
    assert_eq!(quorum(&facts)["missing"], serde_json::json!(["node0", "node2"]));
}
