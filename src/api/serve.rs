//! The open door: what it was told to be, who changes that while it is open, and how one request is answered.

use super::access::{Access, Caller, Resolved};
use super::gate::{Gate, bind};
use super::operate::{self, Operator, Verb};
use super::query::Query;
use super::resolve;
use super::route::{Ask, Identity, answer, is_guarded, segment};
use super::stream::{Stay, Streams};
use super::tls::{Tls, TlsError, TlsOptions, tls};
use super::wire::{Kind, Reply};
use crate::clock;
use crate::cluster::{Facts, Revision};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Connections at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// A reader who wants the latest waits so long for it, which is less than our own command waits for an answer.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What the door needs to know.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Who answers.
    pub identity: Identity,
    /// `host:port` to listen on; the host `*` or nothing means every address (`restapi.listen`).
    pub listen: String,
    /// TLS, when there is a certificate.
    pub tls: Option<TlsOptions>,
    /// What callers of unsafe verbs must show.
    pub access: Access,
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
    /// The door is not open any more.
    #[error("the REST API is closed")]
    Closed,
    /// A header cannot be sent.
    #[error("restapi: '{name}: {value}' is not an HTTP header")]
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// What holds for the next connection.
pub(super) struct Terms {
    pub(super) tls: Option<Tls>,
    pub(super) access: Arc<Access>,
    headers: HeaderMap,
}

/// Who stands before the door, as far as its connection tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    pub(super) address: IpAddr,
    /// A good certificate was shown.
    pub(super) certificate: bool,
}

/// An open door.
#[derive(Debug)]
pub struct ApiHandle {
    addresses: Vec<SocketAddr>,
    control: ApiControl,
    tasks: JoinSet<()>,
}

impl ApiHandle {
    /// Where it listened when it was opened.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What changes it while it is open.
    pub fn control(&self) -> ApiControl {
        self.control.clone()
    }

    /// Waits until the door is closed and open answers have ended; bounded once `stop` has come.
    pub async fn closed(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Changes an open door.
#[derive(Clone, Debug)]
pub struct ApiControl {
    wishes: mpsc::Sender<Wish>,
}

#[derive(Debug)]
struct Wish {
    options: ApiOptions,
    done: oneshot::Sender<Result<Vec<SocketAddr>, ApiError>>,
}

impl ApiControl {
    /// Lets the door be as `options` say, certificates read again; open connections are spoken with to their end. Answers
    /// where it listens now.
    ///
    /// # Errors
    /// What is wrong with the options; the door is as it was.
    pub async fn reload(&self, options: ApiOptions) -> Result<Vec<SocketAddr>, ApiError> {
        let (done, answered) = oneshot::channel();
        let wish = Wish { options, done };
        self.wishes.send(wish).await.map_err(|_| ApiError::Closed)?;
        answered.await.map_err(|_| ApiError::Closed)?
    }
}

/// Opens the door: everything that can fail fails here, before anything is answered. It closes when `stop`
/// completes, or when the handle is dropped.
pub async fn serve(
    options: ApiOptions,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    operator: Operator,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<ApiHandle, ApiError> {
    let (terms, terms_seen) = watch::channel(Arc::new(terms(&options)?));
    let listeners = bind(&options.listen).await?;
    let addresses = addresses(&listeners);
    let (resolved, resolved_seen) = watch::channel(Arc::default());
    let stopped = watch::channel(false).0;
    let door = Arc::new(Door {
        streams: Streams::new(options.identity.clone(), facts.clone(), stopped.subscribe()),
        identity: options.identity,
        facts: facts.clone(),
        operator,
        terms: terms_seen.clone(),
        resolved: resolved_seen,
    });
    let (wishes, wished) = mpsc::channel(1);
    let mut keeper = Keeper {
        router: Router::new().fallback(respond).with_state(door),
        terms,
        limit: Arc::new(Semaphore::new(CONNECTIONS)),
        stopped,
        moved: watch::channel(false).0,
        port: mpsc::channel(1).1,
        listen: options.listen,
        ports: Vec::new(),
        gates: JoinSet::new(),
    };
    keeper.open(listeners);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        tokio::select! {
            () = keeper.run(wished, stop) => {}
            () = resolve::keep(terms_seen, facts, resolved) => {}
        }
    });
    Ok(ApiHandle {
        addresses,
        control: ApiControl { wishes },
        tasks,
    })
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
}

fn terms(options: &ApiOptions) -> Result<Terms, ApiError> {
    Ok(Terms {
        tls: options.tls.as_ref().map(tls).transpose()?,
        access: Arc::new(options.access.clone()),
        headers: headers(options)?,
    })
}

/// Owns the sockets and the terms.
struct Keeper {
    router: Router,
    terms: watch::Sender<Arc<Terms>>,
    limit: Arc<Semaphore>,
    stopped: watch::Sender<bool>,
    /// Of the gates that are open now.
    moved: watch::Sender<bool>,
    /// Ends when their port is free.
    port: mpsc::Receiver<()>,
    listen: String,
    ports: Vec<u16>,
    gates: JoinSet<()>,
}

impl Keeper {
    fn open(&mut self, listeners: Vec<TcpListener>) {
        let (moved, moved_seen) = watch::channel(false);
        let (port, free) = mpsc::channel(1);
        self.ports = addresses(&listeners).iter().map(SocketAddr::port).collect();
        for listener in listeners {
            let gate = Gate {
                router: self.router.clone(),
                terms: self.terms.subscribe(),
                limit: self.limit.clone(),
                stopped: self.stopped.subscribe(),
                moved: moved_seen.clone(),
                port: port.clone(),
            };
            self.gates.spawn(gate.accept(listener));
        }
        // The gates that were open until now see it and leave; those that are new have their own.
        self.moved.send_replace(true);
        (self.moved, self.port) = (moved, free);
    }

