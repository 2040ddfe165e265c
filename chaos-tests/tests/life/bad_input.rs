//! Things people do by mistake or malice: refused with one clear sentence, and nothing touched.

use matriarch_chaos::{FORM_S, Herd, Options, plain, processes, writer};
use std::io::{ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Waits until the daemon of a node has given up, and demands exit code 1 and a sentence that names `word`.
async fn demand_refusal(herd: &mut Herd, node: usize, word: &str) {
    let deadline = matriarch::clock::boot_ns() + 30_000_000_000;
    let status = loop {
        if let Some(status) = herd.nodes[node].exit() {
            break status;
        }
        assert!(
            matriarch::clock::boot_ns() < deadline,
            "it was not refused\n{}",
            herd.portrait().await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status.code(), Some(1), "exit status {status}");
    let log = herd.nodes[node].log();
    let last = log.lines().last().unwrap_or_default();
    assert!(
        last.contains(word),
        "the last line does not name {word:?}:\n{log}"
    );
    herd.until("no process is left behind", 20, async || {
        processes::of(&herd.nodes[node].dir).is_empty()
    })
    .await;
}

/// A cluster of the first two nodes.
async fn pair() -> (Herd, usize) {
    let mut herd = Herd::new(3, Options::default());
    herd.nodes[0].start();
    herd.nodes[1].start();
    let primary = herd.await_primary(FORM_S, |_| true).await;
    herd.await_streaming(1 - primary, FORM_S).await;
    (herd, primary)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_the_same_name_is_refused() {
    let (mut herd, primary) = pair().await;
    let file = herd.nodes[2].file();
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("name: node3\n", "name: node2\n");
    std::fs::write(&file, text).unwrap();
    herd.nodes[2].start();
    demand_refusal(&mut herd, 2, "node2").await;
    assert!(
        !herd.nodes[2].data_dir().join("PG_VERSION").exists(),
        "the impostor has made a data directory"
    );
    assert_eq!(herd.await_primary(20, |_| true).await, primary);
    herd.await_streaming(1 - primary, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster_is_refused_and_left_alone() {
    let (mut herd, primary) = pair().await;
    let data_dir = herd.nodes[2].data_dir();
    plain::initdb(&data_dir);
    let before = std::fs::read(data_dir.join("global/pg_control")).unwrap();
    herd.nodes[2].start();
    demand_refusal(&mut herd, 2, &data_dir.display().to_string()).await;
    let after = std::fs::read(data_dir.join("global/pg_control")).unwrap();
    assert!(before == after, "the foreign directory was touched");
    assert!(
        !data_dir.join("standby.signal").exists(),
        "the foreign directory was touched"
    );
    assert_eq!(herd.await_primary(20, |_| true).await, primary);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_same_files_is_refused_and_the_first_goes_on() {
    let (mut herd, primary) = pair().await;
    let output = tokio::process::Command::new(matriarch_chaos::node::matriarch_binary())
        .arg("run")
        .arg(herd.nodes[primary].file())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .expect("it ends by itself")
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(herd.nodes[primary].exit().is_none(), "the first daemon ended");
    assert_eq!(herd.await_primary(20, |_| true).await, primary);
}

/// What a scanner or a misdirected client sends.
fn garbage() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0xff; 64],
        vec![0; 64],
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        noise,
    ]
}

/// Sends bytes and waits until the other side closes the connection.
fn demand_closed(address: (Ipv4Addr, u16), bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the port accepts");
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "port {} keeps a connection that sent garbage",
            address.1
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_ports_closes_the_connection_and_does_nothing_else() {
    let mut herd = Herd::grown(3, Options::calm()).await;
    let primary = herd.await_primary(20, |_| true).await;
    writer::prepare(&herd).await;
    let client = matriarch_chaos::Writer::start(&herd);
    client.await_flow(&herd, 10, 20).await;
    let lines = herd.nodes[primary].log().lines().count();
    let (peer, rest) = (herd.nodes[primary].peer_addr(), herd.nodes[primary].rest_addr());
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(peer).unwrap()).collect();
    let sent = tokio::task::spawn_blocking(move || {
        let all = garbage();
        for bytes in &all {
            demand_closed(peer, bytes);
        }
        let valid_http = 1;
        for bytes in all.iter().skip(valid_http) {
            demand_closed(rest, bytes);
        }
        all.len() * 2 - valid_http
    })
    .await
    .unwrap();
    drop(silent);
    client.await_flow(&herd, 100, 20).await;
    assert_eq!(client.connections(), 1, "the writing client noticed");
    client.stop().await;
    assert!(herd.nodes[primary].exit().is_none(), "the daemon ended");
    assert_eq!(herd.await_whole(20).await, primary);
    let said = herd.nodes[primary].log().lines().count() - lines;
    // One line for each that sent something and one for each silent connection, plus what the daemon says anyway.
    assert!(said <= sent + 50 + 40, "{said} log lines for {sent} connections");
    let panicked = herd.nodes[primary].log().contains("panicked");
    assert!(
        !panicked,
        "a task of the daemon panicked\n{}",
        herd.nodes[primary].log_tail(40)
    );
}
