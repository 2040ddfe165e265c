//! Commands that ask before they act, and what their refusals are worth as exit codes.

use super::called::Called::{self, Matriarch, Patronictl};
use super::replay::{CONFIG_TAG, Stage};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

fn stage() -> Stage {
    let stage = Stage::open();
    let member = |node: usize, role: &str| {
        json!({"name": format!("node{node}"), "role": role, "state": "running", "port": 1,
            "api_url": format!("{{node{node}}}/patroni"), "host": format!("127.0.0.{}", node + 1), "timeline": 1})
    };
    {
        let mut world = stage.world.lock().unwrap();
        world.cluster = json!({
            "members": [member(0, "leader"), member(1, "sync_standby"), member(2, "replica")], "scope": "demo"});
        world.config = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB"}}});
    }
    stage
}

fn reply(stage: &Stage, status: u16, text: &str) {
    stage.world.lock().unwrap().replies = vec![(status, text.to_owned())];
}

/// Runs it and returns what stands behind the table.
fn run(stage: &Stage, called: Called, line: &[&str], typed: &str) -> (String, u8) {
    let (shown, code) = stage.run(called, line, typed);
    let tail = shown
        .rsplit_once("-+\n")
        .map_or(shown.clone(), |(_, tail)| tail.to_owned());
    (tail, code)
}

#[test]
fn a_switchover_asks_for_everything() {
    let stage = stage();
    reply(&stage, 202, "Switchover scheduled");
    let typed = "\nnode2\n2099-01-01T00:00+00:00\ny\n";
    let (shown, code) = stage.run(Matriarch, &["switchover"], typed);
    let question =
        "Primary [node0]: Candidate ['node1', 'node2'] []: When should the switchover take place (e.g. ";
    assert!(shown.contains(question), "{shown}");
    let last = "[now]: Are you sure you want to schedule switchover of cluster demo at 2099-01-01T00:00:00+00:00, \
                demoting current leader node0? [y/N]: ";
    assert!(shown.contains(last), "{shown}");
    assert_eq!(code, 0);
    let order = json!({"leader": "node0", "candidate": "node2", "scheduled_at": "2099-01-01T00:00:00+00:00"});
    assert_eq!(stage.heard()[0].body, order);
}

#[test]
fn a_no_and_no_answer_change_nothing() {
    let stage = stage();
    let typed = [
        "\nnode9\n",
        "node1\n",
        "\nnode1\nnow\nn\n",
        "\nnode1\nnow\n\n",
        "\n",
    ];
    let words = [
        "does not exist in cluster demo",
        "is not the leader",
        "Aborted",
        "Aborted",
        "\nAborted!\n",
    ];
    for (typed, words) in typed.into_iter().zip(words) {
        let (shown, code) = run(&stage, Patronictl, &["switchover"], typed);
        assert!(shown.contains(words), "{shown}");
        assert_eq!(code, 1);
    }
    for command in [
        &["restart", "demo"][..],
        &["reload", "demo"],
        &["reinit", "demo", "node2"],
    ] {
        let (_, code) = run(&stage, Patronictl, command, "now\nn\n");
        assert_eq!(code, 1, "{command:?}");
    }
    assert_eq!(stage.heard(), []);
}

#[test]
fn a_failover_to_a_node_that_may_lack_commits_is_asked_twice() {
    let stage = stage();
    reply(&stage, 200, "Successfully failed over to \"node2\"");
    let (shown, code) = stage.run(Matriarch, &["failover"], "node2\ny\ny\n");
    assert!(shown.contains("node2 is asynchronous"), "{shown}");
    assert_eq!((code, shown.matches("[y/N]").count()), (0, 2));
    let order = json!({"candidate": "node2", "accept_data_loss": true});
    assert_eq!(stage.heard()[0].body, order);
    let (shown, _) = stage.run(Matriarch, &["failover", "--candidate", "node1"], "n\n");
    assert!(!shown.contains("asynchronous"), "{shown}");
}

