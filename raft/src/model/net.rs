//! A network that loses, delays, doubles and reorders, and cuts that may be one-way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::machine::Peer;
use crate::model::dice::Dice;
use crate::model::world::World;
use crate::net::pool::CallError;
use crate::serve::Session;
use crate::wire::envelope::open;
use crate::wire::message::{Acceptance, Hello, Lane, Request, Response};

/// How it is between the sites.
pub(crate) struct Weather {
    /// `cut[from][to]`
    pub(crate) cut: Vec<Vec<bool>>,
    /// Of a thousand messages so many are lost, so many come twice.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Longest way, ms.
    pub(crate) slow: u64,
}

impl Weather {
    pub(crate) fn fair(sites: usize) -> Weather {
        Weather {
            cut: vec![vec![false; sites]; sites],
            lost: 0,
            doubled: 0,
            slow: 2,
        }
    }

    /// After how many milliseconds each copy of a message arrives.
    fn ways(&self, dice: &mut Dice, from: usize, to: usize) -> Vec<u64> {
        if self.cut[from][to] || dice.chance(self.lost) {
            return Vec::new();
        }
        let mut ways = vec![dice.within(0, self.slow)];
        if dice.chance(self.doubled) {
            ways.push(dice.within(0, 20 * self.slow));
        }
        ways
    }
}

/// One life's way into the network, in place of its connections.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) site: usize,
    pub(crate) life: u64,
}

type Reply = oneshot::Sender<Result<Response, CallError>>;

fn not_sent(why: &str) -> CallError {
    CallError::NotSent(why.to_owned())
}

impl Wire {
    /// What `Pool::call` does over a connection.
    pub(crate) async fn carry(
        &self,
        addr: &str,
        hello: Hello,
        bytes: Vec<u8>,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let until = Instant::now() + deadline;
        let to = self.world.site_at(addr);
        let ways = match self.world.node(self.site, self.life) {
            Some(_) => self.world.weather().ways(&mut self.world.dice(), self.site, to),
            None => Vec::new(),
        };
        let (reply, answer) = oneshot::channel();
        let mut reply = Some(reply);
        // What Raft sends may come twice; a proposal over a connection cannot.
        let copies = match hello.lane {
            Lane::Message | Lane::Leisure => 1,
            _ => ways.len(),
        };
        for way in ways.into_iter().take(copies) {
            let (world, from) = (self.world.clone(), self.site);
            let (hello, bytes, reply) = (hello.clone(), bytes.clone(), reply.take());
            tokio::spawn(async move {
                sleep(Duration::from_millis(way)).await;
                arrive(&world, from, to, hello, &bytes, reply);
            });
        }
        drop(reply);
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => answer,
            _ => {
                sleep_until(until).await;
                Err(CallError::Lost(format!("no answer within {deadline:?}")))
            }
        }
    }
}

fn arrive(world: &Arc<World>, from: usize, to: usize, hello: Hello, bytes: &[u8], reply: Option<Reply>) {
    if world.weather().cut[from][to] {
        return;
    }
    let Some(node) = world.living(to) else {
        return go_back(world, to, from, reply, Err(not_sent("nobody listens there")));
    };
    if node.accept(&hello) != Acceptance::Yes {
        return go_back(world, to, from, reply, Err(not_sent("turned away")));
    }
    let peer = Peer {
        id: hello.id,
        name: hello.name,
        addr: hello.addr,
    };
    node.introduce(peer.clone());
    let request: Request = open(bytes).unwrap();
    let (world, served) = (world.clone(), node.clone());
    node.spawn(async move {
        let response = Session::new(peer).serve(&served, request, Duration::ZERO).await;
        go_back(&world, to, from, reply, Ok(response));
    });
}

fn go_back(
    world: &Arc<World>,
    from: usize,
    to: usize,
    reply: Option<Reply>,
    answer: Result<Response, CallError>,
) {
    let way = world.weather().ways(&mut world.dice(), from, to).first().copied();
    let (Some(way), Some(reply)) = (way, reply) else {
        return;
    };
    tokio::spawn(async move {
        sleep(Duration::from_millis(way)).await;
        let _ = reply.send(answer);
    });
}
