//! The life of a process: what systemd hears, what the log file holds, and that no secret is ever shown.

use matriarch_chaos::node::matriarch_binary;
use matriarch_chaos::{FORM_S, Herd, Options, processes};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UnixDatagram;

/// The next word for systemd that contains this one, and all that came before it.
async fn hear(socket: &UnixDatagram, word: &str) -> String {
    let mut heard = String::new();
    let listen = async {
        loop {
            let mut bytes = [0; 4096];
            let length = socket.recv(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            heard.push_str(&text);
            if text.contains(word) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), listen)
        .await
        .is_ok();
    assert!(in_time, "systemd has not heard {word:?}, only {heard:?}");
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_how_it_goes_and_the_log_file_has_the_last_word() {
    let options = Options {
        sections: "log:\n  dir: '{dir}'\n  type: json\n  mode: '0600'\n  static_fields: {shard: 7}\n"
            .to_owned(),
        ..Options::default()
    };
    let herd = Herd::new(1, options);
    let node = &herd.nodes[0];
    let socket = UnixDatagram::bind(node.dir.join("notify")).unwrap();
    let mut daemon = Command::new(matriarch_binary())
        .arg("run")
        .arg(node.file())
        .env("NOTIFY_SOCKET", node.dir.join("notify"))
        .env("WATCHDOG_USEC", "600000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(daemon.id()).unwrap();
    assert!(hear(&socket, "READY=1").await.contains(&format!("MAINPID={pid}")));
    for _ in 0..3 {
        hear(&socket, "WATCHDOG=1").await;
    }
    herd.await_primary(FORM_S, |_| true).await;
    processes::send(pid, Signal::SIGHUP);
    assert!(hear(&socket, "RELOADING=1").await.contains("MONOTONIC_USEC="));
    hear(&socket, "READY=1").await;
    let postmaster = node.postmaster_pid().expect("PostgreSQL runs");
    let inherited = std::fs::read(format!("/proc/{postmaster}/environ")).unwrap();
    assert!(
        !String::from_utf8_lossy(&inherited).contains("NOTIFY_SOCKET"),
        "PostgreSQL could speak for us"
    );
    processes::send(pid, Signal::SIGTERM);
    hear(&socket, "STOPPING=1").await;
    let status = tokio::task::spawn_blocking(move || daemon.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
    let log = std::fs::read_to_string(node.dir.join("patroni.log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["shard"] == 7 && line["levelname"].is_string()),
        "{log}"
    );
    assert!(log.contains("stopping: PostgreSQL first"), "{log}");
}

/// Everything that any process of the herd shows in the list of processes, until the flag is set.
fn watch_processes(
    dir: std::path::PathBuf,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<BTreeSet<String>> {
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            seen.extend(
                processes::of(&dir)
                    .into_iter()
                    .map(|process| process.args.join(" ")),
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_shown_anywhere() {
    const SECRETS: [&str; 3] = ["herd-secret", "rest-4711-secret", "b3A6cmVzdC00NzExLXNlY3JldA"];
    // Slow enough to be seen in the list of processes.
    let options = Options {
        postgresql: "  basebackup:\n  - max-rate: '10M'\n".to_owned(),
        ..Options::default()
    };
    let mut herd = Herd::new(2, options);
    for node in &herd.nodes {
        let open = "restapi:\n";
        let guarded = "restapi:\n  authentication: {username: op, password: rest-4711-secret}\n";
        let text = std::fs::read_to_string(node.file())
            .unwrap()
            .replace(open, guarded)
            + "log: {level: DEBUG}\n";
        std::fs::write(node.file(), text).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch_processes(herd.dir().to_owned(), stop.clone());
    herd.nodes.iter_mut().for_each(matriarch_chaos::Node::start);
    herd.await_whole(FORM_S).await;
    stop.store(true, Ordering::Relaxed);
    let processes = watching.join().unwrap();
    assert!(
        processes.iter().any(|line| line.contains("pg_basebackup")),
        "the clone was not seen: {processes:?}"
    );
    let mut shown: Vec<(String, String)> = vec![("processes".to_owned(), format!("{processes:?}"))];
    for node in &herd.nodes {
        shown.push((format!("the log of {}", node.name), node.log()));
        for path in [
            "/patroni", "/cluster", "/config", "/history", "/metrics", "/explain", "/nothing",
        ] {
            let answer = node.get(path).await.map(|(_, body)| body).unwrap_or_default();
            shown.push((path.to_owned(), answer));
        }
        let file = node.file();
        for command in ["check", "run"] {
            // The second daemon is refused.
            let output = tokio::process::Command::new(matriarch_binary())
                .arg(command)
                .arg(&file)
                .kill_on_drop(true)
                .output();
            let output = tokio::time::timeout(Duration::from_secs(30), output)
                .await
                .unwrap()
                .unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(!said.is_empty(), "{command} says nothing");
            shown.push((command.to_owned(), String::from_utf8_lossy(&said).into_owned()));
        }
    }
    for (place, text) in &shown {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{place} shows {secret}:\n{text}");
        }
    }
    let refused = tokio::process::Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"])
        .arg(format!(
            "http://{}:{}/reload",
            herd.nodes[0].rest_addr().0,
            herd.nodes[0].rest_addr().1
        ))
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "401");
}
