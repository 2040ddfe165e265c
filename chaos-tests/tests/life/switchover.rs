//! An operator moves primacy: under writes, in every mode, to one who cannot come, by name, at a time.

use crate::{Crowd, FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Options, oracle, processes};

async fn grown(mode: Option<&'static str>) -> Herd {
    Herd::grown(3, mode.map_or_else(Options::calm, Options::synchronous)).await
}

/// One synchronous standby, which stays it: nobody else is chosen when it is gone for less than a minute.
async fn with_one_that_stays() -> Herd {
    let options = Options::synchronous("on").with("synchronous_standby_timeout: 60");
    Herd::grown(3, options).await
}

/// The synchronous standby, and the one that is none.
async fn synchronous(herd: &Herd, primary: usize) -> (usize, usize) {
    let others = herd.others(primary);
    let standby = herd.find("a synchronous standby", 20, async || {
        let cluster: serde_json::Value =
            serde_json::from_str(&herd.latest(primary, "/cluster").await).ok()?;
        let members = cluster["members"].as_array()?;
        let counts = |member: &&serde_json::Value| member["role"] == "sync_standby";
        let name = members.iter().find(counts)?["name"].as_str()?.to_owned();
        others.iter().copied().find(|i| herd.nodes[*i].name == name)
    });
    let standby = standby.await;
    (standby, 3 - primary - standby)
}

fn switchover(herd: &Herd, from: usize, to: usize) -> String {
    let name = |node: usize| &herd.nodes[node].name;
    format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, name(from), name(to))
}

/// Where a timeline began, as the node's own control file and history tell.
async fn timeline(herd: &Herd, node: usize) -> u32 {
    herd.told(node, "/timeline").await.parse().expect("a timeline")
}

/// What scripts look for in the log of the new primary and of who was passed over; not again in every loop.
async fn said_once(herd: &Herd, new: usize, passed_over: usize, since: &[usize]) {
    let log = |node: usize| herd.nodes[node].log_since(since[node]);
    let name = |node: usize| &herd.nodes[node].name;
    let leads = format!("INFO: no action. I am ({}), the leader with the lock", name(new));
    let follows = format!(
        "INFO: no action. I am ({}), a secondary, and following a leader ({})",
        name(passed_over),
        name(new)
    );
    herd.until("both are calm", RETURN_S, async || {
        log(new).contains(&leads) && log(passed_over).contains(&follows)
    })
    .await;
    let (new, other) = (log(new), log(passed_over));
    let promoted = "INFO: promoted self to leader by acquiring session lock";
    assert!(new.contains(promoted), "{new}");
    assert_eq!(new.matches(&leads).count(), 1, "{new}");
    let not_me = "INFO: following a different leader because i am not the healthiest node";
    assert!(other.contains(not_me), "{other}");
    assert_eq!(other.matches(&follows).count(), 1, "{other}");
}

