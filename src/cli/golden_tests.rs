//! What the commands print, as text, from the documents of the recorded herd (`testdata/`).

use super::explain::Explanation;
use super::history::history_sheet;
use super::members::Members;
use super::out::Style;
use super::sheet::Format;
use crate::api::fixtures::{NOW, add_witness, facts, make_synchronous, name, postgres, promotion, recorded};
use crate::api::{cluster_document, explain_document, history_document};
use crate::cluster::{Facts, Lsn, Moment, Primacy, Role, SyncMode};
use serde_json::{Value, json};
use std::sync::Arc;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

const ID: Option<&str> = Some("7710449293417045261");

fn list(facts: &Facts, extended: bool, format: Format) -> String {
    let (cluster, explained) = (
        json(&cluster_document(facts, NOW)),
        json(&explain_document(facts, NOW)),
    );
    let witnesses = if extended {
        explained["members"].as_array().unwrap().as_slice()
    } else {
        &[]
    };
    Members {
        name: "demo",
        cluster: &cluster,
        witnesses,
    }
    .render(ID, extended, format)
}

#[test]
fn lists() {
    let facts = facts(1);
    recorded("cli/testdata/list.txt", &list(&facts, false, Format::Pretty));
    recorded(
        "cli/testdata/list_extended.txt",
        &list(&facts, true, Format::Pretty),
    );
    recorded("cli/testdata/list.tsv", &list(&facts, false, Format::Tsv));
    recorded("cli/testdata/list.json", &list(&facts, false, Format::Json));
    recorded("cli/testdata/list.yaml", &list(&facts, false, Format::Yml));
}

#[test]
fn a_restart_is_pending() {
    let mut facts = facts(0);
    let pending = ("max_connections".into(), "100".into(), "101".into());
    postgres(&mut facts).pending_restart.push(pending);
    let long = ("archive_command".into(), "/bin/true".into(), "x".repeat(50));
    postgres(&mut facts).pending_restart.push(long);
    recorded(
        "cli/testdata/list_pending.txt",
        &list(&facts, false, Format::Pretty),
    );
    assert!(
        list(&facts, false, Format::Tsv)
            .contains("max_connections: 100->101, archive_command: /bin/true->xxx")
    );
}

#[test]
fn a_member_in_trouble_says_why() {
    let mut facts = facts(0);
    let report = &mut Arc::make_mut(&mut facts.members)[1].report;
    report.unpromotable = Some("the disk of /srv/pg is full (0 MB left)".into());
    report.postgres = Some(crate::cluster::PostgresReport {
        state: crate::cluster::PostgresState::Crashed,
        role: Role::Demoted,
        ..Default::default()
    });
    recorded(
        "cli/testdata/list_trouble.txt",
        &list(&facts, false, Format::Pretty),
    );
}

#[test]
fn one_port_one_line_each() {
    let mut facts = facts(0);
    for (node, member) in Arc::make_mut(&mut facts.state).members.values_mut().enumerate() {
        member.info.tags.shown = "{}".into();
        member.info.postgres = Some(crate::cluster::Endpoint {
            host: format!("10.0.0.{node}"),
            port: 5432,
        });
    }
    let replica = Arc::make_mut(&mut facts.members)[1]
        .report
        .postgres
        .as_mut()
        .unwrap();
    replica.replayed = Some(Lsn(83_886_176 - 41_943_040));
    let silent = Arc::make_mut(&mut facts.members)[2]
        .report
        .postgres
        .as_mut()
        .unwrap();
    (silent.received, silent.replayed) = (None, None);
    recorded(
        "cli/testdata/list_plain.txt",
        &list(&facts, false, Format::Pretty),
    );
}

#[test]
fn witnesses_are_seen_by_those_who_want_everything() {
    let mut facts = facts(0);
    add_witness(&mut facts);
    assert!(!list(&facts, false, Format::Pretty).contains("Witness"));
    recorded(
        "cli/testdata/list_witness.txt",
        &list(&facts, true, Format::Pretty),
    );
}

#[test]
fn a_cluster_nobody_knows_is_an_empty_table() {
    let unknown = Members {
        name: "nosuch",
        cluster: &Value::Null,
        witnesses: &[],
    };
    recorded(
        "cli/testdata/list_unknown.txt",
        &unknown.render(None, false, Format::Pretty),
    );
    assert_eq!(unknown.render(None, false, Format::Json), "[]\n");
}

#[test]
fn what_is_planned_stands_below() {
    let cluster = json!({
        "members": [],
        "pause": true,
        "scheduled_switchover": {"at": "2099-01-01T00:00:00+00:00", "from": "node1"},
    });
    let text = Members {
        name: "demo",
        cluster: &cluster,
        witnesses: &[],
    }
    .render(ID, false, Format::Pretty);
    assert!(text.ends_with(
        "+\n Maintenance mode: on\n Switchover scheduled at: 2099-01-01T00:00:00+00:00\n                    from: node1\n"
    ), "{text}");
}

