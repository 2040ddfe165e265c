//! The REST door, in Patroni's words: load balancers, probes, dashboards and scripts that know Patroni work
//! against it unchanged.
//!
//! ```text
//! socket -> gate (limits, TLS) -> serve (access) -> operate (body) -> orders: what changes something, lead/orders.rs
//!                                                -> route (one table) -> health     200 or 503
//!                                                                     -> documents  JSON as people grep it
//!                                                                     -> metrics    Prometheus text
//!                                                                     -> explain    ours
//!                                 Facts (watch) ----------------------^
//!                                       `-> stream: the page (ui), and events for as long as it is open
//! ```
//!
//! Invariants: what a safe verb answers is a pure function of the request, one [`Facts`] and a moment; nothing
//! waits, nothing asks PostgreSQL or another node, so a probe is answered in microseconds whatever hangs behind it. Only
//! `serve` asks the time.
//!
//! Where we are stricter than Patroni on purpose: `/primary` and its aliases want the lease *and* an open gate,
//! because a load balancer must not be sent to a server that refuses. `/leader` wants the lease alone.
//!
//! Routing is Patroni's, which no path router expresses: the first segment of the path picks the endpoint;
//! whatever has none is a health probe for GET, HEAD and OPTIONS (an unknown GET path gets the status document
//! with 503, HEAD of `/cluster` too), and 501 for any other verb. Connections are closed after one answer, and none
//! but the page's stream outlasts a quarter of an hour.
//!
//! A changing verb that has a row in the table is asked for its leave (`access`) before anything of it is read.
//! Certificates, credentials and the listening address may change while the door is open ([`ApiControl`]).
//!
//! [`Facts`]: crate::cluster::Facts

mod access;
mod documents;
mod explain;
mod explain_sync;
#[cfg(test)]
pub(crate) mod fixtures;
mod gate;
mod health;
mod members;
mod metrics;
mod metrics_ours;
mod metrics_proxy;
mod operate;
mod query;
mod resolve;
mod route;
mod serve;
mod stream;
mod tls;
mod ui;
mod view;
mod wire;

pub use access::{Access, Caller, Resolved, basic};
pub use documents::{
    CONTRACT, cluster_document, config_document, history_document, starting_document, status_document,
};
pub use explain::explain_document;
pub use health::{health, liveness, readiness};
pub use metrics::metrics_text;
pub use operate::Operator;
pub use query::Query;
pub use route::{Ask, Identity, answer};
pub use serve::{ApiControl, ApiError, ApiHandle, ApiOptions, serve};
pub use tls::{TlsError, TlsOptions, VerifyClient};
pub use wire::{Kind, Reply, dumps};

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod tls_tests;
