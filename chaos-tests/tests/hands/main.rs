//! The hands on real PostgreSQL: each test plays the node loop with one, two or three servers of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

mod connecting;
mod copies;
mod files;
mod half;
mod log_end;
mod moves;
mod site;
mod streams;
mod tls;
