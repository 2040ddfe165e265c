//! Streaming replication: connections that hang on after a cut, records that arrive in pieces, feedback that is late.

use super::postgres::Proc;
use super::world::{Event, World};

/// `wal_retrieve_retry_interval`, microseconds.
const RETRY: u64 = 100_000;
/// TCP tries again about this often on a cut link.
const RESEND: u64 = 100_000;
/// `wal_receiver_timeout` and `wal_sender_timeout` of this world.
const TIMEOUT: u64 = 3_000_000;

/// One walsender and its walreceiver. Each end may be open without the other.
#[derive(Clone, Debug)]
pub struct Stream {
    pub from: usize,
    pub to: usize,
    /// The standby's `application_name` is its plain name.
    pub plain: bool,
    pub sent: usize,
    /// What the primary knows to be flushed.
    pub flushed: usize,
    pub sender_open: bool,
    pub receiver_open: bool,
    /// Nothing overtakes what was sent before.
    last_arrival: u64,
    last_feedback: u64,
    stalled_since: Option<u64>,
}

impl World {
    /// A standby without a stream tries to get one.
    pub fn connect(&mut self, n: usize, pm: u64) {
        let pg = &self.nodes[n].pg;
        if pg.pm != pm || pg.proc != Proc::Standby || pg.receiver.is_some() {
            return;
        }
        let Some((from, plain)) = pg.upstream else { return };
        let upstream = &self.nodes[from];
        let serves = matches!(upstream.pg.proc, Proc::Primary | Proc::Standby)
            && upstream.up
            && upstream.paused_until <= self.now;
        if from == n
            || !serves
            || !self.net.connects(n, from)
            || self.net.starved[n]
            || !upstream.pg.lets_stream(pg.end())
            || upstream.pg.timeline().0 < pg.target()
        {
            self.after(RETRY, Event::Connect(n, pm));
            return;
        }
        let same = pg.log.len() <= upstream.pg.log.len() && upstream.pg.log[..pg.log.len()] == pg.log[..];
        if !same {
            self.break_promise(format!("P3: {n} streams from {from} over another past"));
            return;
        }
        let id = self.fresh();
        let at = self.nodes[n].pg.log.len();
        self.streams.insert(
            id,
            Stream {
                from,
                to: n,
                plain,
                sent: at,
                flushed: 0,
                sender_open: true,
                receiver_open: true,
                last_arrival: self.now,
                last_feedback: self.now,
                stalled_since: None,
            },
        );
        let histories = self.nodes[from].pg.histories.clone();
        let pg = &mut self.nodes[n].pg;
        pg.histories.extend(histories);
        pg.receiver = Some(id);
        pg.received_since_start = true;
        pg.torn = 0;
        let flushed = pg.flushed;
        self.send_feedback(id, flushed);
        self.pump(from);
    }

