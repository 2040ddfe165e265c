//! What a real patronictl printed (`testdata/patronictl.txt`), printed again from the same answers.

use super::called::Called;
use super::replay::{Heard, Stage};
use serde_json::{Value, json};

/// Commands and what they printed, in the order in which they were recorded.
fn recorded() -> Vec<(Vec<String>, String, u8)> {
    let text = include_str!("testdata/patronictl.txt");
    let blocks = text.split("$ patronictl ").skip(1);
    blocks
        .map(|block| {
            let (command, rest) = block.split_once('\n').unwrap();
            let (output, code) = rest.rsplit_once("[exit ").unwrap();
            let words = command.split(' ').map(str::to_owned).collect();
            (
                words,
                output.to_owned(),
                code.trim().trim_end_matches(']').parse().unwrap(),
            )
        })
        .collect()
}

/// `/cluster` as it was recorded.
fn cluster() -> Value {
    let member = |node: usize, tags: Value| {
        let mut member = json!({
            "name": format!("node{node}"), "role": "replica", "state": "streaming",
            "api_url": format!("{{node{node}}}/patroni"), "host": "127.0.0.1", "port": 5461 + node, "timeline": 1,
            "tags": tags,
        });
        if node == 0 {
            (member["role"], member["state"]) = ("leader".into(), "running".into());
        }
        member
    };
    let mut cluster = json!({"members": [
        member(0, json!({"zone": "z0", "num": 1.4})),
        member(1, json!({"clonefrom": true, "zone": "z1", "num": 1.4})),
        member(2, json!({"zone": "z2", "num": 1.4})),
    ], "scope": "demo"});
    at(&mut cluster, "0/5000060", 1);
    cluster
}

/// Sets where the replicas are.
fn at(cluster: &mut Value, lsn: &str, timeline: u64) {
    for member in cluster["members"].as_array_mut().unwrap() {
        member["timeline"] = timeline.into();
        let is_leader = member["role"] == "leader";
        for (key, value) in [
            ("receive_lsn", json!(lsn)),
            ("receive_lag", json!(0)),
            ("replay_lsn", json!(lsn)),
            ("replay_lag", json!(0)),
        ] {
            if is_leader {
                member.as_object_mut().unwrap().remove(key);
            } else {
                member[key] = value;
            }
        }
    }
}

/// node1 has taken over.
fn handed_over(lsn: &str) -> Value {
    let mut cluster = cluster();
    for (node, role, state) in [(0, "replica", "streaming"), (1, "leader", "running")] {
        let member = &mut cluster["members"][node];
        (member["role"], member["state"]) = (role.into(), state.into());
    }
    at(&mut cluster, lsn, 2);
    cluster
}

fn pending(mut cluster: Value, nodes: &[usize]) -> Value {
    for node in nodes {
        let member = &mut cluster["members"][*node];
        member["pending_restart"] = true.into();
        member["pending_restart_reason"] =
            json!({"max_connections": {"old_value": "100", "new_value": "101"}});
    }
    cluster
}

fn with(mut cluster: Value, key: &str, value: Value) -> Value {
    cluster[key] = value;
    cluster
}

/// The next recorded command, played against what the nodes answered then.
struct Play {
    stage: Stage,
    script: std::vec::IntoIter<(Vec<String>, String, u8)>,
}

impl Play {
    fn world(&self, cluster: &Value) {
        self.stage.world.lock().unwrap().cluster = cluster.clone();
    }

    fn replies(&self, then: Value, replies: &[(u16, &str)]) {
        let mut world = self.stage.world.lock().unwrap();
        world.then = Some(then).filter(|then| !then.is_null());
        world.replies = replies
            .iter()
            .map(|(code, text)| (*code, (*text).to_owned()))
            .collect();
    }

