//! What all sessions of a proxy share: terms, routes, the lease, counters, keys to cancel with, who is here.

use super::proof::Desk;
use super::session::{BackendKey, Userlist};
use super::terms::{Lease, Routes, Terms};
use crate::clock;
use crate::cluster::{Endpoint, Epoch, Moment, ProxyFacts, UNMOVED};
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Counts some.
    pub(crate) fn add(&self, some: usize) {
        self.0
            .fetch_add(u64::try_from(some).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts one, and takes it back when the answer is dropped.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of a count of those who are there.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Count);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counters of one thread, which no other thread writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    pub(crate) rw: Count,
    pub(crate) ro: Count,
    pub(crate) waiting: Count,
    pub(crate) handshakes: Count,
    pub(crate) accepted: Count,
    pub(crate) led: Count,
    pub(crate) garbage: Count,
    pub(crate) crowded: Count,
    pub(crate) unserved: Count,
    pub(crate) cut: Count,
    pub(crate) cancels: Count,
    pub(crate) moved: Count,
    /// In the order of [`UNMOVED`].
    unmoved: [Count; UNMOVED.len()],
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    /// Connections of this thread, whatever they are at.
    pub(crate) all: Count,
}

impl Counts {
    /// How many connections this thread has.
    pub(crate) fn there(&self) -> u64 {
        self.all.get()
    }

    /// A session was not taken to the next primary, for this reason.
    pub(crate) fn unmoved(&self, word: &str) {
        let place = UNMOVED.iter().position(|known| *known == word);
        if let Some(count) = place.and_then(|place| self.unmoved.get(place)) {
            count.add(1);
        }
    }
}

