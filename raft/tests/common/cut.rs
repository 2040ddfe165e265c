//! A way to a member that can be cut: what is sent to it is lost, what it sends itself still goes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code
)]

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way; gone when dropped.
pub(crate) struct Way {
    open: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    pub(crate) async fn new(from: &str, to: &str) -> Way {
        let (open, seen) = watch::channel(true);
        let listener = TcpListener::bind(from).await.unwrap();
        let to: Arc<str> = to.into();
        let task = tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(caller, to.clone(), seen.clone()));
            }
        });
        Way { open, task }
    }

    /// Ends what is connected and lets nothing through until it is opened again.
    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
        self.set(false);
    }
}

async fn carry(mut caller: TcpStream, to: Arc<str>, mut open: watch::Receiver<bool>) {
    if !*open.borrow_and_update() {
        return;
    }
    let Ok(mut called) = TcpStream::connect(&*to).await else {
        return;
    };
    let _ = called.set_nodelay(true);
    let _ = caller.set_nodelay(true);
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut caller, &mut called) => {}
        _ = open.changed() => {}
    }
}
