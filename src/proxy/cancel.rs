//! Requests to cancel: each to the server whose backend's key it shows.
//!
//! A client that asks through another node's proxy, or whose session nobody can read, shows a key that is not known
//! here. Then every server is asked: one that does not know the key ignores it.

use super::house::House;
use super::seek;
use super::session::BackendKey;
use crate::cluster::Endpoint;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// PostgreSQL closes the connection when the signal is sent, which is at once.
const DEADLINE: Duration = Duration::from_secs(3);

/// Passes it on; returns when the servers have taken it, so that a client which waits knows.
pub(crate) async fn pass_on(house: &House, key: &BackendKey) {
    if let Some(backend) = house.backend(key) {
        deliver(&backend.server, &backend.key).await;
        return;
    }
    let all = house.routes.borrow().all.clone();
    let mut asked = tokio::task::JoinSet::new();
    for server in all {
        let key = key.clone();
        asked.spawn(async move { deliver(&server, &key).await });
    }
    while asked.join_next().await.is_some() {}
}

async fn deliver(server: &Endpoint, key: &BackendKey) {
    let delivered = async {
        let mut stream = seek::connect(server).await?;
        stream.write_all(&key.request()).await?;
        stream.read(&mut [0; 1]).await
    };
    // Nobody is told whether it was of any use: PostgreSQL's own way.
    let _ = tokio::time::timeout(DEADLINE, delivered).await;
}
