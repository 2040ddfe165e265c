//! libpq with all hosts in one URL finds the server that it was asked for, before and after a failover.

use crate::{FAILOVER_S, RETURN_S, named};
use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Options, plain};
use std::process::Command;

/// The node at which `psql` arrives with these words at the end of its URL.
fn arrives(herd: &Herd, words: &str) -> Option<usize> {
    let hosts: Vec<String> = herd
        .nodes
        .iter()
        .map(|node| format!("{}:{POSTGRES_PORT}", node.ip))
        .collect();
    let url = format!(
        "postgresql://postgres:{PASSWORD}@{}/postgres?connect_timeout=2&{words}",
        hosts.join(",")
    );
    let output = Command::new(plain::bin_dir().join("psql"))
        .args(["-AtXc", "SHOW data_directory", &url])
        .output()
        .expect("psql starts");
    named(herd, String::from_utf8_lossy(&output.stdout).trim())
}

async fn await_primary_and_standby(herd: &Herd, primary: usize) {
    for words in ["read-write", "primary"] {
        let words = format!("target_session_attrs={words}");
        herd.until(&words, FAILOVER_S, async || {
            arrives(herd, &words) == Some(primary)
        })
        .await;
    }
    for words in ["standby", "read-only", "prefer-standby"] {
        let words = format!("target_session_attrs={words}");
        herd.until(&words, FAILOVER_S, async || {
            arrives(herd, &words).is_some_and(|node| node != primary)
        })
        .await;
    }
}

/// From 16 on, libpq can choose among the hosts at random.
fn knows_load_balance_hosts() -> bool {
    let version = plain::run("psql", &["--version"]);
    let major = version
        .split(|c: char| !c.is_ascii_digit())
        .find(|word| !word.is_empty());
    major
        .and_then(|word| word.parse::<u32>().ok())
        .is_some_and(|major| major >= 16)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_with_all_hosts_finds_what_it_was_asked_for() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_whole(RETURN_S).await;
    await_primary_and_standby(&herd, old).await;
    if knows_load_balance_hosts() {
        let words = "target_session_attrs=standby&load_balance_hosts=random";
        for standby in herd.others(old) {
            herd.until("each standby is chosen at some time", RETURN_S, async || {
                arrives(&herd, words) == Some(standby)
            })
            .await;
        }
    } else {
        println!("skipped: load_balance_hosts needs libpq 16 or newer");
    }
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |node| node != old).await;
    await_primary_and_standby(&herd, new).await;
    // Nobody but the primary is left: a standby is preferred, not demanded.
    let last = herd.others(new).into_iter().find(|node| *node != old).unwrap();
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    for node in [old, last] {
        herd.nodes[node].freeze_postgres();
    }
    herd.until("the primary, where no standby answers", FAILOVER_S, async || {
        arrives(&herd, "target_session_attrs=prefer-standby") == Some(new)
    })
    .await;
    assert_eq!(arrives(&herd, "target_session_attrs=standby"), None);
}
