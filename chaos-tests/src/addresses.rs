//! Loopback addresses that belong to one herd alone, so that test runs may overlap.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Port on which nodes talk Raft.
pub const PEER_PORT: u16 = 12222;
/// REST port of every node.
pub const REST_PORT: u16 = 18008;
/// PostgreSQL port of every node.
pub const POSTGRES_PORT: u16 = 15432;
/// Whoever listens here on the last address of a block owns the block.
const LOCK_PORT: u16 = 12221;

/// A block `127.a.b.0/24`, held for as long as this value lives.
pub struct Addresses {
    a: u8,
    b: u8,
    _lock: TcpListener,
}

impl Addresses {
    /// Takes a block nobody uses. Binding the lock port decides between runs that choose the same one.
    pub fn take(nodes: usize) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        for _ in 0..2_000 {
            let seed = std::process::id()
                .wrapping_mul(37)
                .wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed));
            // 127.0.b.x is left to people.
            let a = u8::try_from(1 + seed / 250 % 254).unwrap();
            let b = u8::try_from(seed % 250).unwrap();
            let Ok(lock) = TcpListener::bind((Ipv4Addr::new(127, a, b, 254), LOCK_PORT)) else {
                continue;
            };
            let taken = Self { a, b, _lock: lock };
            if (0..nodes).all(|i| taken.is_free(i)) {
                return taken;
            }
        }
        panic!("no block of loopback addresses is free");
    }

    /// Address of the node with this index.
    pub fn ip(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, self.a, self.b, u8::try_from(node + 1).unwrap())
    }

    /// The block as text, for names.
    pub fn label(&self) -> String {
        format!("{}-{}", self.a, self.b)
    }

    fn is_free(&self, node: usize) -> bool {
        [PEER_PORT, REST_PORT, POSTGRES_PORT]
            .iter()
            .all(|port| TcpListener::bind((self.ip(node), *port)).is_ok())
    }
}