    async fn run(mut self, mut wished: mpsc::Receiver<Wish>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let wish = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(wish) = wished.recv() => wish,
                Some(_) = self.gates.join_next() => continue,
            };
            // Nobody may wait for the answer any more, which is no fault.
            let _ = wish.done.send(self.change(wish.options).await);
        }
        self.stopped.send_replace(true);
        while self.gates.join_next().await.is_some() {}
    }

    async fn change(&mut self, options: ApiOptions) -> Result<Vec<SocketAddr>, ApiError> {
        let terms = terms(&options)?;
        let mut now = Vec::new();
        if options.listen != self.listen {
            let listeners = self.move_to(&options.listen).await?;
            now = addresses(&listeners);
            self.open(listeners);
            self.listen = options.listen;
            tracing::info!("restapi.listen: the REST API listens on {} now", self.listen);
        }
        let serial = |terms: &Terms| terms.tls.as_ref().map(|tls| tls.serial.clone());
        let (old, new) = (serial(&self.terms.borrow()), serial(&terms));
        if let Some(new) = new.filter(|new| Some(new) != old.as_ref()) {
            tracing::info!(
                "restapi.certfile: the certificate with the serial number {new} is shown from now on"
            );
        }
        self.terms.send_replace(Arc::new(terms));
        Ok(now)
    }

    /// Sockets at another address. Where the old ones are in the way they are closed first, and opened again if even
    /// that does not help.
    async fn move_to(&mut self, listen: &str) -> Result<Vec<TcpListener>, ApiError> {
        let in_the_way = self
            .ports
            .iter()
            .any(|port| listen.ends_with(&format!(":{port}")));
        let bound = bind(listen).await;
        if bound.is_ok() || !in_the_way {
            return bound;
        }
        self.moved.send_replace(true);
        while self.port.recv().await.is_some() {}
        let bound = bind(listen).await;
        if bound.is_err() {
            self.open(bind(&self.listen).await?);
        }
        bound
    }
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

struct Door {
    streams: Streams,
    identity: Identity,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    operator: Operator,
    terms: watch::Receiver<Arc<Terms>>,
    resolved: watch::Receiver<Arc<Resolved>>,
}

impl Door {
    /// Whether this caller may do what it asks for.
    fn admit(&self, visitor: Visitor, request: &Request, facts: Option<&Facts>) -> Result<(), Reply> {
        let Some(segment) = is_guarded(request.method(), request.uri().path()) else {
            return Ok(());
        };
        let header = request.headers().get(header::AUTHORIZATION);
        let caller = Caller {
            address: visitor.address,
            certificate: visitor.certificate,
            authorization: header.and_then(|value| value.to_str().ok()),
        };
        let access = self.terms.borrow().access.clone();
        access.check(segment, &caller, &member_hosts(facts), &self.resolved.borrow())
    }

