//! What the daemon tells its proxy: where to listen and what to bear, where clients are led, how long a lease runs.
//!
//! A daemon is upgraded beside a running proxy, so fields may be added (with a default) and never change meaning.

use crate::cluster::{Endpoint, Epoch, Moment, ProxyFacts};
use crate::guard::door::Names;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Where it listens and what it bears: the section `proxy:` of the node file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The port of writers, `host:port`.
    pub rw: String,
    /// The port of readers, `host:port`.
    pub ro: String,
    /// How long a new connection waits for a server.
    pub hold_ms: u64,
    /// How long a client may take until it has said what it wants.
    pub handshake_ms: u64,
    /// Clients at a time.
    pub most: usize,
    /// Clients of one address at a time; zero is no limit.
    pub most_of_one: usize,
    /// Every connection begins with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Readers are led to the primary where no replica is fit.
    pub ro_on_primary: bool,
    /// As whom the proxy itself asks the primary.
    #[serde(default)]
    pub asker: Option<Asker>,
    /// The file with the passwords of users whose sessions are taken to the next primary; without it none are.
    #[serde(default)]
    pub auth_file: Option<PathBuf>,
}

/// A role that may see what standbys have.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Its name.
    pub username: String,
    /// Its password, if it needs one.
    pub password: Option<String>,
    /// A database that it may connect to.
    pub database: String,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Where clients are led.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// The newest epoch: sessions with the primary of an older one are cut.
    pub epoch: Epoch,
    /// The primary of that epoch, while its gate is open.
    pub rw: Option<Endpoint>,
    /// The replicas that are fit for readers.
    pub ro: Vec<Endpoint>,
    /// Every server there is, for requests to cancel whose backend is not known here.
    pub all: Vec<Endpoint>,
    /// Where the other nodes' proxies listen for writers.
    #[serde(default)]
    pub peers: Vec<String>,
    /// While nobody's gate is open: who is about to be the primary, and takes log-ins as a standby meanwhile.
    #[serde(default)]
    pub next: Option<Endpoint>,
    /// The primary itself, where `rw` is a pooler in front of it.
    #[serde(default)]
    pub behind: Option<Endpoint>,
}

impl Routes {
    /// Where the primary itself is asked.
    pub(crate) fn primary(&self) -> Option<&Endpoint> {
        self.behind.as_ref().or(self.rw.as_ref())
    }
}

/// How long the primary of an epoch surely is the only one, on this machine's boot-time clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The epoch.
    pub epoch: Epoch,
    /// Until when.
    pub until: Moment,
}

/// From the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Obey these from now on.
    Terms(Terms),
    /// Lead clients here from now on.
    Routes(Routes),
    /// The lease runs until then.
    Lease(Lease),
    /// Take no more clients, let those finish that do within so many milliseconds, and end.
    Stop(u64),
}

/// From the proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first line: who this is.
    Greeting {
        /// The protocol that it speaks.
        protocol: u32,
        /// Its process.
        pid: i32,
    },
    /// What it has seen so far.
    Tally(ProxyFacts),
    /// Something that an operator should read.
    Note(String),
    /// Both ports are open.
    Listening,
}

/// The protocol this program speaks.
pub(crate) const PROTOCOL: u32 = 1;
/// Where a proxy is found in the Raft data directory.
pub(crate) const NAMES: Names = Names {
    socket: c"proxy.sock",
    lock: "proxy.lock",
};
/// The longest line that is accepted.
pub(crate) const LINE_LIMIT: u64 = 1 << 20;

/// One line.
pub(crate) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads the next line. What was read of it stays in `text` when this is cancelled.
pub(crate) async fn read_line<T: DeserializeOwned>(
    reader: &mut (impl AsyncBufRead + Unpin),
    text: &mut Vec<u8>,
) -> io::Result<T> {
    let read = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let room = LINE_LIMIT.saturating_sub(read);
    reader.take(room).read_until(b'\n', text).await?;
    if text.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = serde_json::from_slice(text);
    text.clear();
    Ok(message?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_words() {
        let lease = Order::Lease(Lease {
            epoch: Epoch(3),
            until: Moment(9),
        });
        assert_eq!(line(&lease), b"{\"lease\":{\"epoch\":3,\"until\":9}}\n");
        let routes = r#"{"routes":{"epoch":2,"rw":{"host":"a","port":1},"ro":[],"all":[],"later":0}}"#;
        let Order::Routes(routes) = serde_json::from_str(routes).unwrap() else {
            panic!()
        };
        assert_eq!((routes.epoch, routes.rw.unwrap().port), (Epoch(2), 1));
        let tally: Event = serde_json::from_str(r#"{"tally":{"rw":1}}"#).unwrap();
        assert_eq!(
            tally,
            Event::Tally(ProxyFacts {
                rw: 1,
                ..ProxyFacts::default()
            })
        );
    }
}