    /// Everything flushed goes to everybody who streams.
    pub fn pump(&mut self, n: usize) {
        let upto = self.nodes[n].pg.flushed;
        let open: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.from == n && stream.sender_open && stream.sent < upto)
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let latency = self.net.latency(&mut self.dice);
            let now = self.now;
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.sent = upto;
            stream.last_arrival = stream.last_arrival.max(now + latency);
            let us = stream.last_arrival - now;
            self.after(us, Event::Wal(id, upto));
        }
    }

    pub fn wal(&mut self, id: u64, upto: usize) {
        let Some(stream) = self.streams.get(&id).cloned() else {
            return;
        };
        let (from, to) = (stream.from, stream.to);
        if !stream.receiver_open || self.nodes[to].pg.receiver != Some(id) {
            return;
        }
        if !self.net.feeds(from, to) || !stream.sender_open && !self.net.connects(from, to) {
            self.stalled(id, Event::Wal(id, upto));
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stalled_since = None;
        }
        let have = self.nodes[to].pg.log.len();
        let source = &self.nodes[from].pg.log;
        if have >= upto || source.len() < upto || source[have - 1] != self.nodes[to].pg.log[have - 1] {
            return;
        }
        // Sometimes only a piece of the last record arrives first.
        let torn = self.dice.chance(20);
        let whole = if torn { upto - 1 } else { upto };
        let records = self.nodes[from].pg.log[have..whole.max(have)].to_vec();
        let pg = &mut self.nodes[to].pg;
        pg.log.extend(records);
        pg.torn = if torn { 30 } else { 0 };
        if whole > have {
            let us = self.dice.between(300, 4_000);
            self.after(us, Event::Flushed(id, whole));
        }
        if torn {
            let us = self.dice.ms(0, 30);
            self.after(us, Event::Wal(id, upto));
        }
    }

    fn stalled(&mut self, id: u64, again: Event) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let since = *stream.stalled_since.get_or_insert(now);
        if now - since > TIMEOUT {
            self.close_receiver(id);
        } else {
            self.after(RESEND, again);
        }
    }

    pub fn stream_flushed(&mut self, id: u64, upto: usize) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let to = stream.to;
        let slow = self.nodes[to].slow_replay;
        let pg = &mut self.nodes[to].pg;
        if pg.receiver != Some(id) || pg.log.len() < upto {
            return;
        }
        pg.flushed = pg.flushed.max(upto);
        if !slow {
            pg.replayed = pg.flushed;
        }
        self.send_feedback(id, upto);
        self.pump(to);
    }

    fn send_feedback(&mut self, id: u64, upto: usize) {
        let latency = self.net.latency(&mut self.dice);
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.last_feedback = stream.last_feedback.max(now + latency);
        let us = stream.last_feedback - now;
        self.after(us, Event::Feedback(id, upto, now));
    }

    pub fn feedback(&mut self, id: u64, upto: usize, since: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.sender_open {
            return;
        }
        let (from, to) = (stream.from, stream.to);
        if !self.net.passes(to, from) {
            if self.now - since < TIMEOUT {
                self.after(RESEND, Event::Feedback(id, upto, since));
            } else {
                self.close_sender(id);
            }
            return;
        }
        stream.flushed = stream.flushed.max(upto);
        self.release(from);
    }

    /// All streams that begin or end in this server end with it; the other side notices now or much later.
    pub fn close_streams(&mut self, n: usize) {
        let of: Vec<(u64, usize)> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.from == n || stream.to == n)
            .map(|(id, stream)| (*id, stream.from))
            .collect();
        for (id, from) in of {
            if from == n {
                self.close_sender(id);
            } else {
                self.close_receiver(id);
            }
        }
    }

    pub fn close_sender(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut stream.sender_open, false) {
            return;
        }
        let stream = stream.clone();
        if stream.receiver_open {
            // What was sent before arrives before.
            let us = self
                .news_of_the_end(&stream)
                .max((stream.last_arrival + 1).saturating_sub(self.now));
            self.after(us, Event::CloseReceiver(id));
        } else {
            self.streams.remove(&id);
        }
    }

    /// What was received is flushed as the receiver ends, and replayed; nobody is told of that.
    pub fn close_receiver(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut stream.receiver_open, false) {
            return;
        }
        let stream = stream.clone();
        let slow = self.nodes[stream.to].slow_replay;
        let pg = &mut self.nodes[stream.to].pg;
        if pg.receiver == Some(id) {
            pg.receiver = None;
            if pg.proc == Proc::Standby {
                pg.flushed = pg.log.len();
                if !slow {
                    pg.replayed = pg.flushed;
                }
            }
            let pm = pg.pm;
            self.after(RETRY, Event::Connect(stream.to, pm));
        }
        if stream.sender_open {
            let us = self.news_of_the_end(&stream);
            self.after(us, Event::CloseSender(id));
        } else {
            self.streams.remove(&id);
        }
    }

    fn news_of_the_end(&mut self, stream: &Stream) -> u64 {
        if self.net.connects(stream.from, stream.to) {
            self.net.latency(&mut self.dice)
        } else {
            self.dice.between(TIMEOUT / 3, TIMEOUT)
        }
    }

    /// The standby's configuration names another upstream: the receiver ends and begins anew.
    pub fn repoint(&mut self, n: usize, upstream: Option<(usize, bool)>) {
        let pg = &mut self.nodes[n].pg;
        if pg.upstream == upstream {
            return;
        }
        pg.upstream = upstream;
        let pm = pg.pm;
        match pg.receiver {
            Some(id) => self.close_receiver(id),
            None => self.after(RETRY / 10, Event::Connect(n, pm)),
        }
    }
}
