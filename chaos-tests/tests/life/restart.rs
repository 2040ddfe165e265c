//! An operator restarts PostgreSQL: primacy stays, synchronous standbys go on counting, and what follows is not refused.

use crate::{Crowd, RETURN_S};
use matriarch_chaos::{FORM_S, Herd, Node, Options};
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

const RESTARTED: (u16, &str) = (200, "restarted successfully");

async fn restart(node: &Node) {
    let (status, text) = node.order("POST", "/restart", "{}").await;
    assert_eq!((status, text.as_str()), RESTARTED, "{}", node.log_tail(40));
}

/// What a node calls the state of its PostgreSQL while something else goes on.
async fn states_during<T>(node: &Node, work: impl Future<Output = T>) -> (T, BTreeSet<String>) {
    let mut seen = BTreeSet::new();
    let mut work = pin!(work);
    loop {
        let look = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            node.patroni("/state").await
        };
        tokio::select! {
            done = &mut work => return (done, seen),
            state = look => seen.extend(state),
        }
    }
}

async fn await_pause(herd: &Herd, value: &str) {
    let body = format!(r#"{{"pause": {value}}}"#);
    let (status, text) = herd.nodes[0].order("PATCH", "/config", &body).await;
    assert_eq!(status, 200, "{text}");
    herd.until("every node knows of the pause", 20, async || {
        for node in &herd.nodes {
            if node.patroni("/pause").await.is_some() != (value == "true") {
                return false;
            }
        }
        true
    })
    .await;
}

/// Where the log is archived a stop ends its segment: every standby seems 16 MB behind until it streams again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_right_behind_a_restart_finds_its_candidate() {
    let options = Options {
        parameters: vec!["archive_mode: 'on'", "archive_command: 'true'"],
        ..Options::calm()
    };
    let herd = Herd::grown(3, options).await;
    let mut primary = herd.await_primary(20, |_| true).await;
    for _ in 0..3 {
        let to = herd.others(primary)[0];
        restart(&herd.nodes[primary]).await;
        let name = |node: usize| &herd.nodes[node].name;
        let body = format!(
            r#"{{"leader": "{}", "candidate": "{}"}}"#,
            name(primary),
            name(to)
        );
        let order = herd.nodes[primary].order("POST", "/switchover", &body);
        let (answer, during) = states_during(&herd.nodes[primary], order).await;
        let expected = format!("Successfully switched over to \"{}\"", name(to));
        assert_eq!(answer, (200, expected), "{}", herd.portrait().await);
        let follows = herd.await_streaming(primary, RETURN_S);
        let ((), after) = states_during(&herd.nodes[primary], follows).await;
        let states: BTreeSet<String> = &during | &after;
        assert!(
            !states.contains("crashed") && states.contains("running"),
            "{states:?}"
        );
        primary = to;
    }
}

async fn names(herd: &Herd, node: usize) -> String {
    let show = "SHOW synchronous_standby_names";
    herd.find(show, 20, async || herd.nodes[node].sql(show).await.ok())
        .await
}

async fn goes_on_counting(mode: &'static str) {
    // A standby that needs a moment on a busy machine to connect again is not given up for that.
    let options = Options {
        dcs: vec![
            "fence_after: 5s".to_owned(),
            "synchronous_standby_timeout: 60".to_owned(),
        ],
        ..Options::synchronous(mode)
    };
    let herd = Herd::grown(3, options).await;
    let primary = herd.await_primary(20, |_| true).await;
    let wanted = if mode == "quorum" { 2 } else { 1 };
    let settled = async || {
        let names = names(&herd, primary).await;
        herd.others(primary)
            .iter()
            .filter(|i| names.contains(&format!("\"{}\"", herd.nodes[**i].name)))
            .count()
            == wanted
    };
    herd.until("the synchronous set", RETURN_S, settled).await;
    let before = names(&herd, primary).await;
    let timeline = herd.told(primary, "/timeline").await;
    let crowd = Crowd::gather(&herd).await;
    let begun = herd.nodes[primary].log().len();
    restart(&herd.nodes[primary]).await;
    crowd.await_flow(&herd).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    assert_eq!(
        names(&herd, primary).await,
        before,
        "{}",
        herd.nodes[primary].log_since(begun)
    );
    assert_eq!(herd.told(primary, "/timeline").await, timeline);
    for standby in herd.others(primary) {
        restart(&herd.nodes[standby]).await;
        crowd.await_flow(&herd).await;
        herd.await_streaming(standby, RETURN_S).await;
        herd.until("the synchronous set again", RETURN_S, settled).await;
    }
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    assert_eq!(herd.told(primary, "/timeline").await, timeline);
    crowd.judge(&herd).await.0.demand_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_synchronous_standby_a_restart_moves_nothing() {
    goes_on_counting("on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_quorum_mode_a_restart_moves_nothing() {
    goes_on_counting("quorum").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_pause_a_primary_is_restarted_and_one_that_was_killed_is_started_when_asked() {
    let herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_whole(RETURN_S).await;
    let timeline = herd.told(primary, "/timeline").await;
    await_pause(&herd, "true").await;
    restart(&herd.nodes[primary]).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    herd.nodes[primary].kill_postmaster();
    herd.until("the primary says that it is down", 20, async || {
        herd.nodes[primary].patroni("/state").await.as_deref() == Some("stopped")
    })
    .await;
    restart(&herd.nodes[primary]).await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
    assert_eq!(herd.told(primary, "/timeline").await, timeline);
    await_pause(&herd, "null").await;
    assert_eq!(herd.await_whole(RETURN_S).await, primary);
}

/// `clonefrom` is a preference, and an operator's word stands above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_copy_comes_from_the_primary_where_that_is_asked_for() {
    let mut herd = Herd::new(
        3,
        Options {
            sections: "tags:\n  clonefrom: true\n".to_owned(),
            ..Options::default()
        },
    );
    herd.nodes.iter_mut().for_each(Node::start);
    let primary = herd.await_whole(FORM_S).await;
    let standby = &herd.nodes[herd.others(primary)[0]];
    let third = &herd.nodes[herd.others(primary)[1]];
    for (body, source) in [("{}", third), (r#"{"from_leader": true}"#, &herd.nodes[primary])] {
        let before = standby.log().len();
        let (status, text) = standby.order("POST", "/reinitialize", body).await;
        assert_eq!((status, text.as_str()), (200, "reinitialize started"));
        let line = format!("copying the data from {}:", source.ip);
        herd.until(&line, 20, async || standby.log_since(before).contains(&line))
            .await;
        herd.await_streaming(herd.others(primary)[0], FORM_S).await;
    }
}