/// How often something is there, with an end to each.
#[derive(Debug)]
pub(crate) struct Register<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Register<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Register<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, unless there are so many already; zero is no limit.
    pub(crate) fn enter(self: &Arc<Self>, key: K, most: usize) -> Option<Entry<K>> {
        let mut all = self.lock();
        let there = all.entry(key.clone()).or_default();
        if most > 0 && *there >= most {
            return None;
        }
        *there += 1;
        drop(all);
        Some(Entry {
            register: self.clone(),
            key,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self, key: &K) -> usize {
        self.lock().get(key).copied().unwrap_or_default()
    }
}

/// One that is there, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry<K: Hash + Eq + Clone> {
    register: Arc<Register<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Drop for Entry<K> {
    fn drop(&mut self) {
        let mut all = self.register.lock();
        if let Some(there) = all.get_mut(&self.key) {
            *there -= 1;
            if *there == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// How a session is spoken to from outside.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    /// It waits for a newer lease.
    pub(crate) wants_lease: AtomicBool,
    /// A request to cancel is on its way to its server.
    cancelled: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Has the session look at routes and lease again.
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// A request to cancel goes to the session's server next.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Whether one has gone since.
    pub(crate) fn was_cancelled(&self) -> bool {
        self.cancelled.swap(false, Ordering::SeqCst)
    }

    /// Whether it was rung since; the next ring wakes this task.
    pub(crate) fn was_rung(&self, waker: &std::task::Waker) -> bool {
        self.waker.register(waker);
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::AcqRel)
    }
}

/// The lease, read by every session for every answer.
#[derive(Debug, Default)]
struct LeasePage {
    epoch: AtomicU64,
    until: AtomicU64,
}

/// Where a backend is, for the key that its client was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) server: Endpoint,
    pub(crate) key: BackendKey,
}

/// What all sessions share.
pub(crate) struct House {
    pub(crate) terms: watch::Sender<Arc<Terms>>,
    pub(crate) routes: watch::Sender<Arc<Routes>>,
    /// The proxy ends: sessions do when they are idle, all at the latest when it says `Some(true)`.
    pub(crate) stopping: watch::Sender<Option<bool>>,
    pub(crate) clients: Arc<Register<IpAddr>>,
    pub(crate) loads: Arc<Register<Endpoint>>,
    /// Where the primary is asked.
    pub(crate) desk: Desk,
    /// Passwords of users whose sessions are taken to the next primary.
    pub(crate) users: watch::Sender<Arc<Userlist>>,
    /// What an operator should read.
    pub(crate) note: watch::Sender<String>,
    counts: Vec<Arc<Counts>>,
    lease: LeasePage,
    /// The epoch whose primary's gate is open; zero while none is.
    gate: AtomicU64,
    keys: Mutex<HashMap<BackendKey, (Backend, Arc<Bell>)>>,
    bells: Mutex<HashMap<u64, Arc<Bell>>>,
    next: AtomicU64,
    /// When the daemon was heard last.
    heard_at: AtomicU64,
}

impl House {
    /// For so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            terms: watch::Sender::default(),
            routes: watch::Sender::default(),
            stopping: watch::Sender::default(),
            clients: Arc::default(),
            loads: Arc::default(),
            desk: Desk::default(),
            users: watch::Sender::default(),
            note: watch::Sender::default(),
            gate: AtomicU64::new(0),
            counts: (0..threads).map(|_| Arc::default()).collect(),
            lease: LeasePage::default(),
            keys: Mutex::default(),
            bells: Mutex::default(),
            next: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
        }
    }

    /// The counters of each thread.
    pub(crate) fn counts(&self) -> &[Arc<Counts>] {
        &self.counts
    }

    /// All counters together.
    pub(crate) fn tally(&self) -> ProxyFacts {
        let sum = |of: fn(&Counts) -> &Count| self.counts.iter().map(|counts| of(counts).get()).sum();
        let mut unmoved = [0; UNMOVED.len()];
        for counts in &self.counts {
            let all = unmoved.iter_mut().zip(&counts.unmoved);
            all.for_each(|(sum, count)| *sum += count.get());
        }
        ProxyFacts {
            rw: sum(|counts| &counts.rw),
            ro: sum(|counts| &counts.ro),
            waiting: sum(|counts| &counts.waiting),
            handshakes: sum(|counts| &counts.handshakes),
            accepted: sum(|counts| &counts.accepted),
            led: sum(|counts| &counts.led),
            garbage: sum(|counts| &counts.garbage),
            crowded: sum(|counts| &counts.crowded),
            unserved: sum(|counts| &counts.unserved),
            cut: sum(|counts| &counts.cut),
            cancels: sum(|counts| &counts.cancels),
            moved: sum(|counts| &counts.moved),
            unmoved,
            bytes_in: sum(|counts| &counts.bytes_in),
            bytes_out: sum(|counts| &counts.bytes_out),
        }
    }

    /// Takes in routes; an older epoch than the one that is known changes nothing.
    pub(crate) fn lead(&self, routes: Routes) {
        let changed = self.routes.send_if_modified(|known| {
            let news = routes.epoch >= known.epoch && **known != routes;
            if news {
                let open = routes.rw.is_some();
                self.gate
                    .store(if open { routes.epoch.0 } else { 0 }, Ordering::SeqCst);
                *known = Arc::new(routes);
            }
            news
        });
        if changed {
            self.ring(|_| true);
        }
    }

    /// The daemon spoke.
    pub(crate) fn note_heard(&self) {
        self.heard_at.store(clock::now().0, Ordering::Relaxed);
    }

    /// For how long the daemon has said nothing.
    pub(crate) fn silent_ms(&self) -> u64 {
        clock::now().since(Moment(self.heard_at.load(Ordering::Relaxed)))
    }

    /// The lease as it is known.
    pub(crate) fn lease(&self) -> Lease {
        let until = Moment(self.lease.until.load(Ordering::SeqCst));
        let epoch = Epoch(self.lease.epoch.load(Ordering::Acquire));
        Lease { epoch, until }
    }

    /// What other proxies say while the daemon is silent. They may know less of a lease, which then stands; only one
    /// without an end (a pause) makes room for theirs.
    pub(crate) fn hear_of(&self, routes: Routes, lease: Lease) {
        let known = self.lease();
        if known.epoch != lease.epoch || known.until < lease.until || known.until == Moment(u64::MAX) {
            self.extend(lease);
        }
        self.lead(routes);
    }

    /// Takes in a lease.
    pub(crate) fn extend(&self, lease: Lease) {
        let known = self.lease.epoch.load(Ordering::Acquire);
        if lease.epoch.0 < known {
            return;
        }
        if lease.epoch.0 > known {
            // Nobody may take the new deadline for the old epoch's: a reader looks at the deadline first.
            self.lease.until.store(0, Ordering::Release);
            self.lease.epoch.store(lease.epoch.0, Ordering::Release);
        }
        self.lease.until.store(lease.until.0, Ordering::SeqCst);
        self.ring(|bell| bell.wants_lease.load(Ordering::SeqCst));
    }

    /// Whether the lease of this epoch runs at this moment.
    pub(crate) fn has_lease(&self, epoch: Epoch) -> bool {
        let until = self.lease.until.load(Ordering::SeqCst);
        self.lease.epoch.load(Ordering::Acquire) == epoch.0 && clock::now() < Moment(until)
    }

    /// The proxy ends; `at_once` for those that have not finished.
    pub(crate) fn stop(&self, at_once: bool) {
        self.stopping.send_replace(Some(at_once));
        self.ring(|_| true);
    }

    fn ring(&self, whose: impl Fn(&Bell) -> bool) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells
            .values()
            .filter(|bell| whose(bell))
            .for_each(|bell| bell.ring());
    }

    /// A session begins.
    pub(crate) fn hang(self: &Arc<Self>) -> Hung {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Bell::default());
        // What has happened before it was there is looked at first.
        bell.rung.store(true, Ordering::Release);
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.insert(id, bell.clone());
        drop(bells);
        Hung {
            house: self.clone(),
            id,
            bell,
            key: None,
        }
    }

    /// Whether the gate of this epoch's primary is open.
    pub(crate) fn is_open(&self, epoch: Epoch) -> bool {
        self.gate.load(Ordering::Relaxed) == epoch.0
    }

    /// Whose key this is.
    pub(crate) fn backend(&self, key: &BackendKey) -> Option<(Backend, Arc<Bell>)> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(key).cloned()
    }
}

