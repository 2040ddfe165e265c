//! A small HTTP client: one GET to the first node that answers.

use super::out::CliError;
use super::target::{ClusterAddress, Trust};
use super::tls::connector;
use axum::http::{StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
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

/// A node that has not answered by then is passed over.
const PATIENCE: Duration = Duration::from_secs(2);
/// No document is longer.
const LONGEST: usize = 8 * 1024 * 1024;
/// Where the REST door is when the address names no port.
const DEFAULT_PORT: u16 = 8008;

/// The nodes of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Client {
    urls: Vec<String>,
    trust: Trust,
}

/// An answer and who gave it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The document.
    pub(super) document: Value,
    /// The node's address.
    pub(super) url: String,
}

impl Client {
    /// Asks these nodes.
    pub(super) fn new(address: &ClusterAddress) -> Self {
        Self {
            urls: address.urls.clone(),
            trust: address.trust.clone(),
        }
    }

    /// Asks one more node when all others are silent.
    pub(super) fn learn(&mut self, api_url: &str) {
        let url = base(api_url);
        if !self.urls.contains(&url) {
            self.urls.push(url);
        }
    }

    /// The document of the first node that has it. That node is asked first from now on.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, CliError> {
        let mut silent = Vec::new();
        for (at, url) in self.urls.iter().enumerate() {
            match self.get_from(url, path).await {
                Ok(document) => {
                    let answer = Answer {
                        document,
                        url: url.clone(),
                    };
                    self.urls.swap(0, at);
                    return Ok(answer);
                }
                Err(reason) => silent.push(format!("{url}: {reason}")),
            }
        }
        Err(CliError::Unreachable(silent))
    }

    /// The document of that very node, or why there is none.
    pub(super) async fn get_from(&self, url: &str, path: &str) -> Result<Value, String> {
        let (status, body) = match timeout(PATIENCE, self.exchange(&base(url), path)).await {
            Ok(answered) => answered?,
            Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| "its answer is no JSON".to_owned()),
            StatusCode::SERVICE_UNAVAILABLE => Err("it is still starting".to_owned()),
            other => Err(format!("it answers {other}")),
        }
    }

    async fn exchange(&self, url: &str, path: &str) -> Result<(StatusCode, Bytes), String> {
        let uri: Uri = url
            .parse()
            .map_err(|_| "this is no address; one looks like http://host:8008".to_owned())?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(connector(&self.trust)?),
            Some("http") => None,
            _ => return Err("only http and https are spoken".to_owned()),
        };
        let host = uri.host().ok_or("the address has no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        let stream = TcpStream::connect((bare, port))
            .await
            .map_err(|error| error.to_string())?;
        let authority = format!("{host}:{port}");
        match tls {
            Some(tls) => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
                let stream = tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| format!("TLS: {error}"))?;
                ask(stream, &authority, path).await
            }
            None => ask(stream, &authority, path).await,
        }
    }
}

async fn ask<S>(stream: S, authority: &str, path: &str) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let talk = async move {
        let answer = sender.send_request(request).await.map_err(text)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    // The connection has to be driven while we wait for the answer; it may end first, once all is read.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = talk => answer,
        () = driven => Err("the connection ended".to_owned()),
    }
}

/// Scheme and authority of an address, without its path.
fn base(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.split('/').next().unwrap_or(rest)),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut() {
        assert_eq!(base("http://h:1/patroni"), "http://h:1");
        assert_eq!(base("https://[::1]:1"), "https://[::1]:1");
    }
}
