//! The verbs that change something: body rules, and the way to whoever carries the order out.
//!
//! ```text
//! request, admitted -> body (411, 413, 400) -> read(body) -> cluster: lead::Orders, the node that leads Raft
//!                                                         -> node:    node::NodeOrders, this node's own loop
//! ```
//!
//! What a body means is a pure function of it; what is checked against the cluster is checked where it is carried out.

use super::wire::Reply;
use crate::cluster::{Done, HandoverOrder, Order, Revision};
use crate::lead::Orders;
use crate::node::{NodeOrder, NodeOrders};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// No configuration of ours comes near this.
const BODY_BYTES: usize = 1 << 20;
/// A client has this long to send its body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Those who carry orders out. The door is open before they are there.
#[derive(Clone, Default)]
pub struct Operator(Arc<OnceLock<(Orders, NodeOrders)>>);

impl Operator {
    /// From now on orders are carried out.
    pub fn open(&self, cluster: Orders, node: NodeOrders) {
        let _ = self.0.set((cluster, node));
    }

    /// What this node knows to be agreed.
    pub(super) fn agreed(&self) -> Option<Revision> {
        Some(self.0.get()?.0.agreed())
    }

    /// The revision that holds whatever was answered before, where a leader can be asked for it.
    pub(super) async fn look(&self) -> Option<Revision> {
        self.0.get()?.0.look().await
    }
}

/// What a verb does with a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// Nothing.
    Nothing,
    /// An object, or nothing.
    Optional,
    /// An object with something in it.
    Object,
}

/// Who is asked, and for what.
#[derive(Debug, PartialEq)]
enum Asked {
    Cluster(Order),
    Node(NodeOrder),
}

type Object = Map<String, Value>;

/// One verb on one endpoint.
pub(super) struct Verb {
    method: &'static str,
    /// The endpoint.
    pub(super) segment: &'static str,
    wants: Wants,
    read: fn(&Object) -> Result<Asked, Done>,
}

const VERBS: &[Verb] = &[
    Verb {
        method: "PATCH",
        segment: "config",
        wants: Wants::Object,
        read: |body| Ok(configure(body, false)),
    },
    Verb {
        method: "PUT",
        segment: "config",
        wants: Wants::Object,
        read: |body| Ok(configure(body, true)),
    },
    Verb {
        method: "POST",
        segment: "switchover",
        wants: Wants::Object,
        read: |body| handover(body, false),
    },
    Verb {
        method: "POST",
        segment: "failover",
        wants: Wants::Object,
        read: |body| handover(body, true),
    },
    Verb {
        method: "DELETE",
        segment: "switchover",
        wants: Wants::Nothing,
        read: |_| Ok(Asked::Cluster(Order::CancelHandover)),
    },
    Verb {
        method: "POST",
        segment: "members",
        wants: Wants::Object,
        read: |body| {
            let member = named(body)?;
            Ok(Asked::Cluster(Order::Add { member }))
        },
    },
    Verb {
        method: "DELETE",
        segment: "members",
        wants: Wants::Object,
        read: |body| {
            let (member, force) = (named(body)?, is_true(body, "force"));
            Ok(Asked::Cluster(Order::Remove { member, force }))
        },
    },
    Verb {
        method: "POST",
        segment: "reload",
        wants: Wants::Nothing,
        read: |_| Ok(Asked::Node(NodeOrder::Reload)),
    },
    Verb {
        method: "POST",
        segment: "restart",
        wants: Wants::Optional,
        read: |body| Ok(Asked::Node(NodeOrder::Restart(body.clone()))),
    },
    Verb {
        method: "DELETE",
        segment: "restart",
        wants: Wants::Nothing,
        read: |_| Ok(Asked::Node(NodeOrder::CancelRestart)),
    },
    Verb {
        method: "POST",
        segment: "reinitialize",
        wants: Wants::Optional,
        read: |body| {
            Ok(Asked::Node(NodeOrder::Reinitialize {
                force: is_true(body, "force"),
                from_leader: is_true(body, "from_leader"),
            }))
        },
    },
];

fn configure(body: &Object, whole: bool) -> Asked {
    let config = Value::Object(body.clone()).to_string();
    Asked::Cluster(Order::Configure {
        config,
        whole,
        if_match: None,
    })
}

fn handover(body: &Object, failover: bool) -> Result<Asked, Done> {
    Ok(Asked::Cluster(Order::Handover(HandoverOrder {
        failover,
        leader: word(body, "leader")?,
        candidate: match word(body, "candidate")? {
            Some(name) => Some(name),
            None => word(body, "member")?,
        },
        scheduled_at: word(body, "scheduled_at")?,
        accept_data_loss: is_true(body, "accept_data_loss"),
    })))
}

/// Which member is meant.
fn named(body: &Object) -> Result<String, Done> {
    word(body, "name")?.ok_or_else(|| Done::text(400, "name is missing; it says which member is meant"))
}

/// Nothing and an empty text mean the same to people who fill in templates.
fn word(body: &Object, key: &str) -> Result<Option<String>, Done> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Done::text(400, format!("{key} must be a text, not {other}"))),
    }
}

fn is_true(body: &Object, key: &str) -> bool {
    body.get(key) == Some(&Value::Bool(true))
}

/// The verb, if it is one that changes something.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Verb> {
    let segment = super::route::segment(path);
    VERBS
        .iter()
        .find(|verb| verb.method == method.as_str() && verb.segment == segment)
}

