//! The network: every directed link may be cut, lose, delay, double and so reorder what goes over it.

use super::random::Dice;

/// How bad the weather is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub twice: u64,
    /// Chance of a delay of up to `slow_ms`.
    pub slow: u64,
    pub slow_ms: u64,
}

/// All links.
#[derive(Clone, Debug)]
pub struct Net {
    nodes: usize,
    cut: Vec<bool>,
    pub weather: Weather,
    /// Members that Raft's appends do not reach, while everything else does.
    pub raft_deaf: Vec<bool>,
    /// The bad weather spares Raft.
    pub raft_calm: bool,
    /// Standbys that no WAL reaches.
    pub starved: Vec<bool>,
    /// A cut that is never healed.
    pub for_ever: Option<(usize, usize)>,
    pub traps: Traps,
}

/// Faults that wait for their moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traps {
    pub promise: bool,
    pub promotion: bool,
    pub epoch: bool,
}

impl Net {
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            cut: vec![false; nodes * nodes],
            weather: Weather::default(),
            raft_deaf: vec![false; nodes],
            raft_calm: false,
            starved: vec![false; nodes],
            for_ever: None,
            traps: Traps::default(),
        }
    }

    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut && from != to;
    }

    pub fn isolate(&mut self, node: usize, cut: bool) {
        for other in 0..self.nodes {
            self.cut(node, other, cut);
            self.cut(other, node, cut);
        }
    }

    pub fn heal(&mut self) {
        self.cut.fill(false);
        self.raft_deaf.fill(false);
        self.starved.fill(false);
        self.traps = Traps::default();
    }

    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut[from * self.nodes + to]
    }

    /// A connection needs both ways.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// WAL goes from here to there.
    pub fn feeds(&self, from: usize, to: usize) -> bool {
        self.passes(from, to) && !self.starved[to]
    }

    /// When a message arrives, microseconds from now: not at all, once or twice.
    pub fn travel(&self, from: usize, to: usize, raft: bool, dice: &mut Dice) -> Vec<u64> {
        if from == to {
            return vec![50];
        }
        if raft && self.raft_calm && self.passes(from, to) {
            return vec![dice.between(150, 800)];
        }
        if !self.passes(from, to) || dice.chance(self.weather.loss) {
            return Vec::new();
        }
        let copies = 1 + u64::from(dice.chance(self.weather.twice));
        (0..copies).map(|_| self.latency(dice)).collect()
    }

    pub fn latency(&self, dice: &mut Dice) -> u64 {
        let slow = if dice.chance(self.weather.slow) {
            self.weather.slow_ms
        } else {
            0
        };
        dice.between(150, 800) + if slow > 0 { dice.ms(0, slow) } else { 0 }
    }
}
