//! The peer port: one listener, length-limited frames, mutual authentication, a connection per peer and lane.
//!
//! ```text
//! TCP (NODELAY) -> [TLS 1.3, both certificates] -> hello -> welcome -> proof -> verdict -> request, answer, request, ...
//! ```
//!
//! A connection carries one request at a time; whoever needs another opens another (`pool`). A call that is dropped
//! half-way drops its connection with it, so that no answer is ever read by the wrong question. Connecting happens in
//! a task of its own: a heartbeat whose deadline is shorter than a handshake still gets its connection in the end.
//! Answers that nobody waits for lie in the kernel until the node is awake anyway (`leisure`).

pub(crate) mod auth;
pub(crate) mod leisure;
pub(crate) mod listen;
pub(crate) mod pool;
pub(crate) mod raft;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod throttle;
pub(crate) mod tls;
