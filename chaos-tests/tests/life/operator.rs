//! An operator's scripts, written for patronictl, on a cluster that runs: the program is called by that name.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::node::matriarch_binary;
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Options, writer};
use serde_json::Value;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

/// What a script sees of a command.
struct Shown {
    text: String,
    code: i32,
}

/// The program under its old name.
struct Patronictl {
    link: PathBuf,
    file: PathBuf,
}

impl Patronictl {
    /// A link, and the node file of one node; the others are found through it.
    fn link(herd: &Herd, node: usize) -> Self {
        let link = herd.dir().join("patronictl");
        if !link.exists() {
            symlink(matriarch_binary(), &link).unwrap();
        }
        Self {
            link,
            file: herd.nodes[node].file(),
        }
    }

    /// Runs it with words between spaces.
    async fn run(&self, line: &str) -> Shown {
        self.run_words(&line.split(' ').collect::<Vec<_>>()).await
    }

    async fn run_words(&self, words: &[&str]) -> Shown {
        shown(self.command(words)).await
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.link);
        command
            .arg("-c")
            .arg(&self.file)
            .args(words)
            .env("PGPASSWORD", PASSWORD)
            .env("TZ", "UTC");
        command
    }

    /// The same; it must end with 0.
    async fn well(&self, line: &str) -> String {
        let shown = self.run(line).await;
        assert_eq!(shown.code, 0, "{line}: {}", shown.text);
        shown.text
    }

    /// `jq -r '.[] | select(.Role == $role) | .Member'` over `list -f json`.
    async fn members_of_role(&self, role: &str) -> Vec<String> {
        let text = self.well("list -f json").await;
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        let of_role = rows.iter().filter(|row| row["Role"] == role);
        of_role
            .map(|row| row["Member"].as_str().unwrap().to_owned())
            .collect()
    }
}

