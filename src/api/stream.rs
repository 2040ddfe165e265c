//! `GET /ui/events`: what this node knows, told again and again to a bounded number of listeners.
//!
//! Each listener has a task that looks at the newest facts at most every [`PACE`] and at least every [`SIGN`], and a
//! queue of one: who reads slowly gets fewer events, not older ones. A listener that takes nothing for [`DEAF`] is
//! dropped. Nobody waits for a listener, and the places for them are few beside the connections of the door, so probes
//! are answered however many pages are open.

use super::documents::starting_document;
use super::route::Identity;
use super::ui::{self, Ui};
use crate::clock;
use crate::cluster::Facts;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

/// Listeners at one time.
pub(super) const LISTENERS: usize = 16;
/// Between two events at least.
const PACE: Duration = Duration::from_millis(250);
/// Between two events at most, so that a page can tell a quiet node from a dead one.
const SIGN: Duration = Duration::from_secs(1);
/// A listener may leave an event lying for so long.
const DEAF: Duration = Duration::from_secs(15);

/// How long a connection may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// As long as any other.
    Brief,
    /// Until its listener or the door has had enough.
    Listening,
    /// Until what was ordered is done.
    Ordering,
    /// That is done; the answer is on its way.
    Answered,
    /// Nothing more is told on it; a listener that is stuck has a moment to take what is on the way.
    Over,
}

impl Stay {
    /// Whether the connection lasts whatever the time is.
    pub(super) fn holds(self) -> bool {
        matches!(self, Self::Listening | Self::Ordering)
    }
}

/// What every stream needs.
pub(super) struct Streams {
    identity: Identity,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    stopped: watch::Receiver<bool>,
    places: Arc<Semaphore>,
}

impl Streams {
    /// They end when `stopped` says so.
    pub(super) fn new(
        identity: Identity,
        facts: watch::Receiver<Option<Arc<Facts>>>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            identity,
            facts,
            stopped,
            places: Arc::new(Semaphore::new(LISTENERS)),
        }
    }

    /// The answer, if this asks for the page or something of it. A stream stays on its connection.
    pub(super) fn page(
        &self,
        method: &Method,
        path: &str,
        stay: Arc<watch::Sender<Stay>>,
    ) -> Option<Response> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        match ui::find(path)? {
            Ui::Events if *method == Method::GET => Some(self.open(stay)),
            Ui::Events => None,
            Ui::File(mime, text) => {
                let headers = [
                    (header::CONTENT_TYPE, mime),
                    (header::CACHE_CONTROL, "no-cache"),
                    (header::CONTENT_SECURITY_POLICY, ui::POLICY),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                    (header::REFERRER_POLICY, "no-referrer"),
                ];
                Some((headers, text).into_response())
            }
        }
    }

    fn open(&self, stay: Arc<watch::Sender<Stay>>) -> Response {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let busy = [(header::RETRY_AFTER, "5")];
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                busy,
                "too many pages listen to this node\n",
            )
                .into_response();
        };
        let (events, queue) = mpsc::channel(1);
        let (facts, identity) = (self.facts.clone(), self.identity.clone());
        let mut stopped = self.stopped.clone();
        stay.send_replace(Stay::Listening);
        tokio::spawn(async move {
            tokio::select! {
                () = tell(events, facts, identity) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            stay.send_replace(Stay::Over);
            drop(place);
        });
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            // A proxy in between must not collect what is told.
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::new(Queue(queue))).into_response()
    }
}

/// Ends when the listener has gone or does not take what it is told.
async fn tell(
    events: mpsc::Sender<Bytes>,
    mut facts: watch::Receiver<Option<Arc<Facts>>>,
    identity: Identity,
) {
    loop {
        let known = facts.borrow_and_update().clone();
        let starting = starting_document(&identity.scope, &identity.name);
        let event = ui::event(known.as_deref(), &starting, clock::now());
        match timeout(DEAF, events.send(event.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        sleep(PACE).await;
        // Without news, or with nobody left to make any, the same facts are told with their new age.
        let news = async {
            if facts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(SIGN.saturating_sub(PACE), news).await;
    }
}

/// A body that ends when its queue is closed.
struct Queue(mpsc::Receiver<Bytes>);

impl HttpBody for Queue {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
