//! An operator's scripts, written for patronictl, on a cluster that runs: the program is called by that name.

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