#[test]
fn a_loss_is_accepted_by_a_word_of_its_own() {
    let stage = stage();
    let refusal = "12 MB may be lost; repeat the request with \"accept_data_loss\": true";
    let success = (200, "Successfully failed over to \"node1\"".to_owned());
    stage.world.lock().unwrap().replies = vec![(412, refusal.to_owned()), success];
    let line = ["failover", "--candidate", "node1"];
    let (_, code) = run(&stage, Matriarch, &line, "y\ny\n");
    let bodies: Vec<Value> = stage.heard().into_iter().map(|heard| heard.body).collect();
    let accepted = json!({"candidate": "node1", "accept_data_loss": true});
    assert_eq!(
        (code, bodies),
        (0, vec![json!({"candidate": "node1"}), accepted.clone()])
    );
    reply(&stage, 412, refusal);
    let (shown, code) = run(
        &stage,
        Matriarch,
        &["failover", "--candidate", "node1", "--force"],
        "",
    );
    assert!(
        shown.ends_with("note: with --accept-data-loss the loss is accepted\n"),
        "{shown}"
    );
    assert_eq!((code, stage.heard().len()), (1, 1));
    reply(&stage, 200, "Successfully failed over to \"node1\"");
    let line = [
        "failover",
        "--candidate",
        "node1",
        "--force",
        "--accept-data-loss",
    ];
    assert_eq!(run(&stage, Matriarch, &line, "").1, 0);
    assert_eq!(stage.heard()[0].body, accepted);
}

#[test]
fn without_a_leader_the_candidate_is_told() {
    let stage = stage();
    stage.world.lock().unwrap().cluster["members"][0]["role"] = "replica".into();
    let (shown, code) = run(&stage, Patronictl, &["switchover", "--force"], "");
    assert_eq!((shown.as_str(), code), ("Error: This cluster has no leader\n", 1));
    reply(&stage, 200, "Successfully failed over to \"node2\"");
    let (_, code) = run(
        &stage,
        Patronictl,
        &["failover", "--candidate", "node2", "--force"],
        "",
    );
    assert_eq!((code, stage.heard()[0].node), (0, 2));
}

#[test]
fn a_refusal_is_an_error_except_to_old_scripts() {
    let stage = stage();
    let refused: [(&[&str], u16, &str, &str); 5] = [
        (
            &["switchover", "--force"],
            412,
            "no good candidates have been found",
            "Switchover failed, details: 412, ",
        ),
        (
            &["restart", "demo", "node1", "--force"],
            503,
            "restart failed",
            "Failed: restart for member node1, status code=503, (restart failed)\n",
        ),
        (
            &[
                "restart",
                "demo",
                "node1",
                "--force",
                "--scheduled",
                "2099-01-01T00:00Z",
            ],
            409,
            "Another restart",
            "Failed: another restart is already scheduled on member node1\n",
        ),
        (
            &["reinit", "demo", "node1", "--force"],
            503,
            "Cluster has no leader, can not reinitialize",
            "Failed: reinitialize for member node1, status code=503, (Cluster has no leader, can not reinitialize)\n",
        ),
        (
            &["pause"],
            503,
            "no",
            "Failed: pause cluster management status code=503, (no)\n",
        ),
    ];
    for (line, status, text, words) in refused {
        for (called, expected) in [(Patronictl, 0), (Matriarch, 1)] {
            reply(&stage, status, text);
            let (shown, code) = run(&stage, called, line, "");
            assert!(shown.starts_with(words), "{shown}");
            assert_eq!(code, expected, "{line:?}");
        }
    }
}