    /// Plays it and returns what was asked of the nodes.
    fn next(&mut self, command: &str) -> Vec<Heard> {
        let (words, expected, code) = self.script.next().unwrap();
        assert_eq!(words.join(" "), command);
        let line: Vec<&str> = words.iter().map(String::as_str).collect();
        let (shown, exit) = self.stage.run(Called::Patronictl, &line, "");
        assert_eq!(timeless(&shown), timeless(&expected), "{command}");
        assert_eq!(exit, code, "{command}: {shown}");
        self.stage.heard()
    }

    /// The same where nothing may be asked that changes something.
    fn shows(&mut self, command: &str) {
        assert_eq!(self.next(command), [], "{command}");
    }
}

/// A line that begins with the time of day keeps only its length.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.get(..26) {
        Some(time) if time.starts_with("20") && time.as_bytes()[10] == b' ' => {
            assert!(time.as_bytes()[25] == b' ', "{line}");
            format!("TIME{}", &line[25..])
        }
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn asked(heard: &[Heard]) -> Vec<(usize, &str, &Value)> {
    heard
        .iter()
        .map(|one| (one.node, one.what.as_str(), &one.body))
        .collect()
}

const SETTINGS: &str = r#"{"ttl": 21, "loop_wait": 2, "retry_timeout": 5, "maximum_lag_on_failover": 1048576,
    "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 100}}}"#;

#[test]
fn everything_that_was_recorded_is_printed_again() {
    let mut play = Play {
        stage: Stage::open(),
        script: recorded().into_iter(),
    };
    {
        let mut world = play.stage.world.lock().unwrap();
        world.config = serde_json::from_str(SETTINGS).unwrap();
        world.history = json!([]);
    }
    looks(&mut play);
    settings_and_restarts(&mut play);
    maintenance(&mut play);
    handovers(&mut play);
    plans(&mut play);
    assert_eq!(play.script.next(), None);
}

fn looks(play: &mut Play) {
    play.world(&cluster());
    for command in [
        "list",
        "list -e",
        "list -f tsv",
        "list -f json",
        "list -f yaml",
        "topology",
        "show-config",
        "history",
        "dsn",
        "dsn -r replica",
        "version",
        "version demo",
        "list nosuch",
    ] {
        play.shows(command);
    }
}

fn settings_and_restarts(play: &mut Play) {
    play.replies(Value::Null, &[(200, "{}")]);
    let heard = play.next("edit-config -s ttl=22 -p max_connections=101 --force");
    let change = json!({"ttl": 22, "postgresql": {"parameters": {"max_connections": 101}}});
    assert_eq!(asked(&heard), [(0, "PATCH /config", &change)]);
    play.stage.world.lock().unwrap().config["ttl"] = 22.into();
    play.shows("edit-config -s ttl=22 --force");
    play.world(&pending(cluster(), &[0, 1, 2]));
    play.shows("list");
    play.shows("list -f json");
    play.replies(Value::Null, &[(200, "restarted successfully")]);
    let heard = play.next("restart demo node1 --force");
    assert_eq!(asked(&heard), [(1, "POST /restart", &json!({}))]);
    play.world(&pending(cluster(), &[0, 2]));
    play.replies(
        Value::Null,
        &[(200, "restarted successfully"), (200, "restarted successfully")],
    );
    let heard = play.next("restart demo --pending --force");
    let only_pending = json!({"restart_pending": true});
    assert_eq!(
        asked(&heard),
        [
            (0, "POST /restart", &only_pending),
            (2, "POST /restart", &only_pending)
        ]
    );
    let mut later = cluster();
    at(&mut later, "0/50001C0", 1);
    play.world(&later);
    play.shows("restart demo nosuch --force");
    play.replies(Value::Null, &[(202, "reload scheduled"); 3]);
    let heard = play.next("reload demo --force");
    assert_eq!(heard.iter().map(|one| one.node).collect::<Vec<_>>(), [0, 1, 2]);
}