async fn moves_without_a_loss(mode: Option<&'static str>) {
    let herd = grown(mode).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let logs: Vec<usize> = herd.nodes.iter().map(|node| node.log().len()).collect();
    let mut present = old;
    let mut gaps = Vec::new();
    for _ in 0..2 {
        let others = herd.others(present);
        let (to, asked) = (others[0], others[1]);
        let readers = herd.nodes[asked].postmaster_pid();
        let before: Vec<usize> = herd.nodes.iter().map(|node| node.log().len()).collect();
        let since = matriarch::clock::boot_ns();
        let body = switchover(&herd, present, to);
        // A node that neither leads nor is concerned answers as well as any.
        let (status, text) = herd.nodes[asked].order("POST", "/switchover", &body).await;
        let expected = format!("Successfully switched over to \"{}\"", herd.nodes[to].name);
        assert_eq!((status, text.as_str()), (200, expected.as_str()));
        crowd.await_flow(&herd).await;
        assert_eq!(herd.await_whole(RETURN_S).await, to);
        assert_eq!(
            herd.nodes[asked].postmaster_pid(),
            readers,
            "its readers were disturbed"
        );
        said_once(&herd, to, asked, &before).await;
        gaps.push(since);
        present = to;
    }
    let last = timeline(&herd, present).await;
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
    let gaps: Vec<f64> = gaps
        .into_iter()
        .map(|since| oracle::gap_s(&writes, since))
        .collect();
    eprintln!("{mode:?}: gaps {gaps:.2?} s, timeline {last}");
    for (node, length) in logs.iter().enumerate() {
        let log = herd.nodes[node].log_since(*length);
        for word in ["rewinding", "copying the data"] {
            assert!(!log.contains(word), "{word}: {log}");
        }
    }
    let history = herd.latest(old, "/history").await;
    assert!(history.contains("(switchover)\""), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_under_writes_loses_nothing() {
    moves_without_a_loss(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_with_one_synchronous_standby_loses_nothing() {
    let herd = with_one_that_stays().await;
    let old = herd.await_primary(20, |_| true).await;
    let crowd = Crowd::gather(&herd).await;
    let (standby, other) = synchronous(&herd, old).await;
    let ask = async |to: usize| {
        let body = switchover(&herd, old, to);
        herd.nodes[old].order("POST", "/switchover", &body).await
    };
    let refusal = "candidate name does not match with sync_standby".to_owned();
    assert_eq!(ask(other).await, (412, refusal));
    assert_eq!(ask(standby).await.0, 200);
    crowd.await_flow(&herd).await;
    assert_eq!(herd.await_whole(RETURN_S).await, standby);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_in_quorum_mode_loses_nothing() {
    moves_without_a_loss(Some("quorum")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_stands_still_costs_a_pause_and_no_row() {
    let herd = grown(None).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let to = herd.others(old)[0];
    let frozen = herd.nodes[to].freeze_postgres();
    let body = switchover(&herd, old, to);
    let (status, text) = herd.nodes[old].order("POST", "/switchover", &body).await;
    for pid in frozen {
        processes::thaw(pid);
    }
    // It may have been seen to stand still before, or only then; or the primary stopped for so long that the third, which
    // has every row, took over.
    let called_off = (503, "Switchover failed");
    let refused = (
        412,
        "switchover is not possible: no good candidates have been found",
    );
    let third = herd.others(old)[1];
    let (other, asked) = (&herd.nodes[third].name, &herd.nodes[to].name);
    let instead = format!("Switched over to \"{other}\" instead of \"{asked}\"");
    let answer = (status, text.as_str());
    assert!(
        [called_off, refused, (200, instead.as_str())].contains(&answer),
        "{status} {text}"
    );
    let expected = if status == 200 { third } else { old };
    crowd.await_flow(&herd).await;
    assert_eq!(herd.await_whole(RETURN_S).await, expected);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

/// A fast stop waits until every standby has the last record: one that takes nothing is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bystander_that_stands_still_holds_up_no_switchover() {
    let herd = grown(None).await;
    let (old, _) = herd.await_leader_elsewhere(20).await;
    let crowd = Crowd::gather(&herd).await;
    let (to, bystander) = (herd.others(old)[0], herd.others(old)[1]);
    let frozen = herd.nodes[bystander].freeze_receiver();
    crowd.await_flow(&herd).await;
    let (begun, since) = (herd.nodes[old].log().len(), matriarch::clock::boot_ns());
    let body = switchover(&herd, old, to);
    let answer = herd.nodes[old].order("POST", "/switchover", &body).await;
    let expected = format!("Successfully switched over to \"{}\"", herd.nodes[to].name);
    assert_eq!(answer, (200, expected), "{}", herd.portrait().await);
    crowd.await_flow(&herd).await;
    herd.nodes[bystander].discard_receiver(frozen);
    assert_eq!(herd.await_whole(RETURN_S).await, to);
    let log = herd.nodes[old].log_since(begun);
    assert!(log.contains("its stream is ended"), "it was not held up: {log}");
    for word in ["stopping at once", "rewinding", "copying the data"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    let (verdict, writes) = crowd.judge(&herd).await;
    verdict.demand_nothing_lost();
    let gap_s = oracle::gap_s(&writes, since);
    eprintln!("gap {gap_s:.2} s beside a standby that stands still");
    assert!(gap_s < 10.0, "{gap_s} s without writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_switchover_is_shown_deleted_and_carried_out() {
    let herd = grown(None).await;
    let old = herd.await_primary(20, |_| true).await;
    let node = &herd.nodes[old];
    let body = format!(
        r#"{{"leader": "{}", "scheduled_at": "2099-01-01T00:00+00"}}"#,
        node.name
    );
    let answer = node.order("POST", "/switchover", &body).await;
    assert_eq!(answer, (202, "Switchover scheduled".to_owned()));
    let cluster: serde_json::Value = serde_json::from_str(&herd.latest(old, "/cluster").await).unwrap();
    assert_eq!(cluster["scheduled_switchover"]["at"], "2099-01-01T00:00:00+00:00");
    assert_eq!(cluster["scheduled_switchover"]["from"], node.name.as_str());
    let answer = node.order("DELETE", "/switchover", "").await;
    assert_eq!(answer, (200, "scheduled switchover deleted".to_owned()));
    let answer = node.order("DELETE", "/switchover", "").await;
    assert_eq!(answer, (404, "no switchover is scheduled".to_owned()));
    let soon = matriarch::clock::wall_ms() / 1_000 + 12;
    let find = format!(
        "SELECT to_char(to_timestamp({soon}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') || 'Z'"
    );
    let at = node.sql(&find);
    let at = at.await.expect("a time");
    let body = format!(r#"{{"leader": "{}", "scheduled_at": "{at}"}}"#, node.name);
    assert_eq!(node.order("POST", "/switchover", &body).await.0, 202);
    herd.await_primary(FAILOVER_S, |i| i != old).await;
    herd.await_whole(RETURN_S).await;
}

/// Nobody else is there to tell what was acknowledged: only an operator's explicit word ends the wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_set_that_is_gone_is_given_up_by_an_explicit_word_only() {
    let mut herd = with_one_that_stays().await;
    let old = herd.await_primary(20, |_| true).await;
    let (standby, left) = synchronous(&herd, old).await;
    // The standby first, which nobody replaces yet: with the primary gone it would be elected within half a second. The
    // data is gone for good, the votes are not.
    for node in [standby, old] {
        herd.nodes[node].kill_whole();
    }
    for node in [old, standby] {
        std::fs::remove_dir_all(herd.nodes[node].data_dir()).expect("the data is removed");
        herd.nodes[node].start();
    }
    let body = format!(r#"{{"candidate": "{}"}}"#, herd.nodes[left].name);
    herd.until("a refusal that names the word", 30, async || {
        let (status, text) = herd.nodes[left].order("POST", "/failover", &body).await;
        status == 412 && text.contains("accept_data_loss")
    })
    .await;
    assert_eq!(herd.primary().await, None);
    let body = format!(
        r#"{{"candidate": "{}", "accept_data_loss": true}}"#,
        herd.nodes[left].name
    );
    let (status, text) = herd.nodes[left].order("POST", "/failover", &body).await;
    assert_eq!(
        (status, text),
        (
            200,
            format!("Successfully failed over to \"{}\"", herd.nodes[left].name)
        )
    );
    herd.await_whole(RETURN_S).await;
    let history = herd.latest(left, "/history").await;
    assert!(history.contains("(manual failover)\""), "{history}");
}
