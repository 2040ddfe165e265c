//! Clients: one goes where the gate is open, one for each node stays with it whatever happens.

use super::world::{Event, World};

/// A client that has not heard by then does not know whether it was written.
const PATIENCE: u64 = 1_000_000;

/// One client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    pub pinned: Option<usize>,
    serial: u64,
    waiting: bool,
}

impl World {
    pub fn add_clients(&mut self) {
        let pinned = (0..self.nodes.len())
            .filter(|n| !self.nodes[*n].witness)
            .map(Some);
        for pinned in std::iter::once(None).chain(pinned.collect::<Vec<_>>()) {
            let client = self.clients.len();
            self.clients.push(Client {
                pinned,
                ..Client::default()
            });
            self.soon(0, 500, Event::Client(client));
        }
    }

    pub fn client(&mut self, client: usize) {
        if self.clients[client].waiting {
            return;
        }
        let target = self.clients[client].pinned.or_else(|| self.open_gate());
        let serial = self.clients[client].serial + 1;
        self.clients[client].serial = serial;
        let there = target.filter(|n| self.nodes[*n].up && self.nodes[*n].paused_until <= self.now);
        if there.is_some_and(|n| self.write(n, Some((client, serial)))) {
            self.clients[client].waiting = true;
            self.after(PATIENCE, Event::GiveUp(client, serial));
        } else {
            self.soon(20, 60, Event::Client(client));
        }
    }

    fn open_gate(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].gate.is_some())
            .collect();
        let chosen = self.dice.below(open.len());
        open.get(chosen).copied()
    }

    pub fn answered(&mut self, client: usize, serial: u64, n: usize) {
        let asked = &mut self.clients[client];
        if asked.serial != serial || !asked.waiting {
            return;
        }
        asked.waiting = false;
        if asked.pinned.is_none() && self.nodes[n].gate.is_some() {
            self.oracle.gate_answer_at = self.now;
        }
        self.soon(20, 60, Event::Client(client));
    }

    pub fn give_up(&mut self, client: usize, serial: u64) {
        let asked = &mut self.clients[client];
        if asked.serial == serial && asked.waiting {
            asked.waiting = false;
            self.after(1_000, Event::Client(client));
        }
    }
}
