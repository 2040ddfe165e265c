//! What heartbeats alone cost on this machine: a thread that sends two every 50 ms over loopback and reads the answers, as
//! Raft's leader has to, and two threads that answer. The floor under what an idle node costs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// As long as the default of `raft.heartbeat_interval`.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// Bytes of one of Matriarch's heartbeats, and of its answer.
const QUESTION: [u8; 49] = [0; 49];
const ANSWER: [u8; 14] = [0; 14];

/// Heartbeats that are sent and answered until they are ended.
pub(crate) struct Beats {
    over: Arc<AtomicBool>,
    leader: JoinHandle<io::Result<u64>>,
    followers: Vec<JoinHandle<io::Result<u64>>>,
}

/// Processor time, nanoseconds.
pub(crate) struct Cost {
    /// Of the thread that sends two.
    pub(crate) leader_ns: u64,
    /// Of a thread that answers one.
    pub(crate) follower_ns: u64,
}

impl Beats {
    pub(crate) fn begin() -> io::Result<Beats> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let over = Arc::new(AtomicBool::new(false));
        let (mut peers, mut followers) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            peers.push(TcpStream::connect(listener.local_addr()?)?);
            let (peer, _) = listener.accept()?;
            followers.push(thread::spawn(move || follow(&peer)));
        }
        let ends = over.clone();
        Ok(Beats {
            over,
            leader: thread::spawn(move || lead(&peers, &ends)),
            followers,
        })
    }

    pub(crate) fn end(self) -> io::Result<Cost> {
        self.over.store(true, Ordering::SeqCst);
        let died = |_| io::Error::other("a thread that exchanged heartbeats died");
        let leader_ns = self.leader.join().map_err(died)??;
        let mut follower_ns = 0;
        for follower in self.followers {
            follower_ns = follower_ns.max(follower.join().map_err(died)??);
        }
        Ok(Cost {
            leader_ns,
            follower_ns,
        })
    }
}

fn lead(peers: &[TcpStream], over: &AtomicBool) -> io::Result<u64> {
    for peer in peers {
        peer.set_nodelay(true)?;
        peer.set_nonblocking(true)?;
    }
    while !over.load(Ordering::SeqCst) {
        for mut peer in peers {
            match peer.read(&mut [0; 64]) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
                _ => peer.write_all(&QUESTION)?,
            }
        }
        thread::sleep(HEARTBEAT);
    }
    used()
}

/// Until the other side closes.
fn follow(mut peer: &TcpStream) -> io::Result<u64> {
    peer.set_nodelay(true)?;
    let mut question = QUESTION;
    while peer.read_exact(&mut question).is_ok() {
        peer.write_all(&ANSWER)?;
    }
    used()
}

/// What this thread has used, nanoseconds (the first number of schedstat).
fn used() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let used = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    used.ok_or_else(|| io::Error::other(format!("no number in /proc/thread-self/schedstat: {text:?}")))
}
