//! The page and its stream over real sockets: what is told, to how many, and how it ends.

use super::socket_tests::{PATIENCE, facts_now, open, request, say};
use super::stream::LISTENERS;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Somebody who listens.
struct Listener {
    stream: TcpStream,
    heard: String,
}

impl Listener {
    async fn new(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request("GET", "/ui/events")).await.unwrap();
        Self {
            stream,
            heard: String::new(),
        }
    }

    /// Reads until `word` has come so often; false if the stream ends before.
    async fn hears(&mut self, word: &str, times: usize) -> bool {
        let read = async {
            let mut buffer = [0; 4096];
            while self.heard.matches(word).count() < times {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => self.heard.push_str(&String::from_utf8_lossy(&buffer[..count])),
                }
            }
            true
        };
        timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("{word} did not come {times} times"))
    }
}

#[tokio::test]
async fn the_page_says_what_a_browser_may_do_with_it() {
    let door = open(None).await;
    for (path, mime) in [
        ("/ui", "text/html;charset=utf-8"),
        ("/ui/", "text/html;charset=utf-8"),
        ("/ui/style.css", "text/css;charset=utf-8"),
        ("/ui/page.js", "text/javascript;charset=utf-8"),
    ] {
        let answer = say(door.address, &request("GET", path)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
        for header in [
            &format!("Content-Type: {mime}"),
            "Content-Security-Policy: default-src 'none'",
        ] {
            assert!(answer.contains(header), "{path} lacks {header}");
        }
        let (_, empty) = say(door.address, &request("HEAD", path))
            .await
            .split_once("\r\n\r\n")
            .map(|(head, body)| (head.to_owned(), body.to_owned()))
            .unwrap();
        assert_eq!(empty, "", "{path}");
    }
    let refused = say(door.address, &request("POST", "/ui")).await;
    assert!(refused.starts_with("HTTP/1.1 501 "), "{refused}");
}

#[tokio::test]
async fn a_listener_hears_of_the_start_and_then_of_every_change() {
    let door = open(None).await;
    let mut listener = Listener::new(door.address).await;
    assert!(listener.hears("\"starting\"", 1).await);
    assert!(
        listener.heard.contains("Content-Type: text/event-stream\r\n"),
        "{}",
        listener.heard
    );
    let mut facts = facts_now();
    door.facts.send_replace(Some(std::sync::Arc::new(facts.clone())));
    assert!(listener.hears("\"explain\"", 1).await);
    facts.scope = "renamed".into();
    door.facts.send_replace(Some(std::sync::Arc::new(facts)));
    assert!(listener.hears("\"renamed\"", 1).await);
    // Without any news it is told that somebody is there.
    let before = listener.heard.matches("data: ").count();
    assert!(listener.hears("data: ", before + 2).await);
}

#[tokio::test]
async fn listeners_are_bounded_and_probes_answered_beside_them() {
    let door = open(Some(facts_now())).await;
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS {
        let mut listener = Listener::new(door.address).await;
        assert!(listener.hears("data: ", 1).await);
        listeners.push(listener);
    }
    let refused = say(door.address, &request("GET", "/ui/events")).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("Retry-After: 5\r\n"), "{refused}");
    let probe = say(door.address, &request("GET", "/primary")).await;
    assert!(probe.starts_with("HTTP/1.1 200 "), "{probe}");
    // A place is free again once somebody has gone.
    drop(listeners.pop());
    let freed = async {
        loop {
            let mut next = Listener::new(door.address).await;
            if next.hears("data: ", 1).await {
                break;
            }
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn a_closing_door_ends_the_streams() {
    let door = open(Some(facts_now())).await;
    let mut listener = Listener::new(door.address).await;
    assert!(listener.hears("data: ", 1).await);
    door.stop.send(()).unwrap();
    timeout(PATIENCE, door.handle.closed()).await.unwrap();
    assert!(!listener.hears("never said", 1).await);
    // It ended as a whole answer does, and was not cut off.
    assert!(listener.heard.ends_with("0\r\n\r\n"), "{}", listener.heard);
}
