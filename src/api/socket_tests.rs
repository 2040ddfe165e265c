//! The door over real sockets: bytes in, bytes out, several at once, and clients that mean no good.

use super::fixtures::facts;
use super::{ApiError, ApiHandle, ApiOptions, Identity, serve};
use crate::cluster::Facts;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Nothing here should take longer.
const PATIENCE: Duration = Duration::from_secs(20);

struct Open {
    handle: ApiHandle,
    address: SocketAddr,
    facts: watch::Sender<Option<Arc<Facts>>>,
    stop: oneshot::Sender<()>,
}

/// An address of this run's own, so that runs may overlap.
fn own_host() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    format!(
        "127.{}.{}.{}",
        100 + pid % 100,
        pid / 100 % 250,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn options(listen: String) -> ApiOptions {
    ApiOptions {
        identity: Identity {
            scope: "demo".into(),
            name: "node0".into(),
        },
        listen,
        tls: None,
        extra_headers: vec![("X-Herd".into(), "yes".into())],
        server_tokens: Some("productonly".into()),
    }
}

async fn open(known: Option<Facts>) -> Open {
    let (facts, seen) = watch::channel(known.map(Arc::new));
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let handle = serve(options(format!("{}:0", own_host())), seen, stopped)
        .await
        .unwrap();
    Open {
        address: handle.addresses()[0],
        handle,
        facts,
        stop,
    }
}

async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end like any other.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(PATIENCE, talk).await.unwrap()
}

fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn bytes_of_the_verbs() {
    let door = open(Some(facts_now())).await;
    let get = say(door.address, &request("GET", "/patroni")).await;
    let (head, body) = get.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in [
        "Content-Type: application/json",
        "Server: Matriarch",
        "X-Herd: yes",
        "Connection: close",
    ] {
        assert!(
            head.lines().any(|l| l.eq_ignore_ascii_case(line)),
            "{line} is missing in {head}"
        );
    }
    assert!(
        body.starts_with(r#"{"state": "running", "#) && body.ends_with('}'),
        "{body}"
    );

    for (method, target, status) in [
        ("HEAD", "/primary", "200 OK"),
        ("OPTIONS", "/primary", "200 OK"),
        ("OPTIONS", "/replica", "503 Service Unavailable"),
    ] {
        let answer = say(door.address, &request(method, target)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\n") && !answer.contains("Server") && !answer.contains("Content-Type"),
            "{answer}"
        );
    }
    let old = say(door.address, b"GET /leader?x=%zz HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    let post = say(
        door.address,
        b"POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    )
    .await;
    assert!(
        post.starts_with("HTTP/1.1 501 ") && post.contains("Unsupported method ('POST')"),
        "{post}"
    );
}

#[tokio::test]
async fn answers_change_with_the_facts() {
    let door = open(None).await;
    let early = say(door.address, &request("GET", "/")).await;
    assert!(
        early.starts_with("HTTP/1.1 503 ") && early.contains(r#"{"state": "starting", "#),
        "{early}"
    );
    door.facts.send_replace(Some(Arc::new(expired())));
    assert!(
        say(door.address, &request("GET", "/primary"))
            .await
            .starts_with("HTTP/1.1 503 ")
    );
    door.facts.send_replace(Some(Arc::new(facts_now())));
    assert!(
        say(door.address, &request("GET", "/primary"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

/// The fixture's lease is dated by its own clock; these are dated by this machine's.
fn facts_now() -> Facts {
    let mut facts = facts(0);
    facts.lease.until = crate::clock::now().plus(3_600_000);
    facts
}

fn expired() -> Facts {
    let mut facts = facts(0);
    facts.lease.until = crate::clock::now();
    facts
}

#[tokio::test]
async fn garbage_is_closed_and_harms_nobody() {
    let door = open(Some(facts_now())).await;
    let long = [
        b"GET / HTTP/1.1\r\nX: ".as_slice(),
        &[b'a'; 64 * 1024],
        b"\r\n\r\n",
    ]
    .concat();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        &long,
    ] {
        let answer = say(door.address, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(
        say(door.address, &request("GET", "/primary"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn a_silent_client_is_dropped_while_others_are_served() {
    let door = open(Some(facts_now())).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    silent.write_all(b"GET / HT").await.unwrap();
    let asked: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn({
                let address = door.address;
                async move { say(address, &request("GET", "/leader")).await }
            })
        })
        .collect();
    for answer in asked {
        assert!(answer.await.unwrap().starts_with("HTTP/1.1 200 "));
    }
    let mut rest = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_error() {
    let door = open(None).await;
    let (_facts, seen) = watch::channel(None);
    let error = serve(options(door.address.to_string()), seen, std::future::pending())
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::Listen { .. }));
    let expected = format!(
        "restapi.listen: cannot listen on {}: Address already in use",
        door.address
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[tokio::test]
async fn bad_addresses_and_headers_are_found_at_the_start() {
    let (_facts, seen) = watch::channel(None);
    for listen in ["8008", "127.0.0.1:port", "192.0.2.1:0"] {
        assert!(
            serve(options(listen.into()), seen.clone(), std::future::pending())
                .await
                .is_err(),
            "{listen}"
        );
    }
    let mut odd = options("127.0.0.1:0".into());
    odd.extra_headers.push(("two words".into(), "x".into()));
    assert!(matches!(
        serve(odd, seen, std::future::pending()).await.unwrap_err(),
        ApiError::Header { .. }
    ));
}

#[tokio::test]
async fn stop_closes_the_port() {
    let door = open(Some(facts_now())).await;
    let idle = TcpStream::connect(door.address).await.unwrap();
    door.stop.send(()).unwrap();
    timeout(PATIENCE, door.handle.closed()).await.unwrap();
    assert!(TcpStream::connect(door.address).await.is_err());
    drop(idle);
}
