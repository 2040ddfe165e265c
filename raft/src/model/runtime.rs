//! openraft's runtime in the model: tokio, with drawn numbers and the order of waking under a seed's rule.
//!
//! tokio's watch channel wakes its receivers in a random order, which only an unstable feature can seed. So here every
//! receiver has a bell of its own, and the bells ring in the order in which the receivers were made.

#![allow(deprecated)]

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::TokioRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::watch::{RecvError, SendError};
use openraft_rt::{AsyncRuntime, OptionalSend, OptionalSync, Watch, WatchReceiver, WatchSender};
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::{Notify, watch};

type Inner = DeterministicRng<TokioRuntime>;

/// The runtime.
#[derive(Debug)]
pub(crate) struct Runtime;

impl Runtime {
    /// Runs a future and what it spawns with waits drawn from this seed.
    pub(crate) fn scope<F: Future>(seed: u64, future: F) -> impl Future<Output = F::Output> {
        Inner::scope(seed, future)
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Inner as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Inner as AsyncRuntime>::Sleep;
    type Instant = <Inner as AsyncRuntime>::Instant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Inner as AsyncRuntime>::Mpsc;
    type Watch = Bells;
    type Oneshot = <Inner as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Inner::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Inner::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Inner::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Inner::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Inner::thread_rng()
    }

    fn new(_threads: usize) -> Self {
        Runtime
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        Inner::new(1).block_on(future)
    }

    /// At once: what waits for another thread cannot be replayed.
    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(work())
    }
}

/// The watch channel.
pub(crate) struct Bells;

/// Those to wake, oldest first.
type Waiting = Arc<Mutex<Vec<Weak<Notify>>>>;

fn ring(waiting: &Waiting) {
    let mut bells = waiting.lock().unwrap();
    bells.retain(|bell| {
        bell.upgrade().is_some_and(|bell| {
            bell.notify_one();
            true
        })
    });
}

fn receiver<T>(inner: watch::Receiver<T>, waiting: &Waiting) -> Receiver<T> {
    let bell = Arc::new(Notify::new());
    waiting.lock().unwrap().push(Arc::downgrade(&bell));
    Receiver {
        inner,
        bell,
        waiting: waiting.clone(),
    }
}

pub(crate) struct Sender<T> {
    inner: Option<watch::Sender<T>>,
    waiting: Waiting,
}

pub(crate) struct Receiver<T> {
    inner: watch::Receiver<T>,
    bell: Arc<Notify>,
    waiting: Waiting,
}

impl<T> Sender<T> {
    fn inner(&self) -> &watch::Sender<T> {
        self.inner.as_ref().unwrap()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // First the sender: whoever is woken must see that it is gone.
        self.inner = None;
        ring(&self.waiting);
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender {
            inner: self.inner.clone(),
            waiting: self.waiting.clone(),
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        receiver(self.inner.clone(), &self.waiting)
    }
}

impl Watch for Bells {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, inner) = watch::channel(init);
        let waiting = Waiting::default();
        let receiver = receiver(inner, &waiting);
        let inner = Some(sender);
        (Sender { inner, waiting }, receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Bells, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.inner().send(value).map_err(|e| SendError(e.0));
        ring(&self.waiting);
        sent
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.inner().send_if_modified(modify);
        if modified {
            ring(&self.waiting);
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner().borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        receiver(self.inner().subscribe(), &self.waiting)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Bells, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let bell = self.bell.clone();
            if self.inner.has_changed().map_err(|_| RecvError(()))? {
                self.inner.mark_unchanged();
                return Ok(());
            }
            bell.notified().await;
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.inner.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.inner.borrow_and_update()
    }
}