#[test]
fn histories() {
    let mut facts = facts(0);
    let sheet = |facts: &Facts| history_sheet(json(&history_document(facts)).as_array().unwrap());
    let empty = sheet(&facts).render(Format::Pretty);
    Arc::make_mut(&mut facts.state).timelines.push(promotion());
    recorded(
        "cli/testdata/history.txt",
        &(empty + &sheet(&facts).render(Format::Pretty)),
    );
    recorded("cli/testdata/history.json", &sheet(&facts).render(Format::Json));
    recorded("cli/testdata/history.yaml", &sheet(&facts).render(Format::Yaml));
    recorded("cli/testdata/history.tsv", &sheet(&facts).render(Format::Tsv));
}

fn explained(facts: &Facts, holder: Option<Result<Value, String>>) -> String {
    let here = json(&explain_document(facts, NOW));
    Explanation {
        here: &here,
        holder,
        style: Style::PLAIN,
    }
    .text()
}

#[test]
fn explanations() {
    let mut replica = facts(1);
    add_witness(&mut replica);
    let primary = json(&explain_document(&facts(0), NOW));
    recorded(
        "cli/testdata/explain.txt",
        &explained(&replica, Some(Ok(primary))),
    );

    let mut old = replica.clone();
    old.last_seen = Moment(NOW.0 - 2_700);
    let said = explained(&old, None);
    assert!(
        said.lines()
            .any(|line| line.starts_with("Rule:") && line.ends_with("; that was 2.7 s ago")),
        "{said}"
    );

    let mut lost = facts(2);
    (lost.standing, lost.raft.leader) = (None, None);
    let state = Arc::make_mut(&mut lost.state);
    (state.ttl_ms, state.wait_ttl_ms) = (2_500, 30_000);
    state.members.get_mut(&name(1)).unwrap().fitness =
        crate::cluster::Fitness::Unfit("its copy of the data has not followed the primary yet".into());
    recorded(
        "cli/testdata/explain_lost.txt",
        &explained(&lost, Some(Err("connection refused".into()))),
    );

    let mut empty = facts(0);
    let state = Arc::make_mut(&mut empty.state);
    (state.primacy, state.system_id) = (Primacy::default(), None);
    state.events.clear();
    postgres(&mut empty).role = Role::Uninitialized;
    recorded("cli/testdata/explain_empty.txt", &explained(&empty, None));
}

#[test]
fn synchronous_replication() {
    for (word, mode) in [("on", SyncMode::On), ("quorum", SyncMode::Quorum)] {
        let mut facts = facts(1);
        make_synchronous(&mut facts, mode);
        let primary = json(&explain_document(&facts, NOW));
        let text = list(&facts, false, Format::Pretty) + "\n" + &explained(&facts, Some(Ok(primary)));
        recorded(&format!("cli/testdata/sync_{word}.txt"), &text);
    }
}

/// Each line that may stand there, one after the other.
#[test]
fn explanations_of_the_synchronous_set() {
    let mut facts = facts(1);
    make_synchronous(&mut facts, SyncMode::Quorum);
    let lines = |facts: &Facts| {
        let text = explained(facts, None);
        let about = |line: &&str| line.starts_with("Sync:") || line.starts_with("Election:");
        text.lines()
            .filter(about)
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut told = String::new();
    let mut tell = |title: &str, facts: &Facts| told.push_str(&format!("# {title}\n{}", lines(facts)));
    tell("settled", &facts);
    Arc::make_mut(&mut facts.members)[2].age_ms = 2_950;
    tell("node2 is silent", &facts);
    let state = Arc::make_mut(&mut facts.state);
    let mut smaller = state.sync.quorums[0].clone();
    smaller.members.remove(&name(2));
    state.sync.quorums.push(smaller);
    tell("node2 is being dropped", &facts);
    let state = Arc::make_mut(&mut facts.state);
    let quorum = state.sync.quorums.pop().unwrap();
    state.sync.quorums = vec![crate::cluster::Quorum::only(quorum.primary.clone(), quorum.copy)];
    tell("no standby is left", &facts);
    Arc::make_mut(&mut facts.state).sync.quorums[0].count = 1;
    tell("no standby is left, strict", &facts);
    Arc::make_mut(&mut facts.state).sync.quorums.clear();
    tell("switched on, not in force", &facts);
    Arc::make_mut(&mut facts.settings).synchronous_mode = SyncMode::Off;
    Arc::make_mut(&mut facts.state).sync.quorums = vec![quorum];
    tell("being switched off", &facts);
    recorded("cli/testdata/explain_sync.txt", &told);
}