async fn shown(mut command: Command) -> Shown {
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(!text.contains(PASSWORD), "a secret was shown: {text}");
    Shown {
        text,
        code: status.code().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_need_one_node_that_answers() {
    let herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let scope = herd.nodes[0].patroni("/patroni/scope").await.unwrap();
    let ctl = Patronictl::link(&herd, herd.others(primary)[0]);
    let leader = herd.nodes[primary].name.clone();
    assert_eq!(ctl.members_of_role("Leader").await, [leader.as_str()]);
    herd.until("two lines of the table say streaming", 20, async || {
        let table = ctl.well("list").await;
        let streaming = table.lines().filter(|line| line.contains("| streaming |"));
        streaming.count() == 2
    })
    .await;
    let tree = ctl.well("topology").await;
    assert_eq!(tree.matches("| + node").count(), 2, "{tree}");
    let host = format!("host={} port=5432\n", herd.nodes[primary].ip);
    assert_eq!(ctl.well("dsn").await, host.replace("5432", &port(&herd, primary)));
    assert!(ctl.well("dsn -r replica").await.starts_with("host=127."));
    herd.until("three versions", 20, async || {
        let versions = ctl.well(&format!("version {scope}")).await;
        versions.matches(": Patroni 4.").count() == 3
    })
    .await;
    assert!(ctl.well("show-config").await.contains("\nttl: 2\n"));
    assert!(ctl.well("history -f json").await.starts_with('['));
    let query = "select pg_is_in_recovery()";
    for (role, expected) in [("primary", "False"), ("replica", "True")] {
        let words = [
            "query", "-U", "postgres", "-d", "postgres", "-r", role, "-c", query,
        ];
        let shown = ctl.run_words(&words).await;
        assert_eq!(shown.text, format!("pg_is_in_recovery\n{expected}\n"));
    }
    let strange = ctl.run("list nosuch").await;
    assert!(
        strange.code == 0 && strange.text.contains("nosuch (uninitialized)"),
        "{}",
        strange.text
    );
    assert_eq!(ctl.run("history nosuch").await.code, 1);
    assert_eq!(ctl.run("bogus").await.code, 2);
}

fn port(herd: &Herd, node: usize) -> String {
    let config = herd.nodes[node].client_config();
    config.get_ports()[0].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_switches_over_and_reads_who_leads() {
    let herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_primary(20, |_| true).await;
    let candidate = herd.others(old)[0];
    let crowd = Crowd::gather(&herd).await;
    // Asked of the third node, which neither hands over nor takes over.
    let ctl = Patronictl::link(&herd, herd.others(old)[1]);
    let name = |node: usize| herd.nodes[node].name.clone();
    let line = format!(
        "switchover --leader {} --candidate {} --force",
        name(old),
        name(candidate)
    );
    let text = ctl.well(&line).await;
    let success = format!("Successfully switched over to \"{}\"", name(candidate));
    assert!(
        text.starts_with("Current cluster topology\n+ Cluster: "),
        "{text}"
    );
    assert!(text.contains(&success), "{text}");
    assert_eq!(ctl.members_of_role("Leader").await, [name(candidate)]);
    crowd.await_flow(&herd).await;
    assert_eq!(herd.await_whole(RETURN_S).await, candidate);
    let history = ctl.well("history -f json").await;
    let rows: Vec<Value> = serde_json::from_str(&history).unwrap();
    assert_eq!(
        rows.last().unwrap()["New Leader"],
        name(candidate).as_str(),
        "{history}"
    );
    // The same order once more is refused, and the old code is kept.
    let again = ctl.run(&line).await;
    let refusal = format!("Error: Member {} is not the leader of cluster", name(old));
    assert!(again.code == 1 && again.text.contains(&refusal), "{}", again.text);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_plans_a_switchover_and_forgets_it() {
    let herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let ctl = Patronictl::link(&herd, herd.others(primary)[0]);
    let scope = herd.nodes[0].patroni("/patroni/scope").await.unwrap();
    let text = ctl.well("switchover --scheduled 2099-01-01T00:00 --force").await;
    assert!(text.contains(" Switchover scheduled\n"), "{text}");
    let footer = format!(
        " Switchover scheduled at: 2099-01-01T00:00:00+00:00\n                    from: {}\n",
        herd.nodes[primary].name
    );
    assert!(text.ends_with(&footer), "{text}");
    let flush = format!("flush {scope} switchover");
    assert_eq!(ctl.well(&flush).await, "Success: scheduled switchover deleted\n");
    assert_eq!(ctl.well(&flush).await, "No pending scheduled switchover\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_changes_settings() {
    let herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let ctl = Patronictl::link(&herd, herd.others(primary)[0]);
    let text = ctl
        .well("edit-config -s ttl=3 -s loop_wait=4 -p work_mem=6MB --force")
        .await;
    for lines in [
        "\n+    work_mem: 6MB\n",
        "\n-ttl: 2\n+ttl: 3\n",
        "\n+loop_wait: 4\n",
    ] {
        assert!(text.contains(lines), "{text}");
    }
    assert!(text.ends_with("Configuration changed\n"), "{text}");
    assert_eq!(ctl.well("edit-config -s ttl=3 --force").await, "Not changed\n");
    let shown = ctl.well("show-config").await;
    assert!(
        shown.contains("    work_mem: 6MB\n") && shown.ends_with("\nttl: 3\n\n"),
        "{shown}"
    );
    let wrong = ctl.run("edit-config -s ttl=-1 --force").await;
    assert!(wrong.code == 1 && wrong.text.contains("ttl"), "{}", wrong.text);
    assert_eq!(ctl.well("show-config").await, shown);
    herd.until("work_mem everywhere", 20, async || {
        for node in &herd.nodes {
            if node.sql("SHOW work_mem").await.as_deref() != Ok("6MB") {
                return false;
            }
        }
        true
    })
    .await;
}

/// The editor is open, and meanwhile somebody else changes another key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_what_somebody_else_changed_meanwhile_is_refused_and_kept() {
    let herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let ctl = Patronictl::link(&herd, herd.others(primary)[0]);
    let editor = herd.dir().join("editor");
    let other = format!(
        "{} -c {} edit-config -s loop_wait=4 --force",
        ctl.link.display(),
        herd.nodes[primary].file().display()
    );
    let script = format!("#!/bin/sh\n{other} || exit 1\nsed -i 's/^ttl: 2$/ttl: 3/' \"$1\"\n");
    std::fs::write(&editor, script).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = ctl.command(&["edit-config", "--force"]);
    command.env("EDITOR", &editor);
    let shown = shown(command).await;
    assert_eq!(shown.code, 1, "{}", shown.text);
    assert!(shown.text.contains("\n-ttl: 2\n+ttl: 3\n"), "{}", shown.text);
    let refusal = "Error: Config modification aborted due to concurrent changes\n";
    assert!(shown.text.ends_with(refusal), "{}", shown.text);
    let kept = shown
        .text
        .lines()
        .find_map(|line| line.strip_prefix("note: what you wrote is kept in "));
    let kept = PathBuf::from(kept.unwrap());
    assert!(std::fs::read_to_string(&kept).unwrap().contains("\nttl: 3\n"));
    std::fs::remove_file(kept).unwrap();
    let settings = ctl.well("show-config").await;
    assert!(
        settings.contains("loop_wait: 4\n") && settings.contains("\nttl: 2\n"),
        "{settings}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_pauses_and_resumes() {
    let herd = Herd::three().await;
    let ctl = Patronictl::link(&herd, 0);
    let sent = |verb: &str| format!("'{verb}' request sent, waiting until it is recognized by all nodes\n");
    let paused = ctl.well("pause --wait").await;
    assert_eq!(paused, sent("pause") + "Success: cluster management is paused\n");
    assert!(ctl.well("list").await.ends_with(" Maintenance mode: on\n"));
    let again = ctl.run("pause").await;
    assert_eq!(
        (again.text.as_str(), again.code),
        ("Error: Cluster is already paused\n", 1)
    );
    let resumed = ctl.well("resume --wait").await;
    assert_eq!(
        resumed,
        sent("resume") + "Success: cluster management is resumed\n"
    );
    assert!(!ctl.well("list").await.contains("Maintenance"));
    assert!(!ctl.well("show-config").await.contains("pause"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_restarts_whoever_waits_for_it() {
    let herd = Herd::three().await;
    let primary = herd.await_primary(20, |_| true).await;
    let ctl = Patronictl::link(&herd, herd.others(primary)[0]);
    let scope = herd.nodes[0].patroni("/patroni/scope").await.unwrap();
    ctl.well("edit-config -p max_connections=60 --force").await;
    herd.until("a restart is pending on all three", 20, async || {
        ctl.well("list")
            .await
            .matches("| max_connections: 50->60 |")
            .count()
            == 3
    })
    .await;
    let text = ctl.well(&format!("restart {scope} --pending --force")).await;
    // A standby that the primary's larger value has stopped in its replay is started anew without being asked.
    for node in &herd.nodes {
        let done = format!("Success: restart on member {}\n", node.name);
        let before = format!(
            "Failed: restart for member {}, status code=503, (restart conditions are not satisfied)",
            node.name
        );
        assert!(text.contains(&done) || text.contains(&before), "{text}");
    }
    herd.until("no restart is pending", 20, async || {
        !ctl.well("list").await.contains("Pending restart")
    })
    .await;
    herd.await_whole(RETURN_S).await;
    // A standby may be starting once more.
    herd.until("60 connections everywhere", RETURN_S, async || {
        for node in &herd.nodes {
            if node.sql("SHOW max_connections").await.as_deref() != Ok("60") {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_restarts_reloads_and_copies_a_replica_anew() {
    let herd = Herd::grown(3, Options::default()).await;
    writer::prepare(&herd).await;
    let primary = herd.await_primary(20, |_| true).await;
    let (ctl, replica) = (Patronictl::link(&herd, primary), herd.others(primary)[1]);
    let scope = herd.nodes[0].patroni("/patroni/scope").await.unwrap();
    let name = herd.nodes[replica].name.clone();
    let begun = "SELECT pg_postmaster_start_time()";
    let started = herd.nodes[replica].sql(begun).await.unwrap();
    let text = ctl.well(&format!("restart {scope} {name} --force")).await;
    assert!(
        text.ends_with(&format!("Success: restart on member {name}\n")),
        "{text}"
    );
    herd.until("nobody is shown as restarting", 20, async || {
        !ctl.well("list").await.contains("restarting")
    })
    .await;
    herd.until("it was restarted", 20, async || {
        let now = herd.nodes[replica].sql(begun).await;
        now.is_ok_and(|now| now != started)
    })
    .await;
    let text = ctl
        .well(&format!(
            "restart {scope} {name} --scheduled 2099-01-01T00:00 --force"
        ))
        .await;
    assert!(
        text.ends_with(&format!("Success: restart scheduled on member {name}\n")),
        "{text}"
    );
    herd.until("the planned restart in the list", 10, async || {
        ctl.well("list").await.contains("| 2099-01-01T00:00:00+00:00 |")
    })
    .await;
    let text = ctl.well(&format!("flush {scope} {name} restart --force")).await;
    assert!(
        text.ends_with(&format!("Success: flush scheduled restart for member {name}\n")),
        "{text}"
    );
    let text = ctl.well(&format!("reload {scope} {name} --force")).await;
    let reloaded = format!("Reload request received for member {name} and will be processed within ");
    assert!(text.contains(&reloaded), "{text}");
    herd.await_streaming(replica, RETURN_S).await;
    let before = herd.nodes[replica].sql(begun).await.unwrap();
    let text = ctl.well(&format!("reinit {scope} {name} --force --wait")).await;
    let copied = format!(
        "Success: reinitialize for member {name}\nWaiting for reinitialize to complete on: {name}\n\
         Reinitialize is completed on: {name}\n"
    );
    assert!(text.ends_with(&copied), "{text}");
    herd.await_streaming(replica, RETURN_S).await;
    assert_ne!(
        before,
        herd.nodes[replica].sql(begun).await.unwrap(),
        "it was not copied anew"
    );
    let leader = herd.nodes[primary].name.clone();
    let refused = ctl.run(&format!("reinit {scope} {leader} --force")).await;
    assert!(
        refused
            .text
            .ends_with("Error: No replica among provided members\n"),
        "{}",
        refused.text
    );
    assert_eq!(refused.code, 1);
}
