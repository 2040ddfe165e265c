//! An operator's scripts, written for patronictl, on a cluster that runs: the program is called by that name.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::Herd;
use matriarch_chaos::node::matriarch_binary;
use matriarch_chaos::node_file::PASSWORD;
use serde_json::Value;
use std::os::unix::fs::symlink;
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
        let mut command = Command::new(&self.link);
        command
            .arg("-c")
            .arg(&self.file)
            .args(words)
            .env("PGPASSWORD", PASSWORD)
            .env("TZ", "UTC");
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
    let versions = ctl.well(&format!("version {scope}")).await;
    assert_eq!(versions.matches(": Patroni 4.").count(), 3, "{versions}");
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
    let herd = Herd::three().await;
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
