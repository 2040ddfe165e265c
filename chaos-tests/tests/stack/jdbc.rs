//! The JDBC driver with all hosts and a `targetServerType`, which remembers for ten seconds what it found.

use crate::{FAILOVER_S, RETURN_S, named};
use matriarch_chaos::addresses::POSTGRES_PORT;
use matriarch_chaos::companions::program;
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{Herd, Options};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Where Debian keeps the driver; its manifest names what it needs.
const DRIVER: &str = "/usr/share/java/postgresql.jar";

/// A program with the driver in it: asked for a type, it says where it arrived.
struct Java(Mutex<Child>);

impl Java {
    fn start(program: &Path, herd: &Herd) -> Self {
        let hosts: Vec<String> = herd
            .nodes
            .iter()
            .map(|node| format!("{}:{POSTGRES_PORT}", node.ip))
            .collect();
        let url = format!(
            "jdbc:postgresql://{}/postgres?user=postgres&password={PASSWORD}&connectTimeout=2&socketTimeout=5",
            hosts.join(",")
        );
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/Targets.java");
        let child = Command::new(program)
            .args(["-XX:TieredStopAtLevel=1", "-cp", DRIVER])
            .arg(source)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(Mutex::new(child))
    }

    /// The data directory, or what the driver complained of.
    fn ask(&self, kind: &str) -> String {
        let mut child = self.0.lock().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{kind}").unwrap();
        let mut answer = String::new();
        // One line for each question: nothing is lost in the reader's buffer.
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut answer)
            .unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let mut child = self.0.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn await_types(herd: &Herd, java: &Java, primary: usize) {
    for (kind, is_primary) in [
        ("primary", true),
        ("secondary", false),
        ("preferSecondary", false),
    ] {
        let what = format!("targetServerType={kind} finds its server");
        herd.until(&what, FAILOVER_S, async || {
            named(herd, &java.ask(kind)).is_some_and(|node| (node == primary) == is_primary)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc_with_all_hosts_follows_the_primary() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let old = herd.await_whole(RETURN_S).await;
    // What the driver asks a server that does not tell it unasked, as those before 14 do.
    for (node, expected) in (0..3).map(|node| (node, if node == old { "off" } else { "on" })) {
        let answer = herd.nodes[node].sql("SHOW transaction_read_only").await;
        assert_eq!(answer.as_deref(), Ok(expected), "{node}");
    }
    let (Some(program), true) = (program("java"), Path::new(DRIVER).exists()) else {
        println!("skipped: the JDBC driver and a Java that runs a source file are not installed");
        return;
    };
    let java = Java::start(&program, &herd);
    await_types(&herd, &java, old).await;
    herd.nodes[old].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |node| node != old).await;
    await_types(&herd, &java, new).await;
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    await_types(&herd, &java, new).await;
}
