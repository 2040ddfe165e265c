//! Matriarch keeps PostgreSQL available: see README.md; this file is the map of the tree.

pub mod api;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod decide;
mod doors;
pub mod guard;
pub mod journal;
pub mod lead;
pub mod node;
pub mod notify;
pub mod postgres;
mod private_key;
pub mod proxy;
pub mod sys;
mod systemd;
mod tls_client;
mod tls_pinned;
mod tls_signatures;
pub mod vip;
