//! The door over real sockets: bytes in, bytes out, several at once, and clients that mean no good.

use super::fixtures::facts;
use super::{Access, ApiError, ApiHandle, ApiOptions, Identity, Operator, serve};
use crate::cluster::Facts;
use crate::config::{Allowed, Credentials, RestApi, Secret, VerifyClient};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Nothing here should take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Open {
    pub(super) handle: ApiHandle,
    pub(super) address: SocketAddr,
    /// As it was told.
    listen: String,
    pub(super) facts: watch::Sender<Option<Arc<Facts>>>,
    pub(super) stop: oneshot::Sender<()>,
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
        access: Access::default(),
        extra_headers: vec![("X-Herd".into(), "yes".into())],
        server_tokens: Some("productonly".into()),
    }
}

pub(super) async fn open(known: Option<Facts>) -> Open {
    let (facts, seen) = watch::channel(known.map(Arc::new));
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let listen = format!("{}:0", own_host());
    let handle = serve(options(listen.clone()), seen, Operator::default(), stopped)
        .await
        .unwrap();
    Open {
        address: handle.addresses()[0],
        listen,
        handle,
        facts,
        stop,
    }
}

pub(super) async fn say(address: SocketAddr, bytes: &[u8]) -> String {
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

pub(super) fn request(method: &str, target: &str) -> Vec<u8> {
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
    let probe = say(door.address, b"HEAD /replica HTTP/1.0\r\n\r\n").await;
    assert_eq!(probe, "HTTP/1.0 503 Service Unavailable\r\n\r\n");
    let old = say(door.address, b"GET /leader?x=%zz HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    let post = say(
        door.address,
        b"POST /failsafe HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
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
pub(super) fn facts_now() -> Facts {
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
    let error = serve(
        options(door.address.to_string()),
        seen,
        Operator::default(),
        std::future::pending(),
    )
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
            serve(
                options(listen.into()),
                seen.clone(),
                Operator::default(),
                std::future::pending()
            )
            .await
            .is_err(),
            "{listen}"
        );
    }
    let mut odd = options("127.0.0.1:0".into());
    odd.extra_headers.push(("two words".into(), "x".into()));
    assert!(matches!(
        serve(odd, seen, Operator::default(), std::future::pending())
            .await
            .unwrap_err(),
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

/// Asked of a verb that changes something, with this header; the head's first line and the body.
async fn post(address: SocketAddr, header: &str) -> String {
    let bytes = format!("POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{header}\r\n");
    say(address, bytes.as_bytes()).await
}

#[tokio::test]
async fn a_verb_that_changes_something_asks_who_calls_and_reading_does_not() {
    let door = open(Some(facts_now())).await;
    let mut strict = options(door.listen.clone());
    let credentials = Credentials {
        username: "op".to_owned(),
        password: Secret::new("pink"),
    };
    strict.access = Access::new(&rest(Some(credentials), &[]));
    door.handle.control().reload(strict.clone()).await.unwrap();
    let refused = post(door.address, "").await;
    assert!(refused.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{refused}");
    assert!(refused.ends_with("\r\n\r\nno auth header received"), "{refused}");
    let (head, _) = refused.split_once("\r\n\r\n").unwrap();
    for line in [
        "WWW-Authenticate: Basic realm=\"Patroni\"",
        "Content-Type: text/html",
    ] {
        assert!(head.lines().any(|l| l.eq_ignore_ascii_case(line)), "{head}");
    }
    let wrong = post(door.address, "Authorization: Basic b3A6Z3JleQ==\r\n").await;
    assert!(wrong.ends_with("not authenticated"), "{wrong}");
    let right = post(door.address, "Authorization: Basic b3A6cGluaw==\r\n").await;
    assert!(!right.contains(" 401 ") && !right.contains(" 403 "), "{right}");
    let unknown = say(door.address, &request("POST", "/nothing")).await;
    assert!(unknown.starts_with("HTTP/1.1 501 "), "{unknown}");
    for method in ["GET", "HEAD", "OPTIONS"] {
        let read = say(door.address, &request(method, "/leader")).await;
        assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
    }
    strict.access = Access::new(&rest(None, &["192.0.2.1"]));
    door.handle.control().reload(strict.clone()).await.unwrap();
    assert!(post(door.address, "").await.ends_with("Access is denied"));
    // A name is resolved beside the requests.
    strict.access = Access::new(&rest(None, &["localhost"]));
    strict.listen = "127.0.0.1:0".to_owned();
    let moved = door.handle.control().reload(strict).await.unwrap();
    let allowed = async {
        while post(moved[0], "").await.ends_with("Access is denied") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, allowed)
        .await
        .expect("localhost was not resolved");
}

fn rest(authentication: Option<Credentials>, allowed: &[&str]) -> RestApi {
    RestApi {
        listen: String::new(),
        connect_address: String::new(),
        authentication,
        certfile: None,
        keyfile: None,
        keyfile_password: None,
        cafile: None,
        verify_client: VerifyClient::None,
        ciphers: None,
        http_extra_headers: Default::default(),
        https_extra_headers: Default::default(),
        server_tokens: String::new(),
        allowlist: allowed.iter().map(|word| Allowed::parse(word).unwrap()).collect(),
        allowlist_include_members: false,
    }
}

#[tokio::test]
async fn the_door_moves_while_an_answer_is_under_way() {
    let door = open(Some(facts_now())).await;
    let mut half = TcpStream::connect(door.address).await.unwrap();
    half.write_all(b"GET /leader HTTP/1.1\r\n").await.unwrap();
    // Being answered elsewhere first shows that the half request was accepted.
    assert!(
        say(door.address, &request("GET", "/leader"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let control = door.handle.control();
    // The same port on every address: the old socket is in the way.
    let everywhere = format!("0.0.0.0:{}", door.address.port());
    let now = control.reload(options(everywhere)).await.unwrap();
    assert_eq!(now[0].port(), door.address.port());
    assert!(
        say(door.address, &request("GET", "/leader"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    half.write_all(b"Host: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, half.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Where it cannot go, it stays.
    let error = control
        .reload(options("192.0.2.1:0".to_owned()))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("restapi.listen: cannot listen on 192.0.2.1:0"),
        "{error}"
    );
    let same_port = format!("192.0.2.1:{}", door.address.port());
    assert!(control.reload(options(same_port)).await.is_err());
    assert!(
        say(door.address, &request("GET", "/leader"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    door.stop.send(()).unwrap();
    timeout(PATIENCE, door.handle.closed()).await.unwrap();
    assert!(TcpStream::connect(door.address).await.is_err());
}

/// What may change something is refused by its form alone, before anybody is asked.
#[tokio::test]
async fn bodies_of_orders() {
    let door = open(Some(facts_now())).await;
    let length = |body: &str| format!("Content-Length: {}\r\n", body.len());
    for (request, body, with_length, status) in [
        ("PATCH /config", "", false, "411 Length Required"),
        ("PATCH /config", "", true, "400 Bad Request"),
        ("PATCH /config", "{}", true, "400 Bad Request"),
        ("PATCH /config", "x", true, "400 Bad Request"),
        ("POST /switchover", "[1]", true, "400 Bad Request"),
        ("POST /restart", "x", true, "400 Bad Request"),
        ("DELETE /failover", "", false, "501 Not Implemented"),
        ("POST /nonsense", "{}", true, "501 Not Implemented"),
        ("POST /restart", "", false, "503 Service Unavailable"),
        ("DELETE /switchover", "", false, "503 Service Unavailable"),
        (
            "POST /failover",
            "{\"candidate\": \"b\"}",
            true,
            "503 Service Unavailable",
        ),
    ] {
        let length = if with_length { length(body) } else { String::new() };
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\n{length}\r\n{body}");
        let answer = say(door.address, text.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{text}: {answer}"
        );
    }
    let large = "POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n";
    let answer = say(door.address, large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
