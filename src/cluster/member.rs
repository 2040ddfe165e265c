//! What the cluster knows of a member by agreement: who it is, where it is, and whether it may be promoted.

use super::ids::{Incarnation, MemberName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a PostgreSQL listens for the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A member's `tags:`, with Patroni's meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Never promote this member.
    pub nofailover: bool,
    /// At equal positions the higher number is promoted; zero or less means `nofailover`.
    pub failover_priority: i64,
    /// `/replica` answers 503.
    pub noloadbalance: bool,
    /// Preferred source of a base backup.
    pub clonefrom: bool,
    /// Never a synchronous standby.
    pub nosync: bool,
    /// The higher number is the synchronous standby first; zero or less means `nosync`.
    pub sync_priority: i64,
    /// The effective tags as the JSON object that the API shows, in the order of the file.
    pub shown: String,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            nofailover: false,
            failover_priority: 1,
            noloadbalance: false,
            clonefrom: false,
            nosync: false,
            sync_priority: 1,
            shown: "{}".to_owned(),
        }
    }
}

/// Whether a member may be promoted, agreed so that a cold start remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fitness {
    /// It followed the primary when last seen.
    Fit,
    /// It must not be promoted, for this reason.
    Unfit(String),
}

/// What a member says of itself when it joins, and again when any of it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Unique name.
    pub name: MemberName,
    /// Its id in the Raft group; new after its Raft directory was lost.
    pub raft_id: u64,
    /// Its peer address, `host:port`.
    pub raft_addr: String,
    /// Its REST address with scheme and the path `/patroni`, as peers and load balancers use it.
    pub api_url: String,
    /// Where its PostgreSQL listens; `None` for a witness.
    pub postgres: Option<Endpoint>,
    /// Its tags.
    pub tags: Tags,
    /// Which copy of the data it holds; `None` before the first.
    pub incarnation: Option<Incarnation>,
    /// Highest command level its program understands; see `command.rs`.
    pub level: u16,
    /// Where a connection pooler beside its PostgreSQL listens, for clients; `None` without one.
    pub pooler: Option<Box<Endpoint>>,
}

impl MemberInfo {
    /// Where clients' sessions with its PostgreSQL are led.
    pub fn door(&self) -> Option<&Endpoint> {
        self.pooler.as_deref().or(self.postgres.as_ref())
    }
}

/// A member as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it said of itself.
    pub info: MemberInfo,
    /// Whether it may be promoted.
    pub fitness: Fitness,
}

impl Member {
    /// A witness votes and holds no data.
    pub fn is_witness(&self) -> bool {
        self.info.postgres.is_none()
    }
}
