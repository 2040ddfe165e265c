//! Shell scripts as people have them around a cluster: they read what patronictl prints and what a probe's first line says.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::Herd;
use matriarch_chaos::node::matriarch_binary;
use std::os::unix::fs::symlink;
use std::process::Command;

/// What cron runs: complains about anything but one leader and two replicas that stream, then says where the leader is.
const ALERT: &str = r#"
status=$(patronictl -c "$FILE" list -f json) || exit 3
leaders=$(echo $status | grep -o '"Role": "Leader"' | wc -l)
[ "$leaders" -eq 1 ] || echo "ALERT leaders: $leaders"
replicas=$(patronictl -c "$FILE" list | grep Replica | grep -c streaming)
[ "$replicas" -eq 2 ] || echo "ALERT replicas: $replicas"
patronictl -c "$FILE" list | grep Leader | awk '{print $2, $4, $6}'
"#;

/// The same question asked with a JSON tool.
const WITH_JQ: &str = r#"
patronictl -c "$FILE" list -f json | jq -r '.[] | select(.Role == "Leader") | "\(.Member) \(.Host) \(.TL | type)"'
patronictl -c "$FILE" list -f json | jq -r '[.[] | select(.Role != "Leader") | .["Replay Lag"]] | "\(length) \(max)"'
"#;

/// A load balancer's check by hand: no Host header, HTTP/1.0, the status line decides.
const PROBE: &str = r#"
for node in $NODES; do
  exec 3<>/dev/tcp/${node%:*}/${node#*:} || { echo down; continue; }
  printf 'OPTIONS %s HTTP/1.0\r\n\r\n' "$CHECK" >&3
  head -n 1 <&3 | cut -d ' ' -f 2
  exec 3<&-
done 2>/dev/null
"#;

/// What a script prints; the node file it reads is that of `guide`.
async fn bash(herd: &Herd, guide: usize, script: &str, check: &str) -> String {
    let bin = herd.dir().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let link = bin.join("patronictl");
    if !link.exists() {
        symlink(matriarch_binary(), &link).unwrap();
    }
    let nodes: Vec<String> = herd
        .nodes
        .iter()
        .map(|node| format!("{}:{}", node.rest_addr().0, node.rest_addr().1))
        .collect();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .args(["-c", script])
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("FILE", herd.nodes[guide].file())
        .env("NODES", nodes.join(" "))
        .env("CHECK", check);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The row of the leader, as the scripts cut it out of the table.
fn row(herd: &Herd, leader: usize) -> String {
    let node = &herd.nodes[leader];
    format!("{} {} Leader\n", node.name, host(herd, leader))
}

/// Every member has its own address, and a port that is not 5432.
fn host(herd: &Herd, node: usize) -> String {
    let port = herd.nodes[node].client_config().get_ports()[0];
    format!("{}:{port}", herd.nodes[node].ip)
}

fn codes(herd: &Herd, of_one: usize, one: &str, others: &str) -> String {
    let each = (0..herd.nodes.len()).map(|i| if i == of_one { one } else { others });
    each.map(|code| format!("{code}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_scripts_see_a_healthy_cluster_a_failover_and_a_return() {
    let mut herd = Herd::three().await;
    let old = herd.await_whole(RETURN_S).await;
    let guide = herd.others(old)[0];
    herd.until("the alert script is content", RETURN_S, async || {
        bash(&herd, guide, ALERT, "").await == row(&herd, old)
    })
    .await;
    for (check, of_leader, of_others) in [
        ("/primary", "200", "503"),
        ("/master", "200", "503"),
        ("/replica", "503", "200"),
        ("/replica?lag=1MB", "503", "200"),
        ("/health", "200", "200"),
        ("/patroni", "503", "503"),
    ] {
        let expected = codes(&herd, old, of_leader, of_others);
        // A fresh copy may have 16 MB of a log that was switched before it to take in: that is a lag.
        herd.until(check, RETURN_S, async || {
            bash(&herd, guide, PROBE, check).await == expected
        })
        .await;
    }
    if bash(&herd, guide, "command -v jq", "").await.is_empty() {
        println!("skipped: jq is not installed");
    } else {
        let expected = format!("{} {} number\n2 0\n", herd.nodes[old].name, host(&herd, old));
        herd.until("nobody lags behind for jq", RETURN_S, async || {
            bash(&herd, guide, WITH_JQ, "").await == expected
        })
        .await;
    }
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |node| node != old).await;
    herd.until(
        "the alert script complains and names the new leader",
        FAILOVER_S,
        async || bash(&herd, guide, ALERT, "").await == format!("ALERT replicas: 1\n{}", row(&herd, new)),
    )
    .await;
    let probes = bash(&herd, guide, PROBE, "/primary").await;
    let expected = codes(&herd, new, "200", "503")
        .lines()
        .enumerate()
        .fold(String::new(), |text, (i, code)| {
            text + if i == old { "down" } else { code } + "\n"
        });
    assert_eq!(probes, expected);
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    herd.until("the alert script is content again", RETURN_S, async || {
        bash(&herd, guide, ALERT, "").await == row(&herd, new)
    })
    .await;
}
