//! The operator's own scripts: told what became of PostgreSQL, asked before a promotion, run in a new cluster.

use crate::FAILOVER_S;
use matriarch_chaos::{FORM_S, Herd, Node, Options, herd::give_to_postgres};
use std::path::PathBuf;

/// A script in the node's directory.
fn script(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.dir.join(name);
    std::fs::write(&path, text).unwrap();
    give_to_postgres(&path);
    path
}

/// More lines of a section that the node file has already, indented by two.
fn add(node: &Node, section: &str, lines: &str) {
    let text = std::fs::read_to_string(node.file()).unwrap();
    let head = format!("\n{section}:\n");
    assert!(text.contains(&head));
    std::fs::write(node.file(), text.replacen(&head, &format!("{head}{lines}"), 1)).unwrap();
}

fn told(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.dir.join("told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Writes down every callback and script with its arguments.
fn listen(node: &Node) {
    let note = script(
        node,
        "note.sh",
        &format!("echo \"$*\" >> {}/told\n", node.dir.display()),
    );
    let mut lines = format!("  before_stop: sh {} before_stop\n  callbacks:\n", note.display());
    for event in ["on_start", "on_stop", "on_restart", "on_reload", "on_role_change"] {
        lines.push_str(&format!("    {event}: sh {}\n", note.display()));
    }
    add(node, "postgresql", &lines);
}

async fn until_told(herd: &Herd, node: usize, what: &str) {
    herd.until(
        &format!("{} is told '{what}'", herd.nodes[node].name),
        20,
        async || told(&herd.nodes[node]).iter().any(|line| line == what),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_are_told_each_change_with_patronis_words() {
    let mut herd = Herd::new(3, Options::default());
    herd.nodes.iter().for_each(listen);
    herd.nodes.iter_mut().for_each(Node::start);
    let old = herd.await_whole(FORM_S).await;
    let scope = herd.nodes[old].patroni("/patroni/scope").await.unwrap();
    until_told(&herd, old, &format!("on_start primary {scope}")).await;
    assert_eq!(told(&herd.nodes[old])[0], format!("on_start primary {scope}"));
    for replica in herd.others(old) {
        until_told(&herd, replica, &format!("on_start replica {scope}")).await;
    }
    for (node, role) in [(old, "primary"), (herd.others(old)[0], "replica")] {
        let before = told(&herd.nodes[node]).len();
        let answer = herd.nodes[node].order("POST", "/restart", "{}").await;
        assert_eq!(answer, (200, "restarted successfully".to_owned()));
        until_told(&herd, node, &format!("on_restart {role} {scope}")).await;
        let lines = told(&herd.nodes[node]).split_off(before);
        let other = lines
            .iter()
            .any(|line| line.starts_with("on_st") || line.starts_with("on_role"));
        assert!(!other, "a restart is one event: {lines:?}");
    }
    herd.await_whole(FORM_S).await;
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    until_told(&herd, new, &format!("on_role_change primary {scope}")).await;
    let third = herd.others(new).into_iter().find(|i| *i != old).unwrap();
    until_told(&herd, third, &format!("on_reload replica {scope}")).await;
    herd.nodes[third].terminate();
    until_told(&herd, third, &format!("on_stop replica {scope}")).await;
    let lines = told(&herd.nodes[third]);
    let place = |what: &str| lines.iter().position(|line| line.starts_with(what));
    assert!(place("before_stop") < place("on_stop"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_may_stand_in_the_dynamic_configuration() {
    let mut herd = Herd::new(2, Options::default());
    // One has its own, which go before.
    listen(&herd.nodes[0]);
    herd.nodes.iter_mut().for_each(Node::start);
    let old = herd.await_whole(FORM_S).await;
    let scope = herd.nodes[old].patroni("/patroni/scope").await.unwrap();
    let note = script(
        &herd.nodes[1],
        "shared.sh",
        &format!("echo \"shared $*\" >> {}/told\n", herd.nodes[1].dir.display()),
    );
    let change = format!(
        r#"{{"postgresql": {{"callbacks": {{"on_role_change": "sh {}"}}}}}}"#,
        note.display()
    );
    assert_eq!(herd.nodes[old].order("PATCH", "/config", &change).await.0, 200);
    herd.until("both know of it", 20, async || {
        let mut known = true;
        for node in &herd.nodes {
            let config = node.get("/config").await;
            known &= config.is_some_and(|(_, text)| text.contains("shared.sh"));
        }
        known
    })
    .await;
    let body = format!(r#"{{"leader": "{}"}}"#, herd.nodes[old].name);
    assert_eq!(herd.nodes[old].order("POST", "/switchover", &body).await.0, 200);
    let role = |node: usize| if node == old { "replica" } else { "primary" };
    until_told(&herd, 0, &format!("on_role_change {} {scope}", role(0))).await;
    until_told(&herd, 1, &format!("shared on_role_change {} {scope}", role(1))).await;
    let shared = told(&herd.nodes[1]);
    assert!(shared.iter().all(|line| !line.contains(role(0))), "{shared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hands_over_is_told_that_it_stops_and_follows() {
    let mut herd = Herd::new(2, Options::default());
    herd.nodes.iter().for_each(listen);
    herd.nodes.iter_mut().for_each(Node::start);
    let old = herd.await_whole(FORM_S).await;
    let (new, scope) = (
        herd.others(old)[0],
        herd.nodes[old].patroni("/patroni/scope").await.unwrap(),
    );
    let body = format!(r#"{{"leader": "{}"}}"#, herd.nodes[old].name);
    assert_eq!(herd.nodes[old].order("POST", "/switchover", &body).await.0, 200);
    until_told(&herd, new, &format!("on_role_change primary {scope}")).await;
    until_told(&herd, old, &format!("on_role_change replica {scope}")).await;
    let lines = told(&herd.nodes[old]);
    let place = |what: String| lines.iter().position(|line| *line == what);
    let (stopped, changed) = (
        place(format!("on_stop primary {scope}")),
        place(format!("on_role_change replica {scope}")),
    );
    assert!(stopped.is_some() && stopped < changed, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_cannot_be_started_again_is_told_to_be_demoted() {
    let mut herd = Herd::new(1, Options::default());
    listen(&herd.nodes[0]);
    herd.nodes[0].start();
    herd.await_primary(FORM_S, |_| true).await;
    let scope = herd.nodes[0].patroni("/patroni/scope").await.unwrap();
    until_told(&herd, 0, &format!("on_start primary {scope}")).await;
    herd.until("the cluster is founded", 20, async || {
        herd.nodes[0].log().contains("rule=initialized")
    })
    .await;
    // A server that runs keeps the rules that it has; none starts with these.
    let rules = herd.nodes[0].data_dir().join("pg_hba.conf");
    let good = std::fs::read(&rules).unwrap();
    std::fs::write(&rules, "no rule\n").unwrap();
    herd.nodes[0].kill_postmaster();
    until_told(&herd, 0, &format!("on_role_change demoted {scope}")).await;
    std::fs::write(&rules, good).unwrap();
    // Should it have failed often meanwhile, it is left alone for a minute.
    herd.await_primary(FORM_S, |_| true).await;
    herd.until("on_start as the last word", 20, async || {
        told(&herd.nodes[0]).last() == Some(&format!("on_start primary {scope}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_pre_promote_is_against_it_leaves_the_promotion_to_another() {
    let mut herd = Herd::new(3, Options::default());
    herd.nodes.iter_mut().for_each(Node::start);
    let old = herd.await_whole(FORM_S).await;
    // The first by name would be chosen, the other being equal.
    let refusing = herd.others(old)[0];
    let pid = herd.nodes[refusing].postmaster_pid();
    herd.nodes[refusing].kill_daemon();
    herd.nodes[refusing].reap();
    add(&herd.nodes[refusing], "postgresql", "  pre_promote: 'false'\n");
    herd.nodes[refusing].start();
    herd.await_whole(FORM_S).await;
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |i| i != old).await;
    assert_ne!(new, refusing);
    herd.await_streaming(refusing, 30).await;
    assert_eq!(
        herd.nodes[refusing].postmaster_pid(),
        pid,
        "the standby was restarted for it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_bootstrap_that_fails_gives_the_new_cluster_up_and_another_attempt_succeeds() {
    let mut herd = Herd::new(3, Options::default());
    let shared = herd.dir().to_owned();
    for node in &herd.nodes {
        let text = format!(
            "test -n \"$PGPASSFILE\" || exit 2\n[ -e {0}/tried ] || {{ touch {0}/tried; exit 1; }}\n\
             psql \"$1\" -qc 'CREATE TABLE made_by_script ()'\n",
            shared.display()
        );
        let path = script(node, "boot.sh", &text);
        add(
            node,
            "bootstrap",
            &format!("  post_bootstrap: sh {}\n", path.display()),
        );
    }
    herd.nodes.iter_mut().for_each(Node::start);
    let primary = herd.await_whole(FORM_S).await;
    let made = "SELECT count(*) FROM pg_class WHERE relname = 'made_by_script'";
    assert_eq!(herd.nodes[primary].sql(made).await.unwrap(), "1");
    let complaints = herd.nodes.iter().map(|node| {
        node.log()
            .matches("bootstrap.post_bootstrap: sh ended with exit status: 1")
            .count()
    });
    assert_eq!(complaints.sum::<usize>(), 1, "one clear line");
}