    /// Waits until this node shows everything that was agreed before. Without a leader it shows what it knows.
    async fn catch_up(&self) {
        let shown = async {
            if let Some(revision) = self.operator.look().await {
                self.shows(revision).await;
            }
        };
        let _ = tokio::time::timeout(CATCH_UP, shown).await;
    }

    /// Waits until whoever asked this node for a change finds it here: a script asks next what has become of it.
    async fn follow_up(&self, verb: &Verb) {
        let mut facts = self.facts.clone();
        facts.mark_unchanged();
        let shown = async {
            if verb.concerns_this_node() {
                // It is shown at the next pass of its loop.
                let _ = facts.changed().await;
            }
            if let Some(revision) = self.operator.agreed() {
                self.shows(revision).await;
            }
        };
        let _ = tokio::time::timeout(CATCH_UP, shown).await;
    }

    async fn shows(&self, revision: Revision) {
        let has = |facts: &Option<Arc<Facts>>| {
            facts
                .as_ref()
                .is_some_and(|facts| facts.state.revision >= revision)
        };
        let _ = self.facts.clone().wait_for(has).await;
    }
}

/// Whether a reader accepts nothing older than its question. What a node shows otherwise may be one heartbeat old.
/// `no-cache` is HTTP's word for it (RFC 9111, section 5.2.1.4). Probes judge this node alone, and never wait.
fn wants_the_latest(request: &Request) -> bool {
    let agreed = matches!(segment(request.uri().path()), "cluster" | "config" | "history");
    let word = request.headers().get(header::CACHE_CONTROL);
    agreed && request.method().is_safe() && word.is_some_and(|word| word == "no-cache")
}

async fn respond(
    State(door): State<Arc<Door>>,
    Extension(visitor): Extension<Visitor>,
    Extension(stay): Extension<Arc<watch::Sender<Stay>>>,
    request: Request,
) -> Response {
    let waiting = stay.clone();
    if let Some(response) = door.streams.page(request.method(), request.uri().path(), stay) {
        return response;
    }
    if wants_the_latest(&request) {
        door.catch_up().await;
    }
    let facts = door.facts.borrow().clone();
    let verb = operate::find(request.method(), request.uri().path());
    let reply = match (door.admit(visitor, &request, facts.as_deref()), verb) {
        (Err(refusal), _) => refusal,
        (Ok(()), Some(verb)) => {
            waiting.send_replace(Stay::Ordering);
            let reply = verb.run(&door.operator, visitor.address, request).await;
            if reply.status.is_success() {
                door.follow_up(verb).await;
            }
            waiting.send_replace(Stay::Answered);
            reply
        }
        (Ok(()), None) => {
            let ask = Ask {
                method: request.method(),
                path: request.uri().path(),
                query: Query::parse(request.uri().query().unwrap_or_default()),
                now: clock::now(),
            };
            answer(&ask, &door.identity, facts.as_deref())
        }
    };
    packed(reply, &door.terms.borrow().headers)
}

/// The hosts of the members' REST doors.
pub(super) fn member_hosts(facts: Option<&Facts>) -> Vec<String> {
    let members = facts.iter().flat_map(|facts| facts.state.members.iter());
    let urls = members.filter_map(|(_, member)| member.info.api_url.parse::<Uri>().ok());
    urls.filter_map(|url| url.host().map(str::to_owned)).collect()
}

fn packed(reply: Reply, extra: &HeaderMap) -> Response {
    let mime = match reply.kind {
        Kind::Bare => return reply.status.into_response(),
        Kind::Json => "application/json",
        Kind::Text => "text/plain",
        Kind::Said => "text/html",
        Kind::Html => "text/html;charset=utf-8",
    };
    let mut response = (reply.status, [(header::CONTENT_TYPE, mime)], reply.body).into_response();
    response.headers_mut().extend(extra.clone());
    if let Some((name, value)) = reply.header {
        response.headers_mut().insert(name, value);
    }
    response
}
