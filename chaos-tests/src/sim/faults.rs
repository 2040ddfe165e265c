//! What breaks, for how long, and how it is mended.

use super::Flaw;
use super::node::{Health, Mind, Node};
use super::server::Life;
use super::world::{Event, FAULTS, Fault, World};
use matriarch::cluster::Epoch;

impl World {
    pub(super) fn fault(&mut self) {
        if self.now > self.plan.faults_ms {
            return;
        }
        let pause = self.dice.between(200, 4_000);
        self.after(pause, Event::Fault);
        let mut node = self.dice.node(3);
        if self.dice.chance(500)
            && let Some(primary) = (0..3).find(|node| self.nodes[*node].server.is_writable())
        {
            node = primary;
        }
        let fault = FAULTS[usize::try_from(self.dice.below(FAULTS.len() as u64)).unwrap_or(0)];
        let lasts = self.dice.between(100, 7_000);
        match fault {
            Fault::DaemonDead
                if self.nodes[node].machine == Health::Well && self.nodes[node].guard == Health::Well =>
            {
                self.nodes[node].daemon = Health::Dead;
                self.forget(node);
            }
            Fault::DaemonFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].daemon = Health::Frozen;
            }
            Fault::GuardFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].guard = Health::Frozen;
            }
            Fault::GuardDead => self.nodes[node].server.end(None),
            Fault::Postmaster => {
                let longest = if self.plan.has(Flaw::OrphansAreNotReaped) {
                    1_500
                } else {
                    60
                };
                let until = self.now + self.dice.between(5, longest);
                if self.nodes[node].server.life == Life::Up {
                    self.nodes[node].server.end(Some(until));
                }
            }
            Fault::MachineDead => self.crash(node),
            Fault::MachineFrozen if self.nodes[node].acts() && self.nodes[node].guard == Health::Well => {
                self.nodes[node].machine = Health::Frozen
            }
            Fault::CutOff => {
                for other in (0..3).filter(|other| *other != node) {
                    self.links[node][other] = false;
                    self.links[other][node] = false;
                }
            }
            Fault::Deaf => (0..3)
                .filter(|other| *other != node)
                .for_each(|other| self.links[other][node] = false),
            Fault::Mute => (0..3)
                .filter(|other| *other != node)
                .for_each(|other| self.links[node][other] = false),
            Fault::Lossy => self.lossy = true,
            Fault::AllDead if self.dice.chance(300) => (0..3).for_each(|node| self.crash(node)),
            Fault::StandbyCut => self.stream_cut = Some(node),
            Fault::OneLink => {
                let other = (node + 1) % 3;
                self.links[node][other] = false;
                self.links[other][node] = false;
            }
            _ => return,
        }
        self.say(|| format!("n{node}: {fault:?} for {lasts} ms"));
        self.after(lasts, Event::Mend(node, fault));
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].machine = Health::Dead;
        self.nodes[node].server.end(None);
        self.nodes[node].armed = None;
        self.forget(node);
    }

    /// The daemon's memory is gone; so is what a proposal of it had begun.
    pub(super) fn forget(&mut self, node: usize) {
        let run = self.dice.below(u64::MAX);
        self.nodes[node].mind = Mind::new(run);
        self.raft.voters[node].applied = 0;
        self.raft.voters[node].leads = None;
        self.raft.voters[node].heard_at = self.now;
        if self.plan.has(Flaw::PromiseIsForgotten) {
            self.nodes[node].ledger.promised = Epoch(0);
        }
    }

    pub(super) fn mend(&mut self, node: usize, fault: Fault) {
        let restart = |here: &mut Node| {
            if here.machine == Health::Dead {
                here.machine = Health::Well;
            }
            if here.daemon == Health::Dead || here.server.life != Life::Up {
                here.take_over();
            }
            here.daemon = Health::Well;
            here.guard = Health::Well;
        };
        match fault {
            Fault::AllDead => self.nodes.iter_mut().for_each(restart),
            Fault::DaemonDead | Fault::MachineDead => restart(&mut self.nodes[node]),
            Fault::DaemonFrozen if self.nodes[node].daemon == Health::Frozen => {
                self.nodes[node].daemon = Health::Well;
            }
            Fault::GuardFrozen if self.nodes[node].guard == Health::Frozen => {
                self.nodes[node].guard = Health::Well
            }
            Fault::MachineFrozen if self.nodes[node].machine == Health::Frozen => {
                self.nodes[node].machine = Health::Well;
                // The guard runs with real-time priority: it looks first.
                self.guard_now(node);
            }
            Fault::CutOff | Fault::Deaf | Fault::Mute | Fault::OneLink => self.links = [[true; 3]; 3],
            Fault::Lossy => self.lossy = false,
            Fault::StandbyCut => self.stream_cut = None,
            _ => {}
        }
    }

    pub(super) fn guard_now(&mut self, node: usize) {
        let serial = self.serial;
        self.guard_tick(node);
        // It has its own turn already; this one was out of turn.
        self.events
            .retain(|number, event| *number <= serial || !matches!(event, Event::Guard(of) if *of == node));
    }

    pub(super) fn heal(&mut self) {
        self.say(|| "all faults are over".to_owned());
        self.links = [[true; 3]; 3];
        self.lossy = false;
        self.stream_cut = None;
        if self.plan.one_way_for_ever {
            self.links[0][1] = false;
        }
        for node in 0..3 {
            for fault in FAULTS {
                let links = self.links;
                self.mend(node, fault);
                self.links = links;
            }
        }
    }
}
