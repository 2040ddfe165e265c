//! Takes a session that rests to the next primary: waits for it, connects, logs in, says what was said before.

use super::house::{Entry, House};
use super::seek;
use super::session::{Landed, Login, LoginError, Replay, Step};
use crate::cluster::{Endpoint, Epoch};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that ends a session for another reason than that it ceases to be the primary is known by this: so long after
/// that, it still is.
const GRACE: Duration = Duration::from_millis(1_500);
/// Between two attempts at a primary that is not quite there.
const PAUSE: Duration = Duration::from_millis(20);
/// One log-in.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A session that is somewhere else now.
pub(crate) struct Moved {
    pub(crate) stream: TcpStream,
    pub(crate) endpoint: Endpoint,
    pub(crate) epoch: Epoch,
    pub(crate) landed: Landed,
    pub(crate) load: Entry<Endpoint>,
}

/// Goes to the primary that follows the one of this epoch; `None` if there is none in time, or it does not let the session in.
pub(crate) async fn move_on(house: Arc<House>, epoch: Epoch, replay: Replay) -> Option<Moved> {
    let hold = Duration::from_millis(house.terms.borrow().hold_ms);
    tokio::time::timeout(hold, follow(&house, epoch, &replay))
        .await
        .ok()?
}

async fn follow(house: &Arc<House>, epoch: Epoch, replay: &Replay) -> Option<Moved> {
    let mut routes = house.routes.subscribe();
    // The same primary may come back after a pause; one that never was away wanted to be rid of this session.
    let is_another = |routes: &super::terms::Routes| routes.epoch != epoch || routes.rw.is_none();
    tokio::time::timeout(GRACE, routes.wait_for(|routes| is_another(routes)))
        .await
        .ok()?
        .ok()?;
    loop {
        let now = routes.wait_for(|routes| routes.rw.is_some()).await.ok()?.clone();
        let endpoint = now.rw.clone()?;
        match tokio::time::timeout(ATTEMPT, enter(house, &endpoint, replay)).await {
            Ok(Ok((stream, landed, load))) => {
                return Some(Moved {
                    stream,
                    endpoint,
                    epoch: now.epoch,
                    landed,
                    load,
                });
            }
            Ok(Err(Some(why))) if !why.may_pass() => {
                let user = replay.user().unwrap_or_default();
                let note = format!(
                    "proxy.auth_file: a session of {user} could not be taken to the new primary: {why}"
                );
                house
                    .note
                    .send_if_modified(|known| std::mem::replace(known, note.clone()) != note);
                return None;
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

type Entered = (TcpStream, Landed, Entry<Endpoint>);

/// One attempt; `Err(None)` if the server could not be reached.
async fn enter(
    house: &Arc<House>,
    endpoint: &Endpoint,
    replay: &Replay,
) -> Result<Entered, Option<LoginError>> {
    let load = house.loads.enter(endpoint.clone(), 0).ok_or(None)?;
    let mut stream = seek::connect(endpoint).await.map_err(|_| None)?;
    let user = replay.user().unwrap_or_default();
    let (mut login, first) = Login::new(replay.clone(), house.users.borrow().of(user));
    stream.write_all(&first).await.map_err(|_| None)?;
    let mut buffer = vec![0; 8 << 10];
    loop {
        let got = stream.read(&mut buffer).await.map_err(|_| None)?;
        if got == 0 {
            return Err(None);
        }
        match login.feed(buffer.get(..got).unwrap_or_default())? {
            Step::More => {}
            Step::Send(bytes) => stream.write_all(&bytes).await.map_err(|_| None)?,
            Step::Done(landed) => return Ok((stream, landed, load)),
        }
    }
}
