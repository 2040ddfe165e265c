//! Proxies help each other: one whose daemon is silent asks the others what theirs say.
//!
//! Without this, sessions through a node whose daemon hangs would stand still after a ttl: nobody would tell whether the
//! primary's lease still runs. The question comes to the port of writers, where the other proxy is found anyway, and the
//! answer is no secret (`GET /cluster` says as much). It is believed only as far as it leads to servers that the own daemon
//! has named, and its lease counts from before the question was sent.

use super::house::House;
use super::preface;
use super::terms::{self, Lease, Routes, Terms};
use crate::clock;
use crate::cluster::{Endpoint, Moment};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The question in place of a protocol's version; PostgreSQL's own requests have 1234 in front.
pub(crate) const REQUEST: u32 = 0x4d54_0001;
/// A daemon renews the lease several times in this time; one that has not is silent.
const SILENT_MS: u64 = 600;
/// How often the others are asked then.
const EVERY: Duration = Duration::from_millis(200);
/// A peer that does not answer within this is away.
const DEADLINE: Duration = Duration::from_millis(500);

/// What a proxy knows.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Word {
    routes: Routes,
    /// How long the lease of that epoch runs from now on, milliseconds.
    left_ms: u64,
    /// Its own daemon speaks.
    fresh: bool,
}

/// Answers a peer.
pub(crate) async fn answer(house: &House, mut stream: TcpStream) {
    let routes = Routes::clone(&house.routes.borrow());
    let lease = house.lease();
    let left_ms = if lease.epoch == routes.epoch {
        lease.until.since(clock::now())
    } else {
        0
    };
    let word = Word {
        routes,
        left_ms,
        fresh: house.silent_ms() < SILENT_MS,
    };
    let _ = tokio::time::timeout(DEADLINE, stream.write_all(&terms::line(&word))).await;
}

/// Asks whenever the daemon is silent; never ends.
pub(crate) async fn run(house: Arc<House>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let known = house.routes.borrow().clone();
        if house.silent_ms() < SILENT_MS || known.peers.is_empty() {
            continue;
        }
        let asked_at = clock::now();
        let terms = house.terms.borrow().clone();
        let mut asked = tokio::task::JoinSet::new();
        for peer in known.peers.clone() {
            let terms = terms.clone();
            asked.spawn(async move { tokio::time::timeout(DEADLINE, ask(&peer, &terms)).await });
        }
        let mut words = Vec::new();
        while let Some(word) = asked.join_next().await {
            if let Ok(Ok(Ok(word))) = word {
                words.push(word);
            }
        }
        // The daemon may have spoken meanwhile: its word is the better one.
        if house.silent_ms() >= SILENT_MS
            && let Some((routes, lease)) = believe(&known, words, asked_at)
        {
            house.hear_of(routes, lease);
        }
    }
}

async fn ask(peer: &str, terms: &Terms) -> io::Result<Word> {
    let mut stream = TcpStream::connect(peer).await?;
    let mut request = Vec::new();
    if terms.proxy_protocol {
        request.extend_from_slice(&preface::LOCAL);
    }
    request.extend_from_slice(&8_u32.to_be_bytes());
    request.extend_from_slice(&REQUEST.to_be_bytes());
    stream.write_all(&request).await?;
    terms::read_line(&mut BufReader::new(stream), &mut Vec::new()).await
}

/// What the others' words change: the newest epoch, by preference of one that hears its daemon, and the longest lease
/// of that epoch.
fn believe(known: &Routes, words: Vec<Word>, asked_at: Moment) -> Option<(Routes, Lease)> {
    let newest = words
        .iter()
        .filter(|word| word.routes.epoch >= known.epoch)
        .max_by_key(|word| (word.routes.epoch, word.fresh))?;
    let epoch = newest.routes.epoch;
    let same = words.iter().filter(|word| word.routes.epoch == epoch);
    let left_ms = same.map(|word| word.left_ms).max().unwrap_or_default();
    let is_known = |server: &Endpoint| known.all.contains(server);
    let mut routes = known.clone();
    if epoch > known.epoch || newest.fresh {
        routes.rw = newest.routes.rw.clone().filter(is_known);
        routes.next = newest.routes.next.clone().filter(is_known);
        routes.behind = newest.routes.behind.clone().filter(is_known);
        routes.ro = newest
            .routes
            .ro
            .iter()
            .filter(|server| is_known(server))
            .cloned()
            .collect();
    }
    routes.epoch = epoch;
    let until = asked_at.plus(left_ms);
    Some((routes, Lease { epoch, until }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Epoch;

    fn at(port: u16) -> Endpoint {
        Endpoint {
            host: "h".to_owned(),
            port,
        }
    }

    fn routes(epoch: u64, rw: Option<u16>) -> Routes {
        Routes {
            epoch: Epoch(epoch),
            rw: rw.map(at),
            all: vec![at(1), at(2)],
            peers: vec!["p:1".to_owned()],
            ..Routes::default()
        }
    }

    fn word(epoch: u64, rw: u16, left_ms: u64, fresh: bool) -> Word {
        Word {
            routes: routes(epoch, Some(rw)),
            left_ms,
            fresh,
        }
    }

    #[test]
    fn the_newest_epoch_and_its_longest_lease_are_believed() {
        let known = routes(2, Some(1));
        let words = vec![
            word(2, 1, 9_000, true),
            word(3, 2, 100, false),
            word(3, 2, 800, true),
        ];
        let (found, lease) = believe(&known, words, Moment(1_000)).unwrap();
        assert_eq!((found.epoch, found.rw), (Epoch(3), Some(at(2))));
        assert_eq!((lease.epoch, lease.until), (Epoch(3), Moment(1_800)));
        assert_eq!(found.peers, known.peers);
    }

    #[test]
    fn older_words_and_unknown_servers_lead_nobody() {
        let known = routes(2, Some(1));
        assert_eq!(believe(&known, vec![word(1, 2, 500, true)], Moment(0)), None);
        assert_eq!(believe(&known, Vec::new(), Moment(0)), None);
        let (found, _) = believe(&known, vec![word(3, 9, 500, true)], Moment(0)).unwrap();
        assert_eq!(found.rw, None);
        // Another one without a daemon knows no better where the gate is open.
        let (found, lease) = believe(&known, vec![word(2, 2, 500, false)], Moment(0)).unwrap();
        assert_eq!((found.rw, lease.until), (Some(at(1)), Moment(500)));
    }
}