fn maintenance(play: &mut Play) {
    let mut later = cluster();
    at(&mut later, "0/50001C0", 1);
    let paused = with(later.clone(), "pause", true.into());
    play.replies(paused.clone(), &[(200, "{}")]);
    let heard = play.next("pause --wait");
    assert_eq!(asked(&heard), [(0, "PATCH /config", &json!({"pause": true}))]);
    play.shows("pause");
    play.shows("list");
    let refusal = "Switchover is possible only to a specific candidate in a paused state";
    play.replies(Value::Null, &[(400, refusal)]);
    play.next("switchover --force");
    play.shows("switchover --scheduled 2099-01-01T00:00 --force");
    play.replies(later, &[(200, "{}")]);
    let heard = play.next("resume --wait");
    assert_eq!(asked(&heard), [(0, "PATCH /config", &json!({"pause": null}))]);
    play.shows("resume");
}

fn handovers(play: &mut Play) {
    play.shows("switchover --leader node9 --force");
    let mut later = cluster();
    at(&mut later, "0/50001F8", 1);
    play.world(&later);
    play.shows("switchover --candidate nosuch --force");
    play.shows("failover --force");
    let mut just_now = handed_over("0/5000320");
    for member in just_now["members"].as_array_mut().unwrap() {
        member["timeline"] = 1.into();
    }
    just_now["members"][2]["state"] = "running".into();
    let old = just_now["members"][0].as_object_mut().unwrap();
    old.remove("timeline");
    old.insert("state".to_owned(), "stopped".into());
    for key in ["receive_lsn", "receive_lag", "replay_lsn", "replay_lag"] {
        old.insert(key.to_owned(), "unknown".into());
    }
    play.replies(just_now, &[(200, "Successfully switched over to \"node1\"")]);
    let heard = play.next("switchover --leader node0 --candidate node1 --force");
    let order = json!({"leader": "node0", "candidate": "node1"});
    assert_eq!(asked(&heard), [(0, "POST /switchover", &order)]);
    play.world(&handed_over("0/5000438"));
    play.shows("list");
    let line = json!([[
        1,
        83_886_880,
        "no recovery target specified",
        "2026-11-21T02:42:24.394011+00:00",
        "node1"
    ]]);
    play.stage.world.lock().unwrap().history = line;
    play.shows("history");
    play.shows("history -f json");
    play.replies(Value::Null, &[(200, "reinitialize started")]);
    let heard = play.next("reinit demo node2 --force --wait");
    assert_eq!(
        asked(&heard),
        [(2, "POST /reinitialize", &json!({"force": true}))]
    );
    play.world(&handed_over("0/7000000"));
    play.shows("reinit demo node1 --force");
}

fn plans(play: &mut Play) {
    let plan = json!({"at": "2099-01-01T00:00:00+00:00", "from": "node1"});
    let planned = with(handed_over("0/7000000"), "scheduled_switchover", plan);
    play.replies(planned, &[(202, "Switchover scheduled")]);
    let heard = play.next("switchover --scheduled 2099-01-01T00:00 --force");
    assert_eq!(heard[0].body["leader"], "node1");
    assert!(
        heard[0].body["scheduled_at"]
            .as_str()
            .unwrap()
            .starts_with("2099-01-01T00:00:00")
    );
    play.shows("list");
    play.replies(handed_over("0/7000060"), &[(200, "scheduled switchover deleted")]);
    let heard = play.next("flush demo switchover");
    assert_eq!(asked(&heard), [(1, "DELETE /switchover", &Value::Null)]);
    play.shows("flush demo switchover");
    play.replies(Value::Null, &[(202, "Restart scheduled")]);
    let heard = play.next("restart demo node2 --scheduled 2099-01-01T00:00 --force");
    assert!(
        heard[0].body["schedule"]
            .as_str()
            .unwrap()
            .starts_with("2099-01-01T00:00:00")
    );
    let mut planned = handed_over("0/7000060");
    planned["members"][2]["scheduled_restart"] = json!({"schedule": "2099-01-01T00:00:00+00:00"});
    play.world(&planned);
    play.shows("list");
    play.replies(Value::Null, &[(200, "scheduled restart deleted")]);
    let heard = play.next("flush demo node2 restart --force");
    assert_eq!(asked(&heard), [(2, "DELETE /restart", &Value::Null)]);
}