#[test]
fn what_a_member_is_busy_with_can_be_stopped() {
    let stage = stage();
    stage.world.lock().unwrap().replies = vec![
        (503, "restart already in progress".to_owned()),
        (200, "reinitialize started".to_owned()),
    ];
    let (shown, code) = run(
        &stage,
        Matriarch,
        &["reinit", "demo", "--from-leader"],
        "node2\ny\ny\n",
    );
    assert!(
        shown.ends_with("Success: reinitialize for member node2\n"),
        "{shown}"
    );
    let bodies: Vec<Value> = stage.heard().into_iter().map(|heard| heard.body).collect();
    let body = |force: bool| json!({"force": force, "from_leader": true});
    assert_eq!((code, bodies), (0, vec![body(false), body(true)]));
}

#[test]
fn settings_come_from_files_and_editors_too() {
    let stage = stage();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new.yml");
    std::fs::write(&file, "ttl: 20\nloop_wait: null\n").unwrap();
    let file = file.display().to_string();
    reply(&stage, 200, "{}");
    let (_, code) = run(
        &stage,
        Matriarch,
        &["edit-config", "--replace", &file, "-q"],
        "y\n",
    );
    let heard = &stage.heard()[0];
    assert_eq!((code, heard.what.as_str()), (0, "PUT /config"));
    assert_eq!(heard.if_match.as_deref(), Some(CONFIG_TAG));
    let (shown, code) = run(&stage, Matriarch, &["edit-config", "--apply", "-"], "ttl: 20\n");
    assert!(
        shown.ends_with("+ttl: 20\nUse --force option to apply changes\n"),
        "{shown}"
    );
    assert_eq!((code, stage.heard()), (1, vec![]));
    reply(&stage, 409, "");
    let (shown, code) = run(
        &stage,
        Patronictl,
        &["edit-config", "--apply", "-", "--force"],
        "ttl: 20\n",
    );
    assert!(
        shown.ends_with("Error: Config modification aborted due to concurrent changes\n"),
        "{shown}"
    );
    assert_eq!((code, stage.heard()[0].body.clone()), (1, json!({"ttl": 20})));
    reply(&stage, 400, "ttl: 1 is too short");
    let (shown, code) = run(&stage, Patronictl, &["edit-config", "-s", "ttl=1", "--force"], "");
    assert!(
        shown.contains("status code=400, (ttl: 1 is too short)"),
        "{shown}"
    );
    assert_eq!(code, 1);
    // Merging takes 30 and "30" for the same.
    reply(&stage, 200, "{}");
    run(
        &stage,
        Matriarch,
        &["edit-config", "-s", "ttl='30'", "--force"],
        "",
    );
    assert_eq!(stage.heard().last().unwrap().what, "PUT /config");
}

#[test]
fn a_cluster_that_runs_is_not_removed() {
    let stage = stage();
    for (typed, words) in [
        ("dem\n", "Cluster names specified do not match\n"),
        ("demo\nyes\n", "You did not exactly type \"Yes I am aware\"\n"),
        (
            "demo\nYes I am aware\nnode1\n",
            "You did not specify the current leader of the cluster\n",
        ),
        (
            "demo\nYes I am aware\nnode0\n",
            "once the data is no longer needed\n",
        ),
    ] {
        let (shown, code) = run(&stage, Patronictl, &["remove", "demo"], typed);
        assert!(shown.ends_with(words), "{shown}");
        assert_eq!(code, 1);
    }
    assert_eq!(stage.heard(), []);
}

