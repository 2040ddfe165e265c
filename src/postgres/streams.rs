//! Streams that keep a server from ending: it has written its last record and waits for a standby that takes nothing.
//!
//! A fast stop ends when every standby that is connected has confirmed the record of the shutdown checkpoint, or its
//! connection is given up, which takes a minute. A standby that is well confirms within milliseconds; one that stands
//! still must not hold up a switchover to another one. Its stream is ended here, with the signal that ends a session:
//! what was sent to it before can still be read there.

use super::Postgres;
use super::processes::children;
use crate::cluster::Moment;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;

/// A stream whose process shows the same position for so long does not move.
const STILL_MS: u64 = 1_000;

/// The streams of a server that is going down, and since when each shows what it shows.
#[derive(Debug, Default)]
pub struct Streams(BTreeMap<i32, (String, Moment)>);

impl Streams {
    /// Takes in who streams what at this moment; answers who stands still.
    fn look(&mut self, shown: BTreeMap<i32, String>, now: Moment) -> Vec<i32> {
        let old = std::mem::take(&mut self.0);
        for (pid, title) in shown {
            let since = old.get(&pid).filter(|(before, _)| *before == title);
            let since = since.map_or(now, |(_, since)| *since);
            self.0.insert(pid, (title, since));
        }
        let still = |(_, since): &(String, Moment)| now.since(*since) >= STILL_MS;
        self.0
            .iter()
            .filter(|(_, seen)| still(seen))
            .map(|(pid, _)| *pid)
            .collect()
    }
}

impl Postgres {
    /// Ends what stands still once the last record is written, and not before; blocking, a few milliseconds.
    pub fn end_still_streams(&self, postmaster: i32, streams: &mut Streams, now: Moment) {
        let still = streams.look(walsenders(postmaster), now);
        let written = || self.control().is_ok_and(|control| control.state == "shut down");
        if still.is_empty() || !written() {
            return;
        }
        for pid in still {
            tracing::warn!(
                "a standby does not take the last of the log, its stream is ended (process {pid})"
            );
            // It may have ended by itself meanwhile, which is as well.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// The processes that send the log, with their titles.
fn walsenders(postmaster: i32) -> BTreeMap<i32, String> {
    let mut all = children(postmaster);
    all.retain(|_, title| title.starts_with("postgres: ") && title.contains("walsender "));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_moves_is_left_alone() {
        let mut streams = Streams::default();
        let mut look = |ms: u64, shown: &[(i32, &str)]| {
            let shown = shown.iter().map(|(pid, title)| (*pid, (*title).to_owned()));
            streams.look(shown.collect(), Moment(ms))
        };
        assert_eq!(look(0, &[(1, "0/1"), (2, "0/1")]), Vec::<i32>::new());
        assert_eq!(look(600, &[(1, "0/1"), (2, "0/2")]), Vec::<i32>::new());
        assert_eq!(look(1_000, &[(1, "0/1"), (2, "0/3"), (3, "0/3")]), [1]);
        assert_eq!(look(2_000, &[(2, "0/3"), (3, "0/4")]), [2]);
    }
}
