//! One HTTP exchange with one node.

use super::target::Trust;
use super::tls::connector;
use axum::http::{Method, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node that cannot be reached by then is passed over.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// No document is longer.
const LONGEST: usize = 8 * 1024 * 1024;
/// Where the REST door is when the address names no port.
const DEFAULT_PORT: u16 = 8008;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    /// The verb.
    pub(super) method: Method,
    /// Such as `/config`.
    pub(super) path: &'a str,
    /// JSON, where there is something to say.
    pub(super) body: Option<&'a Value>,
    /// How long the answer may take once the question is out.
    pub(super) patience: Duration,
    /// The entity tag of what is to be changed: nothing is done if it is something else by then.
    pub(super) if_match: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// A GET.
    pub(super) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            patience: PATIENCE,
            if_match: None,
        }
    }
}

/// What a node answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The status code.
    pub(super) status: u16,
    /// The body.
    pub(super) text: String,
    /// Its entity tag.
    pub(super) tag: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Silence {
    /// The node was not reached: it has not heard the question, and another may be asked.
    NotReached(String),
    /// The question went out; whether it was heard is not known.
    Unknown(String),
}

impl Silence {
    /// The reason.
    pub(super) fn reason(self) -> String {
        match self {
            Self::NotReached(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// Asks the node at `url` (scheme and authority).
pub(super) async fn exchange(url: &str, question: &Question<'_>, trust: &Trust) -> Result<Reply, Silence> {
    let away = Silence::NotReached;
    let uri: Uri = url
        .parse()
        .map_err(|_| away("this is no address; one looks like http://host:8008".to_owned()))?;
    let tls = match uri.scheme_str() {
        Some("https") => Some(connector(trust).map_err(away)?),
        Some("http") => None,
        _ => return Err(away("only http and https are spoken".to_owned())),
    };
    let host = uri
        .host()
        .ok_or_else(|| away("the address has no host".to_owned()))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let late = || away(format!("no answer within {} s", PATIENCE.as_secs()));
    let stream = timeout(PATIENCE, TcpStream::connect((bare, port)))
        .await
        .map_err(|_| late())?
        .map_err(|error| away(error.to_string()))?;
    let request = request(question, &format!("{host}:{port}"), trust)?;
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| away(error.to_string()))?;
            let stream = timeout(PATIENCE, tls.connect(name, stream))
                .await
                .map_err(|_| late())?
                .map_err(|error| away(format!("TLS: {error}")))?;
            ask(stream, request, question.patience).await
        }
        None => ask(stream, request, question.patience).await,
    }
}

fn request(question: &Question<'_>, authority: &str, trust: &Trust) -> Result<Request<Full<Bytes>>, Silence> {
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(question.path)
        .header(header::HOST, authority);
    // Reading needs no password, so none is shown to whoever listens at that address.
    if let Some(login) = trust.login.as_ref().filter(|_| !question.method.is_safe()) {
        let pair = format!("{}:{}", login.username, login.password.reveal());
        request = request.header(
            header::AUTHORIZATION,
            format!("Basic {}", BASE64_STANDARD.encode(pair)),
        );
    }
    // What somebody has just done through another node is seen too.
    if question.method.is_safe() {
        request = request.header(header::CACHE_CONTROL, "no-cache");
    }
    if let Some(tag) = question.if_match {
        request = request.header(header::IF_MATCH, tag);
    }
    let body = match question.body {
        Some(value) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(value.to_string())
        }
        None => Bytes::new(),
    };
    request
        .body(Full::new(body))
        .map_err(|error| Silence::NotReached(error.to_string()))
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>, patience: Duration) -> Result<Reply, Silence>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = |error: hyper::Error| Silence::Unknown(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let talk = async move {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status().as_u16();
        let tag = answer.headers().get(header::ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = Limited::new(answer.into_body(), LONGEST)
            .collect()
            .await
            .map_err(|error| Silence::Unknown(error.to_string()))?;
        Ok(Reply {
            status,
            text: words(&String::from_utf8_lossy(&body.to_bytes())).to_owned(),
            tag,
        })
    };
    // The connection has to be driven while we wait for the answer; it may end first, once all is read.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let answered = async {
        tokio::select! {
            biased;
            answer = talk => answer,
            () = driven => Err(Silence::Unknown("the connection ended".to_owned())),
        }
    };
    match timeout(patience, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(Silence::Unknown(format!(
            "no answer within {} s",
            patience.as_secs()
        ))),
    }
}

/// What a body says. Of an error page, which is made for browsers, only the message is left.
fn words(body: &str) -> &str {
    let message = body.split_once("<p>Message: ");
    match message.and_then(|(_, rest)| rest.split_once("</p>")) {
        Some((message, _)) if body.starts_with("<!DOCTYPE") => message,
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_cut_to_their_message() {
        let page = "<!DOCTYPE HTML>\n<html><body><p>Error code: 501</p>\n<p>Message: Unsupported method ('POST').</p>";
        assert_eq!(words(page), "Unsupported method ('POST').");
        assert_eq!(words("<p>Message: x</p>"), "<p>Message: x</p>");
    }
}
