//! Members come and go while rows are written; a survivor goes on alone.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::node::matriarch_binary;
use matriarch_chaos::{FORM_S, Herd, Node, Options, processes, writer};
use std::process::{Command, Stdio};

/// The first three know each other, whoever comes later only the first: that is how an operator adds one.
fn laid_out(count: usize) -> Herd {
    let herd = Herd::new(count, Options::default());
    let address = |node: usize| {
        let (ip, port) = herd.nodes[node].peer_addr();
        format!("'{ip}:{port}'")
    };
    for node in 0..count {
        let others = (0..3).filter(|other| *other != node).map(address);
        let partners: Vec<String> = others.take(if node < 3 { 2 } else { 1 }).collect();
        rewrite(
            &herd.nodes[node],
            "partner_addrs:",
            &format!("[{}]", partners.join(", ")),
        );
    }
    herd
}

/// Gives a key of `raft:` another value; an empty one takes the line out.
fn rewrite(node: &Node, key: &str, value: &str) {
    let text = std::fs::read_to_string(node.file()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain_mut(|line| {
        let is_it = line.trim_start().starts_with(key);
        if is_it {
            *line = format!("  {key} {value}");
        }
        !is_it || !value.is_empty()
    });
    std::fs::write(node.file(), lines.join("\n") + "\n").unwrap();
}

/// Runs the program as an operator does; whether it succeeded, and what it said.
async fn matriarch(words: &[&str]) -> (bool, String) {
    let mut command = Command::new(matriarch_binary());
    command.args(words).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// `matriarch member ...` on the machine of this node.
async fn member(node: &Node, words: &str) -> (bool, String) {
    let file = node.file().display().to_string();
    let words: Vec<&str> = words.split(' ').collect();
    matriarch(&[&["-c", &file, "member"], words.as_slice()].concat()).await
}

/// What `/members` of a node says of a member.
async fn vote(herd: &Herd, at: usize, name: &str) -> Option<String> {
    let document = herd.nodes[at].get_json("/members").await?;
    let members = document["members"].as_array()?;
    let member = members.iter().find(|member| member["name"] == name)?;
    Some(member["vote"].as_str()?.to_owned())
}

async fn await_vote(herd: &Herd, at: usize, name: &str, wanted: &str) {
    let what = format!("{name} is shown as {wanted}");
    herd.until(&what, 20, async || {
        vote(herd, at, name).await.as_deref() == Some(wanted)
    })
    .await;
}

async fn voters(herd: &Herd, at: usize) -> usize {
    herd.nodes[at].voters().await.map_or(0, |all| all.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_one_is_taken_out_and_let_in_again() {
    let mut herd = laid_out(5);
    (0..3).for_each(|node| herd.nodes[node].start());
    let primary = herd.await_primary(FORM_S, |_| true).await;
    writer::prepare(&herd).await;
    herd.nodes[3].start();
    herd.await_streaming(3, FORM_S).await;
    await_vote(&herd, primary, "node4", "learner").await;
    herd.nodes[4].start();
    herd.await_streaming(4, FORM_S).await;
    herd.until("five voters", 20, async || voters(&herd, primary).await == 5)
        .await;
    let crowd = Crowd::gather(&herd).await;
    herd.nodes[primary].kill_whole();
    crowd.await_flow(&herd).await;
    herd.nodes[primary].start();
    herd.await_streaming(primary, RETURN_S).await;

    let now = herd.await_primary(FAILOVER_S, |_| true).await;
    let gone = if now == 4 { 3 } else { 4 };
    let (name, own) = (herd.nodes[gone].name.clone(), herd.nodes[now].name.clone());
    let (done, said) = member(&herd.nodes[gone], &format!("remove {own} --force")).await;
    assert!(
        !done && said.contains(&format!("{own} is the primary; move primacy")),
        "{said}"
    );
    let (done, said) = member(&herd.nodes[now], &format!("remove {name} --force")).await;
    assert!(
        done && said.contains(&format!("`matriarch member add {name}`")),
        "{said}"
    );
    is_taken_out(&mut herd, now, gone).await;
    // A service manager starts it again: it is refused, answers so, and starts no PostgreSQL.
    herd.nodes[gone].start();
    herd.until("its refusal", 20, async || {
        herd.nodes[gone].log().contains("not admitted to the group yet")
            && matches!(herd.nodes[gone].get("/replica").await, Some((503, _)))
    })
    .await;
    assert_eq!(herd.nodes[gone].postmaster_pid(), None);
    let (_, table) = member(&herd.nodes[now], "list").await;
    assert!(table.contains(&format!(" Removed: {name} (")), "{table}");
    let_in(&herd, now, gone).await;
    herd.await_streaming(gone, FORM_S).await;
    let (verdict, _) = crowd.judge(&herd).await;
    verdict.demand_sound();
}

/// Its vote, its slot, its PostgreSQL and its daemon go; the primary notices nothing.
async fn is_taken_out(herd: &mut Herd, primary: usize, gone: usize) {
    let name = herd.nodes[gone].name.clone();
    let postmaster = herd.nodes[primary].postmaster_pid();
    herd.until("three voters and no slot", 30, async || {
        let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}'");
        voters(herd, primary).await == 3 && herd.nodes[primary].sql(&slots).await.as_deref() == Ok("0")
    })
    .await;
    herd.until("the end of everything it ran", 30, async || {
        processes::of(&herd.nodes[gone].dir).is_empty()
    })
    .await;
    herd.nodes[gone].reap();
    let log = herd.nodes[gone].log();
    for sentence in ["was taken out of the cluster", "stopping the standby"] {
        assert!(
            log.contains(sentence),
            "{sentence}\n{}",
            herd.nodes[gone].log_tail(20)
        );
    }
    assert_eq!(herd.nodes[primary].postmaster_pid(), postmaster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_daemon_was_dead_when_it_was_taken_out_is_stopped_when_the_daemon_returns() {
    let mut herd = Herd::three().await;
    let primary = herd.await_whole(30).await;
    let gone = herd.others(primary)[0];
    herd.nodes[gone].kill_daemon();
    take_out(&herd, primary, gone).await;
    assert!(
        herd.nodes[gone].postmaster_pid().is_some(),
        "nobody told its guard"
    );
    herd.nodes[gone].start();
    herd.until("the end of everything it ran", 30, async || {
        processes::of(&herd.nodes[gone].dir).is_empty()
    })
    .await;
    herd.nodes[gone].reap();
    let_in(&herd, primary, gone).await;
    herd.nodes[gone].start();
    herd.await_whole(FORM_S).await;

    // One that knows nothing of all that has to learn that it is another voter now.
    herd.nodes[gone].kill_whole();
    take_out(&herd, primary, gone).await;
    let_in(&herd, primary, gone).await;
    herd.nodes[gone].start();
    herd.until("the end of everything it ran", 30, async || {
        processes::of(&herd.nodes[gone].dir).is_empty()
    })
    .await;
    herd.nodes[gone].reap();
    assert!(herd.nodes[gone].log().contains("let in since: start it again"));
    herd.nodes[gone].start();
    herd.await_whole(FORM_S).await;
    herd.until("three voters", 30, async || voters(&herd, primary).await == 3)
        .await;
}

/// Whoever leads Raft may have died a moment ago, so it is asked more than once.
async fn take_out(herd: &Herd, primary: usize, gone: usize) {
    let words = format!("remove {} --force", herd.nodes[gone].name);
    let name = &herd.nodes[gone].name;
    herd.until("the order to take it out", 20, async || {
        // An order whose answer was lost may have been carried out.
        member(&herd.nodes[primary], &words).await.0 || vote(herd, primary, name).await.is_none()
    })
    .await;
    herd.until("two voters", 30, async || {
        let document = herd.nodes[primary].get_json("/members").await.unwrap_or_default();
        document["members"].as_array().is_some_and(|left| left.len() == 2) && voters(herd, primary).await == 2
    })
    .await;
}

async fn let_in(herd: &Herd, primary: usize, gone: usize) {
    let words = format!("add {}", herd.nodes[gone].name);
    let (done, said) = member(&herd.nodes[primary], &words).await;
    assert!(done, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_peer_address_is_a_replica_without_a_vote() {
    let mut herd = laid_out(4);
    rewrite(&herd.nodes[3], "self_addr:", "");
    herd.nodes.iter_mut().for_each(Node::start);
    let primary = herd.await_primary(FORM_S, |i| i < 3).await;
    writer::prepare(&herd).await;
    herd.await_streaming(3, FORM_S).await;
    await_vote(&herd, primary, "node4", "none").await;
    herd.nodes[primary].kill_whole();
    let primary = {
        let now = herd.await_primary(FAILOVER_S, |i| i != primary).await;
        herd.nodes[primary].start();
        now
    };
    herd.await_whole(FORM_S).await;
    // It goes on asking: its PostgreSQL is stopped when it is taken out, and started when it is let in.
    let gone = if primary == 3 { 0 } else { 3 };
    let name = herd.nodes[gone].name.clone();
    let (done, said) = member(&herd.nodes[primary], &format!("remove {name} --force")).await;
    assert!(done, "{said}");
    herd.until("the end of its PostgreSQL", 30, async || {
        herd.nodes[gone].postgres_processes().is_empty()
    })
    .await;
    let_in(&herd, primary, gone).await;
    if gone != 3 {
        herd.until("the end of its daemon", 30, async || {
            processes::of(&herd.nodes[gone].dir).is_empty()
        })
        .await;
        herd.nodes[gone].reap();
        herd.nodes[gone].start();
    }
    herd.await_whole(FORM_S).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_of_a_dead_majority_keeps_the_rows_and_the_old_ones_are_refused() {
    let mut herd = Herd::three().await;
    let primary = herd.await_whole(30).await;
    writer::prepare(&herd).await;
    let survivor = (primary + 1) % 3;
    herd.nodes[primary]
        .sql("INSERT INTO judge SELECT 9, n FROM generate_series(1, 1000) AS n")
        .await
        .unwrap();
    herd.await_streaming(survivor, RETURN_S).await;
    // Nothing can happen between these: the third has no say, and the last is alone.
    let third = 3 - primary - survivor;
    for node in [third, primary, survivor] {
        herd.nodes[node].kill_whole();
    }
    let file = herd.nodes[survivor].file().display().to_string();
    let (done, said) = matriarch(&["recover", &file]).await;
    assert!(!done, "nobody typed the name: {said}");
    assert!(said.contains("Be sure that the other nodes are down"), "{said}");
    let (done, said) = matriarch(&["recover", &file, "--force"]).await;
    assert!(done && said.contains("is the only voter of cluster"), "{said}");
    herd.nodes[survivor].start();
    herd.await_primary(FORM_S, |i| i == survivor).await;
    herd.until("writes on the survivor", 30, async || {
        let row = herd.nodes[survivor].sql("INSERT INTO judge VALUES (8, 1)");
        row.await.is_ok()
    })
    .await;
    let rows = herd.nodes[survivor]
        .sql("SELECT count(*) FROM judge WHERE writer = 9")
        .await;
    assert_eq!(rows.as_deref(), Ok("1000"));
    for node in herd.others(survivor) {
        herd.nodes[node].start();
        herd.until("the refusal of an old member", 30, async || {
            herd.nodes[node].log().contains("recovered without this node")
        })
        .await;
        // Its PostgreSQL never ran: with the daemon everything of the node ends.
        herd.until("the end of the old member", 30, async || {
            processes::of(&herd.nodes[node].dir).is_empty()
        })
        .await;
        herd.nodes[node].reap();
        herd.nodes[node].wipe_raft();
        herd.nodes[node].start();
    }
    herd.await_whole(FORM_S).await;
}
