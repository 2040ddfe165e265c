//! The listening side: sockets, TLS, limits and the shutdown; what is answered is decided in `route`.

use super::query::Query;
use super::route::{Ask, Identity, answer};
use super::tls::{TlsError, TlsOptions, acceptor};
use super::wire::{Kind, Reply};
use crate::clock;
use crate::cluster::Facts;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// A client has this long to say what it wants.
const HEADER: Duration = Duration::from_secs(3);
/// A connection, handshake and answer included, lasts at most this long.
const CONNECTION: Duration = Duration::from_secs(60);
/// Open answers may end after the door closed.
const CLOSING: Duration = Duration::from_secs(1);
/// After a failed accept (out of file descriptors) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// The largest request head.
const HEAD_BYTES: usize = 16 * 1024;

/// What the door needs to know.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Who answers.
    pub identity: Identity,
    /// `host:port` to listen on; the host `*` or nothing means every address (`restapi.listen`).
    pub listen: String,
    /// TLS, when there is a certificate.
    pub tls: Option<TlsOptions>,
    /// Headers added to every answer that has any (`http_extra_headers`, with TLS `https_extra_headers` too).
    pub extra_headers: Vec<(String, String)>,
    /// `restapi.server_tokens`: `ProductOnly` leaves the version out of the `Server` header.
    pub server_tokens: Option<String>,
}

/// The door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be listened on.
    #[error("restapi.listen: cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A header cannot be sent.
    #[error("restapi: '{name}: {value}' is not an HTTP header")]
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// An open door.
#[derive(Debug)]
pub struct ApiHandle {
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
}

impl ApiHandle {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until the door is closed and open answers have ended; bounded once `stop` has come.
    pub async fn closed(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Opens the door: everything that can fail fails here, before anything is answered. It closes when `stop`
/// completes, or when the handle is dropped.
pub async fn serve(
    options: ApiOptions,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<ApiHandle, ApiError> {
    let tls = options.tls.as_ref().map(acceptor).transpose()?;
    let headers = headers(&options)?;
    let listeners = bind(&options.listen).await?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let state = Arc::new(Door {
        identity: options.identity,
        headers,
        facts,
    });
    let router = Router::new().fallback(respond).with_state(state);
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let (stopping, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        stop.await;
        stopping.send_replace(true);
    });
    for listener in listeners {
        let gate = Gate {
            router: router.clone(),
            tls: tls.clone(),
            limit: limit.clone(),
            stopped: stopped.clone(),
        };
        tasks.spawn(gate.accept(listener));
    }
    Ok(ApiHandle { addresses, tasks })
}

fn headers(options: &ApiOptions) -> Result<HeaderMap, ApiError> {
    let mut map = HeaderMap::new();
    let server = match options.server_tokens.as_deref() {
        Some(word) if word.eq_ignore_ascii_case("ProductOnly") => "Matriarch",
        _ => concat!("Matriarch/", env!("CARGO_PKG_VERSION")),
    };
    map.insert(header::SERVER, HeaderValue::from_static(server));
    for (name, value) in &options.extra_headers {
        let bad = || ApiError::Header {
            name: name.clone(),
            value: value.clone(),
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        map.insert(key, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(map)
}

/// Every address the name stands for; those this machine does not have are skipped while one is left.
async fn bind(listen: &str) -> Result<Vec<TcpListener>, ApiError> {
    let fail = |reason: String| ApiError::Listen {
        address: listen.to_owned(),
        reason,
    };
    let (host, port) = listen
        .rsplit_once(':')
        .ok_or_else(|| fail("host:port is needed, such as 0.0.0.0:8008".to_owned()))?;
    if matches!(host, "" | "*") {
        let bound = match TcpListener::bind(format!("[::]:{port}")).await {
            // Linux answers IPv4 on the same socket; without IPv6 there is only the other one.
            Err(e) if e.kind() != ErrorKind::AddrInUse => TcpListener::bind(format!("0.0.0.0:{port}")).await,
            both_families => both_families,
        };
        return bound
            .map(|listener| vec![listener])
            .map_err(|e| fail(e.to_string()));
    }
    let mut found: Vec<SocketAddr> = lookup_host(listen)
        .await
        .map_err(|e| fail(e.to_string()))?
        .collect();
    found.sort_unstable();
    found.dedup();
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in found {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => missing = Some(e),
            Err(e) => return Err(fail(e.to_string())),
        }
    }
    match missing {
        Some(e) if listeners.is_empty() => Err(fail(e.to_string())),
        _ if listeners.is_empty() => Err(fail("the name has no address".to_owned())),
        _ => Ok(listeners),
    }
}

/// One listener's loop.
struct Gate {
    router: Router,
    tls: Option<TlsAcceptor>,
    limit: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Gate {
    async fn accept(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        let mut stopped = self.stopped.clone();
        let stop = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await.map(drop);
        };
        let mut stop = std::pin::pin!(stop);
        loop {
            let next = async {
                let permit = self.limit.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = next => accepted,
            };
            match accepted {
                (permit, Ok((stream, peer))) => {
                    let (router, tls) = (self.router.clone(), self.tls.clone());
                    open.spawn(async move {
                        converse(stream, peer, router, tls).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    warn!(%error, "REST: cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        let _ = timeout(CLOSING, async { while open.join_next().await.is_some() {} }).await;
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, tls: Option<TlsAcceptor>) {
    let talk = async {
        match tls {
            None => exchange(stream, router).await,
            Some(tls) => match timeout(HEADER, tls.accept(stream)).await {
                Ok(Ok(stream)) => exchange(stream, router).await,
                Ok(Err(error)) => Err(format!("TLS: {error}")),
                Err(_) => Err("no TLS handshake in time".to_owned()),
            },
        }
    };
    match timeout(CONNECTION, talk).await {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => info!(%peer, "REST: connection closed: {reason}"),
        Err(_) => info!(%peer, "REST: connection closed: it lasted too long"),
    }
}

async fn exchange<S>(stream: S, router: Router) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(|error| error.to_string())
}

struct Door {
    identity: Identity,
    headers: HeaderMap,
    facts: watch::Receiver<Option<Arc<Facts>>>,
}

async fn respond(State(door): State<Arc<Door>>, request: Request) -> Response {
    let facts = door.facts.borrow().clone();
    let ask = Ask {
        method: request.method(),
        path: request.uri().path(),
        query: Query::parse(request.uri().query().unwrap_or_default()),
        now: clock::now(),
    };
    let reply = answer(&ask, &door.identity, facts.as_deref());
    packed(reply, &door.headers)
}

fn packed(reply: Reply, extra: &HeaderMap) -> Response {
    let mime = match reply.kind {
        Kind::Bare => return reply.status.into_response(),
        Kind::Json => "application/json",
        Kind::Text => "text/plain",
        Kind::Html => "text/html;charset=utf-8",
    };
    let mut response = (reply.status, [(header::CONTENT_TYPE, mime)], reply.body).into_response();
    response.headers_mut().extend(extra.clone());
    response
}
