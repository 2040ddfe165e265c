//! What every part of a running member shares.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use matriarch_storage::Log;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::beats::Beats;
use crate::farewell::{self, Expelled};
use crate::machine::{Inbox, Peer};
use crate::net::auth::Credentials;
use crate::net::pool::{Goodbye, Pools};
use crate::net::throttle::Throttle;
use crate::settings::Settings;
use crate::status::Status;
use crate::types::{Identity, Member, Raft, StoredMembership, metrics};
use crate::wire::message::{Acceptance, Hello, Lane};
use crate::wire::stored::FormationBytes;

/// Member names by id, as learnt from authenticated hellos.
pub(crate) type Names = Arc<Mutex<HashMap<u64, String>>>;

/// The shared half of a member; `Group` is the handle on it.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) throttle: Throttle,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) status: watch::Sender<Status>,
    /// Something that `Status` shows changed outside openraft.
    pub(crate) changed: Arc<Notify>,
    pub(crate) names: Names,
    /// All founders of the configured group, sorted.
    pub(crate) founders: Vec<String>,
    /// The incarnation this store would join with.
    pub(crate) claim: u64,
    pub(crate) raft: OnceLock<Raft>,
    pub(crate) formation: OnceLock<FormationBytes>,
    pub(crate) identity: Arc<RwLock<Identity>>,
    /// The store names this node's part in a group: it is not empty, whatever openraft knows so far.
    pub(crate) settled: AtomicBool,
    /// A reason to stop for good that openraft does not know of.
    pub(crate) fatal: Arc<OnceLock<String>>,
    /// The group's word that it has no place for this node.
    pub(crate) expelled: Arc<Expelled>,
    /// When a leader last spoke to this node and was accepted.
    heard: Mutex<Option<Instant>>,
    /// What is done regularly waits for these.
    pub(crate) beats: Arc<Beats>,
    pub(crate) store: Mutex<Option<Arc<dyn Log>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The parts of a new node.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) names: Names,
    pub(crate) founders: Vec<String>,
    pub(crate) claim: u64,
    pub(crate) identity: Arc<RwLock<Identity>>,
    pub(crate) fatal: Arc<OnceLock<String>>,
    pub(crate) expelled: Arc<Expelled>,
    pub(crate) store: Arc<dyn Log>,
    pub(crate) beats: Arc<Beats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Node {
        Node {
            settings: parts.settings,
            credentials: parts.credentials,
            pools: parts.pools,
            throttle: Throttle::default(),
            inbox: parts.inbox,
            status: watch::channel(Status::default()).0,
            changed: parts.changed,
            names: parts.names,
            founders: parts.founders,
            claim: parts.claim,
            raft: OnceLock::new(),
            formation: OnceLock::new(),
            settled: AtomicBool::new(false),
            identity: parts.identity,
            fatal: parts.fatal,
            expelled: parts.expelled,
            heard: Mutex::default(),
            beats: parts.beats,
            store: Mutex::new(Some(parts.store)),
            tasks: Mutex::default(),
        }
    }

    /// Who this node is; all zero while it does not know.
    pub(crate) fn identity(&self) -> Identity {
        *self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on this node is that id.
    pub(crate) fn assume(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        self.changed.notify_one();
    }

    /// Ends this node's part for a reason of our own.
    pub(crate) fn give_up(&self, why: String) {
        tracing::error!("{why}");
        let _ = self.fatal.set(why);
        self.changed.notify_one();
    }

    /// Runs a background task that ends with `close`.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = tokio::spawn(future);
        lock(&self.tasks).push(task.abort_handle());
        task
    }

    /// Ends every background task.
    pub(crate) fn abort_tasks(&self) {
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }

    /// The store, until `close`.
    pub(crate) fn store(&self) -> std::io::Result<Arc<dyn Log>> {
        lock(&self.store)
            .clone()
            .ok_or_else(|| std::io::Error::other("the store is closed"))
    }

    /// An accepted leader spoke, and openraft was told no earlier than at this instant.
    pub(crate) fn heard(&self, at: Instant) {
        *lock(&self.heard) = Some(at);
        self.beats.strike();
    }

    /// When a leader last spoke to this node and was accepted.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        *lock(&self.heard)
    }

    /// Remembers a proven peer's name.
    pub(crate) fn introduce(&self, peer: Peer) {
        learn(&self.names, &self.changed, peer);
    }

    /// The newest committed membership this node knows of.
    pub(crate) fn membership(&self) -> Option<Arc<StoredMembership>> {
        self.raft
            .get()
            .map(|raft| metrics(raft).committed_membership_config)
    }

    /// A member as a peer.
    pub(crate) fn peer(&self, id: u64, member: &Member) -> Peer {
        let name = match id == self.identity().id {
            true => self.settings.name.clone(),
            false => lock(&self.names).get(&id).cloned().unwrap_or_default(),
        };
        Peer {
            id,
            name,
            addr: member.addr.clone(),
        }
    }

    /// Whether a proven caller may talk to this node, and as what.
    pub(crate) fn accept(&self, hello: &Hello) -> Acceptance {
        let me = self.identity();
        if hello.foundation != 0 && me.foundation != 0 && hello.foundation != me.foundation {
            if hello.foundation > me.foundation {
                let at = hello.addr.clone();
                let newer = hello.foundation;
                let goodbye = Goodbye::GivenUp { newer, at };
                farewell::part(&self.settings, me, &self.fatal, &self.expelled, &goodbye);
                self.changed.notify_one();
            }
            return Acceptance::Foreign;
        }
        if hello.to != 0 && hello.to != me.id {
            return Acceptance::OtherId;
        }
        if !matches!(hello.lane, Lane::Message | Lane::Leisure)
            && (hello.to == 0 || hello.id == 0 || self.raft.get().is_none())
        {
            return Acceptance::NotReady;
        }
        match self.membership() {
            Some(membership) if is_replaced(&membership, hello) => Acceptance::Replaced,
            _ => Acceptance::Yes,
        }
    }
}

/// Records a name and wakes whoever shows it.
pub(crate) fn learn(names: &Names, changed: &Notify, peer: Peer) {
    if peer.id == 0 {
        return;
    }
    let mut names = lock(names);
    if names.get(&peer.id) != Some(&peer.name) {
        names.insert(peer.id, peer.name);
        changed.notify_one();
    }
}

/// An id is replaced once the membership holds a newer one of its address. A membership that merely does not know the
/// caller proves nothing: it may be ours that is old.
fn is_replaced(membership: &StoredMembership, hello: &Hello) -> bool {
    let newer =
        |id: &u64, m: &Member| m.addr == hello.addr && *id != hello.id && m.generation > hello.generation;
    hello.id != 0
        && membership.get_node(&hello.id).is_none()
        && membership.nodes().any(|(id, m)| newer(id, m))
}
