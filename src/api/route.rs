//! From a request to its answer: the table of endpoints, and what everything else gets.

use super::documents::{
    cluster_document, config_document, history_document, starting_document, status_document,
};
use super::explain::explain_document;
use super::health::{health, liveness, readiness};
use super::members::members_document;
use super::metrics::metrics_text;
use super::operate;
use super::query::Query;
use super::wire::Reply;
use crate::cluster::{Facts, Moment};
use crate::config;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};

/// What is asked.
pub struct Ask<'a> {
    /// The verb.
    pub method: &'a Method,
    /// The path without the query.
    pub path: &'a str,
    /// The query.
    pub query: Query,
    /// When.
    pub now: Moment,
}

/// Who is asked; known before there are any facts.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's name.
    pub scope: String,
    /// The node's name.
    pub name: String,
}

type Handler = fn(&Ask<'_>, &Facts) -> Reply;

/// The endpoints: verb, first segment of the path, function. The first segment alone decides, and what is
/// not here is a health probe or no method at all.
const ROUTES: &[(&str, &str, Handler)] = &[
    ("GET", "patroni", |ask, facts| {
        Reply::json(StatusCode::OK, status_document(facts, ask.now))
    }),
    ("GET", "cluster", |ask, facts| {
        Reply::json(StatusCode::OK, cluster_document(facts, ask.now))
    }),
    ("GET", "history", |_, facts| {
        Reply::json(StatusCode::OK, history_document(facts))
    }),
    ("GET", "config", |_, facts| match config_document(facts) {
        Some(body) => Reply {
            header: config_tag(facts),
            ..Reply::json(StatusCode::OK, body)
        },
        None => Reply::error(StatusCode::BAD_GATEWAY, "The cluster has no configuration yet"),
    }),
    ("GET", "failsafe", |_, _| {
        Reply::error(StatusCode::BAD_GATEWAY, "failsafe_mode is off")
    }),
    ("GET", "metrics", |ask, facts| {
        Reply::text(metrics_text(facts, ask.now))
    }),
    ("GET", "explain", |ask, facts| {
        Reply::json(StatusCode::OK, explain_document(facts, ask.now))
    }),
    ("GET", "liveness", |ask, facts| {
        Reply::bare(liveness(facts, ask.now))
    }),
    ("GET", "readiness", |ask, facts| {
        Reply::bare(readiness(&ask.query, facts, ask.now))
    }),
    ("GET", "members", |ask, facts| {
        Reply::json(StatusCode::OK, members_document(facts, ask.now))
    }),
    ("POST", "failsafe", unsupported),
];

/// The endpoint, when the request asks it to change something and so needs leave.
pub(super) fn is_guarded(method: &Method, path: &str) -> Option<&'static str> {
    if method.is_safe() {
        return None;
    }
    match operate::find(method, path) {
        Some(verb) => Some(verb.segment),
        None => row(method, path).map(|(_, segment, _)| *segment),
    }
}

/// What picks the endpoint.
pub(super) fn segment(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn row(method: &Method, path: &str) -> Option<&'static (&'static str, &'static str, Handler)> {
    let segment = segment(path);
    ROUTES
        .iter()
        .find(|(verb, name, _)| *verb == method.as_str() && *name == segment)
}

/// The answer to any request. Pure: the facts and the moment are arguments.
pub fn answer(ask: &Ask<'_>, who: &Identity, facts: Option<&Facts>) -> Reply {
    let row = row(ask.method, ask.path);
    let is_probe = matches!(*ask.method, Method::GET | Method::HEAD | Method::OPTIONS);
    match (facts, row) {
        (None, _) if is_probe => {
            let body = starting_document(&who.scope, &who.name);
            probe_reply(ask, StatusCode::SERVICE_UNAVAILABLE, || body)
        }
        (Some(facts), Some((_, _, handler))) => handler(ask, facts),
        (Some(facts), None) if is_probe => {
            let status = health(ask.path, &ask.query, facts, ask.now);
            probe_reply(ask, status, || status_document(facts, ask.now))
        }
        (None, Some(_)) => Reply::error(StatusCode::SERVICE_UNAVAILABLE, "The node is still starting"),
        (_, None) => unsupported_method(ask.method),
    }
}

/// By which `PATCH` and `PUT` can be told that they are meant for this configuration (`If-Match`).
fn config_tag(facts: &Facts) -> Option<(HeaderName, HeaderValue)> {
    let tag = HeaderValue::from_str(&config::entity_tag(&facts.state.config)).ok()?;
    Some((header::ETAG, tag))
}

/// HEAD and OPTIONS get the status alone.
fn probe_reply(ask: &Ask<'_>, status: StatusCode, body: impl FnOnce() -> String) -> Reply {
    if *ask.method == Method::GET {
        Reply::json(status, body())
    } else {
        Reply::bare(status)
    }
}

/// For the verbs whose work is not built: as if there were no such endpoint, which clients know how to read.
fn unsupported(ask: &Ask<'_>, _: &Facts) -> Reply {
    unsupported_method(ask.method)
}

fn unsupported_method(method: &Method) -> Reply {
    Reply::error(
        StatusCode::NOT_IMPLEMENTED,
        &format!("Unsupported method ('{method}')"),
    )
}
