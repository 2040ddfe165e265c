//! Asking a node over REST, with a deadline.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

/// A daemon that does not answer within this time counts as one that does not answer.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longer than any answer to an order may take.
const SEND_DEADLINE: Duration = Duration::from_secs(60);

/// Status and body of a GET, or nothing when the node does not answer.
pub async fn get(ip: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    tokio::time::timeout(DEADLINE, ask(ip, port, path))
        .await
        .ok()
        .flatten()
}

/// The same, and nothing older than this question, whichever node a change went through.
pub async fn latest(ip: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    let talk = exchange(ip, port, "GET", path, String::new(), Some("no-cache"));
    tokio::time::timeout(SEND_DEADLINE, talk).await.ok().flatten()
}

/// Status and body of a request that changes something, which may take its time.
pub async fn send(ip: Ipv4Addr, port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let talk = exchange(ip, port, method, path, body.to_owned(), None);
    tokio::time::timeout(SEND_DEADLINE, talk).await.ok().flatten()
}

async fn ask(ip: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    exchange(ip, port, "GET", path, String::new(), None).await
}

async fn exchange(
    ip: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    body: String,
    cache_control: Option<&str>,
) -> Option<(u16, String)> {
    let stream = TcpStream::connect((ip, port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    // The task ends with the connection, which ends with `sender`.
    tokio::spawn(connection);
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, format!("{ip}:{port}"))
        .header(hyper::header::CONNECTION, "close");
    if let Some(word) = cache_control {
        request = request.header(hyper::header::CACHE_CONTROL, word);
    }
    let request = request.body(Full::<Bytes>::from(body)).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}
