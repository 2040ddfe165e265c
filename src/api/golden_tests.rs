//! What is answered, as text: code tables, documents and metrics against recorded files (`testdata/`).

use super::fixtures::{NOW, add_witness, facts, name, postgres, promotion, recorded};
use super::{Ask, Identity, Kind, Query, Reply, answer};
use crate::cluster::{Epoch, Facts, Fitness, Lsn, Moment, PostgresState, Primacy, Role, Tenure};
use axum::http::{Method, StatusCode};
use serde_json::Value;
use std::fmt::Write;
use std::sync::Arc;

pub(super) fn ask(method: &str, target: &str, facts: Option<&Facts>) -> Reply {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let ask = Ask {
        method: &method,
        path,
        query: Query::parse(query),
        now: NOW,
    };
    answer(
        &ask,
        &Identity {
            scope: "demo".into(),
            name: "node0".into(),
        },
        facts,
    )
}

pub(super) fn code(target: &str, facts: &Facts) -> u16 {
    ask("GET", target, Some(facts)).status.as_u16()
}

pub(super) fn body(target: &str, facts: &Facts) -> Value {
    serde_json::from_str(&ask("GET", target, Some(facts)).body).unwrap()
}

pub(super) const PROBES: &[&str] = &[
    "/",
    "/primary",
    "/master",
    "/leader",
    "/read-write",
    "/standby-leader",
    "/standby_leader",
    "/replica",
    "/read-only",
    "/health",
    "/healthz",
    "/sync",
    "/synchronous",
    "/async",
    "/asynchronous",
    "/quorum",
    "/read-only-sync",
    "/read-only-synchronous",
    "/read-only-quorum",
    "/replica?lag=1MB",
    "/replica?lag=0",
    "/replica?lag=junk",
    "/replica?tag_zone=z1",
    "/replica?tag_zone=zz",
    "/replica?tag_num=1.4",
    "/replica?tag_clonefrom=true",
    "/replica?tag_noloadbalance=false",
    "/read-only?tag_zone=z0",
    "/replica?replication_state=streaming",
    "/replica?replication_state=foo",
    "/liveness",
    "/readiness",
    "/patroni",
    "/cluster",
    "/metrics",
    "/nonsense",
    "/primary/",
    "/cluster/foo",
    "/foo-replica",
    "/history",
    "/config",
    "/failsafe",
    "/explain",
];

fn codes(facts: &Facts) -> String {
    let mut table = format!("{:<40}GET HEAD OPTIONS POST\n", "");
    for target in PROBES {
        let of = |method| ask(method, target, Some(facts)).status.as_u16();
        let _ = writeln!(
            table,
            "{target:<40}{} {}  {}     {}",
            of("GET"),
            of("HEAD"),
            of("OPTIONS"),
            of("POST")
        );
    }
    table
}

#[test]
fn codes_of_leader_and_replica() {
    recorded("api/testdata/codes_leader.txt", &codes(&facts(0)));
    recorded("api/testdata/codes_replica.txt", &codes(&facts(1)));
}

#[test]
fn documents() {
    for (file, node, target) in [
        ("patroni_leader.json", 0, "/patroni"),
        ("patroni_replica.json", 1, "/patroni"),
        ("cluster.json", 2, "/cluster"),
        ("config.json", 0, "/config"),
        ("explain.json", 0, "/explain"),
        ("metrics_leader.txt", 0, "/metrics"),
        ("metrics_replica.txt", 1, "/metrics"),
    ] {
        recorded(
            &format!("api/testdata/{file}"),
            &ask("GET", target, Some(&facts(node))).body,
        );
    }
}

#[test]
fn head_and_options_say_the_status_only() {
    for method in ["HEAD", "OPTIONS"] {
        assert_eq!(
            ask(method, "/primary", Some(&facts(0))),
            Reply::bare(StatusCode::OK)
        );
        assert_eq!(
            ask(method, "/cluster", Some(&facts(0))),
            Reply::bare(StatusCode::SERVICE_UNAVAILABLE)
        );
    }
}