impl Verb {
    /// Whether the order is for the node that is asked, and not for the cluster.
    pub(super) fn concerns_this_node(&self) -> bool {
        matches!(self.segment, "restart" | "reload" | "reinitialize")
    }

    /// Carries the request out, or says why not.
    pub(super) async fn run(&self, operator: &Operator, caller: IpAddr, request: Request) -> Reply {
        let (head, body) = request.into_parts();
        tracing::info!(%caller, "REST: {} {}", self.method, head.uri.path());
        let body = match self.body(&head.headers, body).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let asked = match (self.read)(&body).and_then(|asked| conditional(asked, &head.headers)) {
            Ok(asked) => asked,
            Err(done) => return Reply::done(done),
        };
        let Some((cluster, node)) = operator.0.get() else {
            return Reply::error(StatusCode::SERVICE_UNAVAILABLE, "The node is still starting");
        };
        Reply::done(match asked {
            Asked::Cluster(order) => match vetted(&order, node).await {
                None => cluster.ask(order).await,
                Some(refusal) => refusal,
            },
            Asked::Node(order) => node.ask(order).await,
        })
    }

    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Object, Reply> {
        if self.wants == Wants::Nothing {
            return Ok(Object::new());
        }
        let optional = self.wants == Wants::Optional;
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return if optional {
                Ok(Object::new())
            } else {
                Err(Reply::error(StatusCode::LENGTH_REQUIRED, "Length Required"))
            };
        };
        let length = length.to_str().ok().and_then(|text| text.parse::<usize>().ok());
        if length.is_some_and(|length| length > BODY_BYTES) {
            return Err(Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large"));
        }
        let read = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await;
        let bytes = read.ok().and_then(Result::ok).ok_or_else(bad_request)?;
        object(&bytes, optional).ok_or_else(bad_request)
    }
}

/// The order under the condition that its headers make.
fn conditional(asked: Asked, headers: &HeaderMap) -> Result<Asked, Done> {
    let Some(meant) = headers.get(header::IF_MATCH) else {
        return Ok(asked);
    };
    match asked {
        Asked::Cluster(Order::Configure { config, whole, .. }) => {
            let meant = meant
                .to_str()
                .map_err(|_| Done::text(400, "If-Match must be an ETag of GET /config"))?;
            Ok(Asked::Cluster(Order::Configure {
                config,
                whole,
                if_match: Some(meant.to_owned()),
            }))
        }
        _ => Err(Done::text(
            400,
            "If-Match is for /config only; nothing else has an ETag",
        )),
    }
}

/// What this node has against a new configuration.
async fn vetted(order: &Order, node: &NodeOrders) -> Option<Done> {
    let Order::Configure { config, whole, .. } = order else {
        return None;
    };
    let order = NodeOrder::Vet {
        config: config.clone(),
        whole: *whole,
    };
    Some(node.ask(order).await).filter(|done| done.status != 200)
}

fn object(bytes: &[u8], optional: bool) -> Option<Object> {
    if bytes.is_empty() && optional {
        return Some(Object::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) if optional || !object.is_empty() => Some(object),
        _ => None,
    }
}

fn bad_request() -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "Bad Request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str, body: &str) -> Result<Asked, Done> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let verb = find(&method, path).unwrap();
        (verb.read)(&object(body.as_bytes(), true).unwrap())
    }

    #[test]
    fn what_a_body_means() {
        let handover = |order| Ok(Asked::Cluster(Order::Handover(order)));
        let body = r#"{"leader": "a", "member": "b", "scheduled_at": "", "x": 1}"#;
        let order = HandoverOrder {
            leader: Some("a".into()),
            candidate: Some("b".into()),
            ..HandoverOrder::default()
        };
        assert_eq!(asked("POST", "/switchover", body), handover(order));
        let body = r#"{"candidate": "b", "leader": null, "accept_data_loss": true}"#;
        let order = HandoverOrder {
            failover: true,
            candidate: Some("b".into()),
            accept_data_loss: true,
            ..HandoverOrder::default()
        };
        assert_eq!(asked("POST", "/failover/x", body), handover(order));
        assert_eq!(
            asked("POST", "/failover", r#"{"candidate": 1}"#),
            Err(Done::text(400, "candidate must be a text, not 1"))
        );
        let order = Order::Configure {
            config: r#"{"ttl":21}"#.into(),
            whole: true,
            if_match: None,
        };
        assert_eq!(
            asked("PUT", "/config", r#"{"ttl": 21}"#),
            Ok(Asked::Cluster(order))
        );
        assert_eq!(asked("POST", "/reload", ""), Ok(Asked::Node(NodeOrder::Reload)));
    }

    #[test]
    fn what_is_a_body() {
        for (text, optional, required) in [
            ("", true, false),
            ("{}", true, false),
            ("{\"a\": 1}", true, true),
            ("[1]", false, false),
            ("x", false, false),
            ("{\"a\": 1} x", false, false),
        ] {
            assert_eq!(object(text.as_bytes(), true).is_some(), optional, "{text}");
            assert_eq!(object(text.as_bytes(), false).is_some(), required, "{text}");
        }
    }

    #[test]
    fn safe_verbs_change_nothing() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            for verb in VERBS {
                assert!(find(&method, verb.segment).is_none());
            }
        }
        assert!(find(&Method::DELETE, "/failover").is_none());
    }
}