#[test]
fn what_makes_no_sense() {
    let stage = stage();
    let mistakes: [(&[&str], &str, u8); 8] = [
        (
            &["history", "nosuch"],
            "Error: the nodes that answer belong to cluster demo, not nosuch\n",
            1,
        ),
        (
            &["flush", "demo", "node1"],
            "Error: 'node1' is neither restart nor switchover, which stands last\n",
            2,
        ),
        (
            &["dsn", "-r", "any", "-m", "node1"],
            "Error: --role and --member are mutually exclusive options\n",
            1,
        ),
        (
            &["dsn", "-m", "node9"],
            "Error: Can not find a suitable member\n",
            1,
        ),
        (
            &["query"],
            "Error: You need to specify either --command or --file\n",
            1,
        ),
        (
            &["query", "-c", "x", "--file", "y"],
            "Error: --file and --command are mutually exclusive options\n",
            1,
        ),
        (&["man", "nosuch"], "Error: there is no command nosuch\n", 2),
        (
            &["edit-config", "-s", "ttl"],
            "Error: Invalid parameter setting ttl: write it as ttl=30 or postgresql.use_slots=true\n",
            1,
        ),
    ];
    for (line, words, code) in mistakes {
        assert_eq!(
            run(&stage, Patronictl, line, ""),
            (words.to_owned(), code),
            "{line:?}"
        );
    }
    for line in [
        &["restart"][..],
        &["flush", "demo"],
        &["bogus"],
        &["list", "--bogus"],
        &["list", "-f", "xml"],
    ] {
        assert_eq!(run(&stage, Patronictl, line, "").1, 2, "{line:?}");
    }
    assert_eq!(stage.heard(), []);
}

#[test]
fn groups_are_accepted_everywhere() {
    let stage = stage();
    for line in [
        &["list", "--group", "0"][..],
        &["topology", "demo", "--group", "0"],
        &["dsn", "--group", "0"],
        &["show-config", "--group=0"],
        &["query", "--group", "0", "-r", "any", "-c", "select 1"],
        &["version", "demo", "--group", "0"],
    ] {
        let (shown, code) = run(&stage, Patronictl, line, "");
        assert_eq!(code, 0, "{line:?} {shown}");
    }
}

#[test]
fn versions_are_those_of_the_name_by_which_it_is_called() {
    let stage = stage();
    let (shown, _) = run(&stage, Patronictl, &["version"], "");
    assert_eq!(shown, format!("patronictl version {}\n", crate::api::CONTRACT));
    let (shown, _) = run(&stage, Matriarch, &["version"], "");
    assert_eq!(
        shown,
        format!("matriarch version {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn names_and_passwords_go_with_changes_only_and_are_never_shown() {
    let stage = stage();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patronictl.yaml");
    std::fs::write(
        &file,
        "scope: demo\nctl: {authentication: {username: me, password: s3cret}}\n",
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    reply(&stage, 401, "not authenticated");
    let file = file.display().to_string();
    let (shown, code) = run(&stage, Matriarch, &["pause", "-c", &file], "");
    assert_eq!(
        shown,
        "Failed: pause cluster management status code=401, (not authenticated)\n"
    );
    assert_eq!(code, 1);
    // me:s3cret
    assert_eq!(
        stage.heard()[0].authorization.as_deref(),
        Some("Basic bWU6czNjcmV0")
    );
}

#[test]
fn completions_and_the_manual_follow_the_definition() {
    let stage = stage();
    for shell in ["bash", "zsh", "fish"] {
        let (script, code) = stage.run(Matriarch, &["completions", shell], "");
        assert!(
            code == 0 && script.contains("edit-config") && script.contains("switchover"),
            "{shell}"
        );
        assert!(!script.contains("last-word"), "{shell} offers what is hidden");
        assert!(script.contains("force") && script.contains("print"), "{shell}");
        let (script, _) = stage.run(Called::Patronictl, &["completions", shell], "");
        assert!(
            script.contains("patronictl") && !script.contains("recover"),
            "{shell}: {script}"
        );
    }
    let (page, code) = stage.run(Matriarch, &["man", "member", "add"], "");
    assert!(
        code == 0 && page.contains(r"matriarch\-member\-add") && page.contains("matriarch member add"),
        "{page}"
    );
    let (_, code) = stage.run(Matriarch, &["man", "member", "ad"], "");
    assert_eq!(code, 2);
    let (page, code) = stage.run(Matriarch, &["man"], "");
    assert!(
        code == 0 && page.contains(".TH matriarch 1") && page.contains("switchover"),
        "{page}"
    );
    let (page, _) = stage.run(Matriarch, &["man", "edit-config"], "");
    assert!(page.contains("replace"), "{page}");
}
