//! Asking a node over REST, with a deadline.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::net::TcpStream;

/// A daemon that does not answer within this time counts as one that does not answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// Status and body of a GET, or nothing when the node does not answer.
pub async fn get(ip: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    tokio::time::timeout(DEADLINE, ask(ip, port, path))
        .await
        .ok()
        .flatten()
}

async fn ask(ip: Ipv4Addr, port: u16, path: &str) -> Option<(u16, String)> {
    let stream = TcpStream::connect((ip, port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    // The task ends with the connection, which ends with `sender`.
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, format!("{ip}:{port}"))
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}