/// A session's place in the house, until it is dropped.
pub(crate) struct Hung {
    house: Arc<House>,
    id: u64,
    pub(crate) bell: Arc<Bell>,
    key: Option<BackendKey>,
}

impl Hung {
    /// The key that the client may cancel with has become known.
    pub(crate) fn note_key(&mut self, handed: BackendKey, backend: Backend) {
        let mut keys = self.house.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(handed.clone(), (backend, self.bell.clone()));
        self.key = Some(handed);
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let mut bells = self.house.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.remove(&self.id);
        if let Some(key) = &self.key {
            let mut keys = self.house.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_an_epochs_own_and_an_older_one_changes_nothing() {
        let house = House::new(1);
        let lease = |epoch, until| Lease {
            epoch: Epoch(epoch),
            until,
        };
        assert!(!house.has_lease(Epoch(1)));
        house.extend(lease(2, clock::now().plus(60_000)));
        assert!(house.has_lease(Epoch(2)) && !house.has_lease(Epoch(1)));
        house.extend(lease(1, clock::now().plus(60_000)));
        assert!(house.has_lease(Epoch(2)));
        house.extend(lease(3, Moment(0)));
        assert!(!house.has_lease(Epoch(2)) && !house.has_lease(Epoch(3)));
    }

    #[test]
    fn who_is_there_is_counted_until_it_goes() {
        let clients: Arc<Register<u8>> = Arc::default();
        let first = clients.enter(1, 2).unwrap();
        let second = clients.enter(1, 2);
        assert!(second.is_some() && clients.enter(1, 2).is_none());
        assert!(clients.enter(2, 2).is_some(), "another one has its own count");
        drop(first);
        assert_eq!((clients.count(&1), clients.count(&2)), (1, 0));
    }

    #[test]
    fn routes_of_an_older_epoch_change_nothing() {
        let house = Arc::new(House::new(1));
        let routes = |epoch| Routes {
            epoch: Epoch(epoch),
            ..Routes::default()
        };
        let hung = house.hang();
        let waker = std::task::Waker::noop();
        assert!(hung.bell.was_rung(waker) && !hung.bell.was_rung(waker));
        house.lead(routes(2));
        assert!(hung.bell.was_rung(waker) && !hung.bell.was_rung(waker));
        house.lead(routes(1));
        assert!(!hung.bell.was_rung(waker));
        assert_eq!(house.routes.borrow().epoch, Epoch(2));
    }
}
