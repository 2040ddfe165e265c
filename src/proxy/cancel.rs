//! Requests to cancel: each to the server whose backend's key it shows.
//!
//! A client that asks through another node's proxy shows a key that is not known here, since keys are a proxy's own: the
//! other proxies are asked. Of a session that nobody can read the key is the server's: every server is asked, and one
//! that does not know the key ignores it.
//!
//! A request for a backend that waits for a standby is not delivered: nothing runs there that could be cancelled, and the
//! transaction is committed already.

use super::house::House;
use super::session::BackendKey;
use super::{preface, seek};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// PostgreSQL closes the connection when the signal is sent, which is at once.
const DEADLINE: Duration = Duration::from_secs(3);

/// In place of the code of a CancelRequest, from one proxy to another: it is not passed on again.
pub(crate) const PASSED_ON: u32 = 0x4d54_0002;

/// Passes it on; returns when the servers have taken it, so that a client which waits knows.
pub(crate) async fn pass_on(house: &House, key: &BackendKey) {
    if deliver_here(house, key).await {
        return;
    }
    let routes = house.routes.borrow().clone();
    let mut asked = tokio::task::JoinSet::new();
    for server in routes.all.clone() {
        let request = key.request();
        asked.spawn(async move { deliver(seek::connect(&server), &request).await });
    }
    let mut request = key.request_as(PASSED_ON);
    if house.terms.borrow().proxy_protocol {
        request.splice(..0, preface::LOCAL);
    }
    for peer in routes.peers.clone() {
        let request = request.clone();
        asked.spawn(async move { deliver(TcpStream::connect(peer), &request).await });
    }
    while asked.join_next().await.is_some() {}
}

/// Delivers it if the session is here; whether it is.
pub(crate) async fn deliver_here(house: &House, key: &BackendKey) -> bool {
    let Some((backend, bell)) = house.backend(key) else {
        return false;
    };
    // A commit that gives up waiting for its standbys would be told as a success.
    if !house.desk.waits(backend.key.pid()).await {
        bell.cancel();
        deliver(seek::connect(&backend.server), &backend.key.request()).await;
    }
    true
}

async fn deliver(connecting: impl Future<Output = io::Result<TcpStream>>, request: &[u8]) {
    let delivered = async {
        let mut stream = connecting.await?;
        stream.write_all(request).await?;
        stream.read(&mut [0; 1]).await
    };
    // Nobody is told whether it was of any use: PostgreSQL's own way.
    let _ = tokio::time::timeout(DEADLINE, delivered).await;
}
