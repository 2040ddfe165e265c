//! A listening socket: which addresses it takes, how connections are limited, and how each is spoken with.

use super::serve::{ApiError, Terms, Visitor};
use super::stream::Stay;
use crate::clock;
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// A client has this long to say what it wants.
const HEADER: Duration = Duration::from_secs(3);
/// A connection, handshake and answer included, lasts at most this long, unless it listens to the page's events or waits
/// for what it ordered: that has a deadline of its own.
const CONNECTION: Duration = Duration::from_secs(900);
/// Open answers may end after the door closed.
const CLOSING: Duration = Duration::from_secs(1);
/// After a failed accept (out of file descriptors) the next is tried this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest request head.
const HEAD_BYTES: usize = 16 * 1024;

/// Every address the name stands for; those this machine does not have are skipped while one is left.
pub(super) async fn bind(listen: &str) -> Result<Vec<TcpListener>, ApiError> {
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
pub(super) struct Gate {
    pub(super) router: Router,
    /// How the next connection is spoken with.
    pub(super) terms: watch::Receiver<Arc<Terms>>,
    /// Connections at one time, at all gates together.
    pub(super) limit: Arc<Semaphore>,
    /// The door closes.
    pub(super) stopped: watch::Receiver<bool>,
    /// Another gate takes over; open connections are spoken with to their end.
    pub(super) moved: watch::Receiver<bool>,
    /// Dropped once the port is free.
    pub(super) port: mpsc::Sender<()>,
}

impl Gate {
    pub(super) async fn accept(mut self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let next = async {
                let permit = self.limit.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let accepted = tokio::select! {
                biased;
                () = raised(&mut self.stopped) => break,
                () = raised(&mut self.moved) => break,
                accepted = next => accepted,
            };
            match accepted {
                (permit, Ok((stream, peer))) => {
                    let (router, terms) = (self.router.clone(), self.terms.borrow().clone());
                    open.spawn(async move {
                        converse(stream, peer, router, &terms).await;
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
        drop((listener, self.port));
        let ended = async { while open.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = async { raised(&mut self.stopped).await; sleep(CLOSING).await } => {}
        }
    }
}

async fn raised(flag: &mut watch::Receiver<bool>) {
    // A sender that is gone will not ask for anything more, and its tasks end with it.
    let _ = flag.wait_for(|raised| *raised).await.map(drop);
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, terms: &Terms) {
    let mut visitor = Visitor {
        address: peer.ip(),
        certificate: false,
    };
    let (stay, staying) = watch::channel(Stay::Brief);
    let router = router.layer(Extension(Arc::new(stay)));
    let talk = async {
        match &terms.tls {
            None => exchange(stream, router, visitor).await,
            Some(tls) => match timeout(HEADER, tls.acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    visitor.certificate = stream.get_ref().1.peer_certificates().is_some();
                    exchange(stream, router, visitor).await
                }
                Ok(Err(error)) => Err(format!("TLS: {error}")),
                Err(_) => Err("no TLS handshake in time".to_owned()),
            },
        }
    };
    let ended = tokio::select! {
        ended = talk => ended,
        () = patience(staying) => Err("it lasted too long".to_owned()),
    };
    if let Err(reason) = ended {
        info!(%peer, "REST: connection closed: {reason}");
    }
}

/// Ends when a connection must. Its own sender is kept by the answer's service, so it is there as long as the connection.
async fn patience(mut stay: watch::Receiver<Stay>) {
    let mut left = stay.clone();
    let time = async {
        sleep(CONNECTION).await;
        if stay
            .wait_for(|stay| !stay.holds())
            .await
            .is_ok_and(|stay| *stay == Stay::Answered)
        {
            sleep(CLOSING).await;
        }
    };
    let listener = async {
        let _ = left.wait_for(|stay| *stay == Stay::Over).await.map(drop);
        sleep(CLOSING).await;
    };
    tokio::select! {
        () = time => {}
        () = listener => {}
    }
}

async fn exchange<S>(stream: S, router: Router, visitor: Visitor) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let doors = TowerToHyperService::new(router.layer(Extension(visitor)));
    let answers = service_fn(|request: Request<Incoming>| {
        let is_probe = matches!(*request.method(), Method::HEAD | Method::OPTIONS);
        let answer = doors.call(request);
        async move { answer.await.map(|response| headed(response, is_probe)) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .title_case_headers(true)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answers)
        .await
        .map_err(|error| error.to_string())
}

/// HEAD and OPTIONS are answered with the status line and nothing else, as probes have known it; all else is dated.
fn headed(mut response: Response, is_probe: bool) -> Response {
    let headers = response.headers_mut();
    if is_probe {
        headers.clear();
    } else if let Some(date) = http_date(clock::wall_ms()) {
        headers.insert(header::DATE, date);
    }
    response
}

fn http_date(at_ms: u64) -> Option<HeaderValue> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    HeaderValue::from_str(&at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_http_has_them() {
        let date = http_date(1_795_228_873_370).unwrap();
        assert_eq!(date, "Sat, 21 Nov 2026 02:41:13 GMT");
    }
}
