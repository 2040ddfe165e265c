//! What daemon and guard say to each other over the socket.
//!
//! First the guard sends a greeting of fixed shape together with the lease page's descriptor; that shape never
//! changes, so that any daemon can tell which protocol any guard speaks. Then lines of JSON go both ways: a
//! daemon is upgraded under a running guard, so fields may be added (with a default) and never change meaning.

use super::door::Names;
use super::state::{Messenger, WatchdogOrder, WatchdogState};
use crate::cluster::{Epoch, Moment};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The protocol this program speaks.
pub(super) const PROTOCOL: u32 = 1;
/// What this program's guard understands, see [`Told::level`].
pub(super) const LEVEL: u32 = 2;
/// Where a guard is found in the Raft data directory.
pub(super) const NAMES: Names = Names {
    socket: c"guard.sock",
    lock: "guard.lock",
};
/// The longest line that is accepted.
pub(super) const LINE_LIMIT: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"MTRGUARD";

/// The first bytes on every connection, from the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) protocol: u32,
    pub(super) pid: i32,
}

impl Greeting {
    pub(super) const BYTES: usize = 16;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let ([m0, m1, m2, m3, m4, m5, m6, m7], [v0, v1, v2, v3], [p0, p1, p2, p3]) =
            (MAGIC, self.protocol.to_le_bytes(), self.pid.to_le_bytes());
        [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, p0, p1, p2, p3]
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (protocol, rest) = rest.split_first_chunk::<4>()?;
        let (pid, _) = rest.split_first_chunk::<4>()?;
        (*magic == MAGIC).then(|| Self {
            protocol: u32::from_le_bytes(*protocol),
            pid: i32::from_le_bytes(*pid),
        })
    }
}

/// A request of the daemon; the answer carries the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) ask: Ask,
}

/// What the daemon can ask.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Look at the lease page now.
    Look,
    /// Start a postmaster.
    Start(Launch),
    /// Send the postmaster a signal, by its number.
    Signal(i32),
    /// Kill everything of the data directory.
    KillAll,
    /// End, if nothing runs.
    Quit,
    /// What is to be done without the daemon. Only for a guard whose level is 1 or more.
    Orders(Orders),
    /// Take over a postmaster that somebody else started. Only for a guard whose level is 2 or more.
    Adopt(Adoption),
}

/// A running postmaster that is to be kept like one of the guard's own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Adoption {
    pub(super) pid: i32,
    pub(super) data_dir: PathBuf,
}

/// A start with everything looked up that only the daemon can look up without risk of waiting.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) data_dir: PathBuf,
    pub(super) identity: Option<Identity>,
    pub(super) epoch: Option<Epoch>,
}

/// Standing orders: they hold until others come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    #[serde(default)]
    pub(super) messenger: Option<Messenger>,
    #[serde(default)]
    pub(super) watchdog: Option<WatchdogOrder>,
}

/// The user a postmaster becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
}

/// What the guard says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    State(Told),
    Answer(Answer),
}

/// The answer to one request: a number, or why not.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) result: Result<i32, String>,
}

/// The guard's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) postmaster: Option<i32>,
    pub(super) exits: u64,
    /// The wait status of the last postmaster that ended.
    pub(super) last_exit: Option<i32>,
    pub(super) clean: bool,
    pub(super) fencing: bool,
    pub(super) fenced: Option<Epoch>,
    pub(super) armed: Option<(Epoch, Moment)>,
    #[serde(default)]
    pub(super) heartbeat: u64,
    /// What this guard understands beyond the protocol's first shape: 1 has standing orders, 2 adopts.
    #[serde(default)]
    pub(super) level: u32,
    #[serde(default)]
    pub(super) watchdog: WatchdogState,
}

impl Told {
    /// Whether a reader learns nothing from `new`: turns and extensions of a deadline are on the lease page.
    pub(super) fn says_the_same(&self, new: &Self) -> bool {
        let epoch = |told: &Self| told.armed.map(|(epoch, _)| epoch);
        epoch(self) == epoch(new)
            && Self {
                heartbeat: new.heartbeat,
                armed: new.armed,
                ..*self
            } == *new
    }
}

/// A wait status in words.
pub(super) fn describe_exit(status: i32) -> String {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("killed by signal {signal} ({name})"),
            Err(_) => format!("killed by signal {signal}"),
        };
    }
    format!("exited with code {}", libc::WEXITSTATUS(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_keeps_its_bytes() {
        let greeting = Greeting {
            protocol: 1,
            pid: 258,
        };
        assert_eq!(&greeting.encode(), b"MTRGUARD\x01\0\0\0\x02\x01\0\0");
        assert_eq!(Greeting::decode(&greeting.encode()), Some(greeting));
        assert_eq!(Greeting::decode(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Greeting::decode(b"MTRGUARD"), None);
    }

    #[test]
    fn lines_keep_their_words() {
        let kill = serde_json::to_string(&Request {
            id: 3,
            ask: Ask::KillAll,
        })
        .unwrap();
        assert_eq!(kill, r#"{"id":3,"ask":"kill_all"}"#);
        let state = r#"{"state":{"postmaster":7,"exits":1,"last_exit":9,"clean":false,"fencing":false,"fenced":2,"armed":[3,4000],"later":1}}"#;
        let Event::State(told) = serde_json::from_str(state).unwrap() else {
            panic!()
        };
        assert_eq!(
            (told.postmaster, told.fenced, told.armed),
            (Some(7), Some(Epoch(2)), Some((Epoch(3), Moment(4000))))
        );
        assert_eq!(describe_exit(9), "killed by signal 9 (SIGKILL)");
        assert_eq!(describe_exit(0x100), "exited with code 1");
    }
}