#[test]
fn before_the_first_facts_nothing_is_promised() {
    for target in PROBES {
        let reply = ask("GET", target, None);
        assert_eq!(
            (reply.status, reply.kind),
            (StatusCode::SERVICE_UNAVAILABLE, Kind::Json)
        );
        assert!(
            reply
                .body
                .starts_with(r#"{"state": "starting", "role": "uninitialized", "#)
        );
    }
    assert_eq!(ask("POST", "/nonsense", None).status, StatusCode::NOT_IMPLEMENTED);
}

#[test]
fn the_primary_needs_lease_and_gate() {
    let mut leader = facts(0);
    leader.gate_open = false;
    assert_eq!(
        (
            code("/leader", &leader),
            code("/primary", &leader),
            code("/read-only", &leader)
        ),
        (200, 503, 503)
    );
    let mut expired = facts(0);
    expired.lease.until = NOW;
    assert_eq!(
        (code("/leader", &expired), code("/primary", &expired)),
        (503, 503)
    );
    let mut deposed = facts(0);
    Arc::make_mut(&mut deposed.state).primacy = Primacy::Held {
        member: name(1),
        epoch: Epoch(2),
        origin: crate::cluster::Origin::Promotion,
        timeline: None,
    };
    assert_eq!(
        (code("/leader", &deposed), code("/primary", &deposed)),
        (503, 503)
    );
}

#[test]
fn a_replica_must_run_follow_and_want_readers() {
    let mut lagging = facts(1);
    postgres(&mut lagging).replayed = Some(Lsn(83_886_176 - 1_048_577));
    assert_eq!(code("/replica", &lagging), 200);
    assert_eq!(code("/replica?lag=1MB", &lagging), 503);
    assert_eq!(code("/replica?lag=2MB", &lagging), 200);
    assert_eq!(
        (
            code("/readiness", &lagging),
            code("/readiness?mode=write", &lagging)
        ),
        (503, 200)
    );
    assert_eq!(code("/readiness?lag=1GB", &lagging), 200);

    let mut starting = facts(1);
    postgres(&mut starting).state = PostgresState::Starting;
    assert_eq!(
        (code("/replica", &starting), code("/health", &starting)),
        (503, 503)
    );

    let mut hidden = facts(1);
    let me = Arc::make_mut(&mut hidden.state)
        .members
        .get_mut(&name(1))
        .unwrap();
    me.info.tags.noloadbalance = true;
    me.info.tags.shown = r#"{"noloadbalance": true}"#.into();
    assert_eq!(
        (
            code("/replica", &hidden),
            code("/async", &hidden),
            code("/health", &hidden)
        ),
        (503, 503, 200)
    );

    let mut archive = facts(1);
    postgres(&mut archive).replication_state = Some("in archive recovery".into());
    assert_eq!(code("/replica?replication_state=streaming", &archive), 503);
    assert_eq!(
        code("/replica?replication_state=in+archive+recovery", &archive),
        200
    );
    assert_eq!(code("/readiness", &archive), 503);
}

#[test]
fn an_old_picture_is_not_trusted() {
    let mut stale = facts(1);
    stale.last_seen = Moment(NOW.0 - 2_000);
    assert_eq!((code("/async", &stale), code("/replica", &stale)), (503, 200));
    assert_eq!(
        body("/patroni", &stale).get("cluster_unlocked"),
        Some(&Value::Bool(true))
    );
    assert_eq!(body("/patroni", &facts(1)).get("cluster_unlocked"), None);
}

#[test]
fn the_cluster_is_unlocked_when_its_primary_has_ended() {
    let mut ended = facts(1);
    let holder = &mut Arc::make_mut(&mut ended.members)[0].report;
    holder.tenure = Tenure::Ended {
        epoch: Epoch(1),
        end: None,
        why: "it was stopped".into(),
    };
    assert_eq!(
        body("/patroni", &ended).get("cluster_unlocked"),
        Some(&Value::Bool(true))
    );
}

#[test]
fn liveness_is_the_loop_alone() {
    let mut hung = facts(0);
    hung.loop_at = Moment(NOW.0 - 2_300);
    postgres(&mut hung).state = PostgresState::Running;
    assert_eq!(code("/liveness", &hung), 503);
    let mut standby = facts(1);
    standby.loop_at = Moment(NOW.0 - 2_300);
    assert_eq!(code("/liveness", &standby), 200);
    standby.loop_at = Moment(NOW.0 - 4_300);
    assert_eq!(code("/liveness", &standby), 503);
}

#[test]
fn members_without_a_fresh_report_are_not_listed() {
    let mut facts = facts(0);
    Arc::make_mut(&mut facts.members)[2].age_ms = 2_950;
    let names = |facts: &Facts| -> Vec<String> {
        let document = body("/cluster", facts);
        document["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&facts), ["node0", "node1"]);
    assert_eq!(body("/explain", &facts)["members"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_not_known_is_called_unknown() {
    let mut facts = facts(0);
    let starting = Arc::make_mut(&mut facts.members)[1]
        .report
        .postgres
        .as_mut()
        .unwrap();
    starting.state = PostgresState::Starting;
    (starting.received, starting.replayed, starting.timeline) = (None, None, None);
    let document = body("/cluster", &facts);
    let member = &document["members"][1];
    assert_eq!(
        (member["state"].as_str(), member.get("timeline")),
        (Some("starting"), None)
    );
    for key in [
        "receive_lag",
        "receive_lsn",
        "replay_lag",
        "replay_lsn",
        "lag",
        "lsn",
    ] {
        assert_eq!(member[key], "unknown", "{key}");
    }
}

#[test]
fn a_witness_is_no_member_of_the_database() {
    let mut facts = facts(0);
    add_witness(&mut facts);
    assert_eq!(body("/cluster", &facts)["members"].as_array().unwrap().len(), 3);
    Arc::make_mut(&mut facts.report).postgres = None;
    assert_eq!((code("/health", &facts), code("/replica", &facts)), (503, 503));
    assert_eq!(body("/patroni", &facts)["state"], "witness");
    assert!(
        ask("GET", "/metrics", Some(&facts))
            .body
            .contains("patroni_postgres_state{scope=\"demo\",name=\"node0\"} -1\n")
    );
}

#[test]
fn a_stopped_postgres_says_little() {
    let mut facts = facts(1);
    *postgres(&mut facts) = crate::cluster::PostgresReport {
        role: Role::Replica,
        ..Default::default()
    };
    let text = ask("GET", "/patroni", Some(&facts)).body;
    assert!(
        text.starts_with(r#"{"state": "stopped", "role": "replica", "dcs_last_seen": 1795228888, "#),
        "{text}"
    );
    let metrics = ask("GET", "/metrics", Some(&facts)).body;
    assert!(!metrics.contains("patroni_postgres_streaming") && metrics.contains("patroni_postgres_state{"));
}

#[test]
fn pending_restarts_say_why() {
    let mut facts = facts(0);
    postgres(&mut facts)
        .pending_restart
        .push(("max_connections".into(), "100".into(), "101".into()));
    let expected = r#""pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"}}, "#;
    let (status, cluster) = (
        ask("GET", "/patroni", Some(&facts)).body,
        ask("GET", "/cluster", Some(&facts)).body,
    );
    assert!(status.contains(&format!("{expected}\"patroni\"")), "{status}");
    assert!(cluster.contains(&format!("{expected}\"tags\"")), "{cluster}");
}

/// Other nodes' watchers read it as: it cannot be promoted.
#[test]
fn a_required_watchdog_that_cannot_be_had_is_told() {
    let mut facts = facts(1);
    assert_eq!(body("/patroni", &facts).get("watchdog_failed"), None);
    facts.vitals.guard.as_mut().unwrap().barred = true;
    assert_eq!(body("/patroni", &facts)["watchdog_failed"], true);
}

#[test]
fn history_and_configuration() {
    let mut facts = facts(0);
    let tag = |facts: &Facts| ask("GET", "/config", Some(facts)).header.unwrap();
    let before = tag(&facts);
    assert_eq!(before.0, "etag");
    Arc::make_mut(&mut facts.state).config.push(' ');
    assert_ne!(before.1, tag(&facts).1);
    assert_eq!(ask("GET", "/history", Some(&facts)).body, "[]");
    let state = Arc::make_mut(&mut facts.state);
    state.timelines.push(promotion());
    state.config.clear();
    let expected = r#"[[1, 83886880, "no recovery target specified (holder-gone)", "2026-11-21T02:42:24.394000+00:00", "node1"]]"#;
    assert_eq!(ask("GET", "/history", Some(&facts)).body, expected);
    assert_eq!(code("/config", &facts), 502);
}

#[test]
fn what_is_not_built_is_not_there() {
    for (method, path) in [
        ("PATCH", "/config"),
        ("POST", "/switchover"),
        ("DELETE", "/failover"),
        ("BREW", "/"),
    ] {
        let reply = ask(method, path, Some(&facts(0)));
        assert_eq!((reply.status.as_u16(), reply.kind), (501, Kind::Html));
        assert!(
            reply
                .body
                .contains(&format!("<p>Message: Unsupported method ('{method}').</p>"))
        );
    }
}

#[test]
fn explain_tells_the_reasons() {
    let mut facts = facts(0);
    let state = Arc::make_mut(&mut facts.state);
    state.members.get_mut(&name(2)).unwrap().fitness = Fitness::Unfit("it lost the stream".into());
    facts.standing = None;
    let document = body("/explain", &facts);
    assert_eq!(document["members"][2]["unfit_reason"], "it lost the stream");
    assert_eq!(
        (&document["standing"], &document["members"][2]["may_promote"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn a_pooler_beside_a_member_is_published() {
    let mut facts = facts(0);
    assert!(body("/cluster", &facts)["members"][0].get("proxy_url").is_none());
    let state = Arc::make_mut(&mut facts.state);
    state.members.get_mut(&name(0)).unwrap().info.pooler = Some(Box::new(crate::cluster::Endpoint {
        host: "10.0.0.1".to_owned(),
        port: 6432,
    }));
    let document = body("/cluster", &facts);
    assert_eq!(
        document["members"][0]["proxy_url"],
        "postgres://10.0.0.1:6432/postgres"
    );
}
