//! Takes a session that rests to the next primary: waits for it, connects, logs in, says what was said before.
//!
//! Where it is known who is about to be the primary, the log-in begins while that server is a standby still, and the session
//! stands there until it is the primary: nobody then waits for a hundred log-ins at once. Whatever goes wrong with that is
//! no loss, the log-in is done again later.

use super::house::{Entry, House};
use super::seek;
use super::session::{At, Landed, Login, LoginError, Replay, Step};
use super::terms::{Lease, Routes};
use crate::cluster::{Endpoint, Epoch, Moment};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A primary that ceases to be one says so at once, or its lease is not renewed: how often the second is looked at.
const GRACE: Duration = Duration::from_millis(1_500);
/// A lease that runs so much longer than before was asked for after its primary had gone on for a while.
const RENEWED_MS: u64 = 1_000;
/// Between two attempts at a primary that is not quite there.
const PAUSE: Duration = Duration::from_millis(20);
/// One log-in.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Why a session looks for another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its primary's gate is shut, and it is connected still.
    Shut,
    /// Another epoch has begun.
    Deposed,
    /// Its server sent it away: because it goes, or because somebody wanted to be rid of this session.
    Farewell,
    /// Its server went without a word.
    Lost,
}

/// What a session leaves, and why.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) cause: Cause,
    /// The epoch of its primary.
    pub(crate) epoch: Epoch,
    /// Where that is.
    pub(crate) endpoint: Endpoint,
}

/// Where a session goes on.
pub(crate) enum Outcome {
    /// Somewhere else.
    Moved(Box<Moved>),
    /// Where it was: the gate is open again.
    Stay,
}

/// A session that is somewhere else now.
pub(crate) struct Moved {
    pub(crate) stream: TcpStream,
    pub(crate) endpoint: Endpoint,
    pub(crate) epoch: Epoch,
    pub(crate) landed: Landed,
    pub(crate) load: Entry<Endpoint>,
}

/// Why it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranded {
    /// Its primary goes on, and wanted to be rid of it.
    SentAway,
    /// There was no primary in time.
    Late,
    /// The new primary did not let it in, or is not like the old one.
    Refused,
}

/// Goes to the primary that follows the one that is left.
pub(crate) async fn move_on(
    house: Arc<House>,
    leaving: Leaving,
    replay: Replay,
) -> Result<Outcome, Stranded> {
    let hold = Duration::from_millis(house.terms.borrow().hold_ms);
    let journey = async {
        if !is_over(&house, leaving.cause, leaving.epoch).await {
            return Err(Stranded::SentAway);
        }
        follow(&house, &leaving, &replay).await
    };
    let outcome = tokio::time::timeout(hold, journey).await;
    outcome.unwrap_or(Err(Stranded::Late))
}

/// Waits until it is known whether the primary of this epoch goes on without this session. One that was lost without a word
/// may go back there: nobody wanted to be rid of it.
async fn is_over(house: &House, cause: Cause, epoch: Epoch) -> bool {
    if matches!(cause, Cause::Shut | Cause::Deposed) {
        return true;
    }
    let before = house.lease();
    let mut routes = house.routes.subscribe();
    // The same primary may come back after a pause.
    let is_another = |routes: &Arc<Routes>| routes.epoch != epoch || routes.rw.is_none();
    loop {
        match tokio::time::timeout(GRACE, routes.wait_for(is_another)).await {
            Ok(known) => return known.is_ok(),
            Err(_) if goes_on(before, house.lease(), epoch) => return cause == Cause::Lost,
            Err(_) => {}
        }
    }
}

/// Whether the primary of this epoch was granted a lease well after the first of these was known.
fn goes_on(before: Lease, now: Lease, epoch: Epoch) -> bool {
    let since = if before.epoch == epoch {
        before.until
    } else {
        Moment(0)
    };
    let renewed = now.until == Moment(u64::MAX) || now.until.since(since) >= RENEWED_MS;
    now.epoch == epoch && renewed
}

async fn follow(house: &Arc<House>, leaving: &Leaving, replay: &Replay) -> Result<Outcome, Stranded> {
    let mut routes = house.routes.subscribe();
    let mut early: Option<Standing> = None;
    // Nobody logs in twice at a server that is silent for a moment only.
    let mut tried = Some(&leaving.endpoint)
        .filter(|_| leaving.cause == Cause::Shut)
        .cloned();
    loop {
        let now = routes.borrow_and_update().clone();
        let Some(primary) = now.rw.clone() else {
            match now.next.clone().filter(|next| tried.as_ref() != Some(next)) {
                Some(next) => {
                    tried = Some(next.clone());
                    early = stand(house, &mut routes, &next, replay).await;
                }
                None => routes.changed().await.map_err(|_| Stranded::Late)?,
            }
            continue;
        };
        if leaving.cause == Cause::Shut && now.epoch == leaving.epoch {
            return Ok(Outcome::Stay);
        }
        let standing = early.take().filter(|standing| standing.endpoint == primary);
        let was_there = standing.is_some();
        let at = now.behind.as_ref().map_or(At::Primary, |_| At::Pooler);
        let attempt = async {
            match standing {
                Some(standing) => standing.arrive().await,
                None => enter(house, &primary, at, replay).await,
            }
        };
        match tokio::time::timeout(ATTEMPT, attempt).await {
            Ok(Ok((stream, landed, load))) => {
                return Ok(Outcome::Moved(Box::new(Moved {
                    stream,
                    endpoint: primary,
                    epoch: now.epoch,
                    landed,
                    load,
                })));
            }
            // What began too early may be right now.
            _ if was_there => {}
            Ok(Err(Some(why))) if !why.may_pass() => {
                note(house, replay, &why);
                return Err(Stranded::Refused);
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn note(house: &House, replay: &Replay, why: &LoginError) {
    let user = replay.user().unwrap_or_default();
    let note = format!("proxy.auth_file: a session of {user} could not be taken to the new primary: {why}");
    house
        .note
        .send_if_modified(|known| std::mem::replace(known, note.clone()) != note);
}

type Entered = (TcpStream, Landed, Entry<Endpoint>);

/// A log-in under way.
struct Entering {
    stream: TcpStream,
    login: Login,
    load: Entry<Endpoint>,
}

/// A session that is there before its server is the primary.
struct Standing {
    endpoint: Endpoint,
    entering: Entering,
}

/// Logs in at a standby that is about to be the primary; nothing if that is not possible, or news make it pointless.
async fn stand(
    house: &Arc<House>,
    routes: &mut watch::Receiver<Arc<Routes>>,
    next: &Endpoint,
    replay: &Replay,
) -> Option<Standing> {
    let attempt = async {
        let mut entering = Entering::begin(house, next, replay, At::Standby).await?;
        entering.go_on().await.map(|_| entering)
    };
    let elsewhere = routes.wait_for(|routes| routes.rw.as_ref().or(routes.next.as_ref()) != Some(next));
    tokio::select! {
        entered = tokio::time::timeout(ATTEMPT, attempt) => Some(Standing {
            endpoint: next.clone(),
            entering: entered.ok()?.ok()?,
        }),
        _ = elsewhere => None,
    }
}

impl Standing {
    /// The server is the primary, as far as the cluster knows: what it says itself counts.
    async fn arrive(mut self) -> Result<Entered, Option<LoginError>> {
        let sync = self.entering.login.arrive();
        self.entering.stream.write_all(&sync).await.map_err(|_| None)?;
        self.entering.finish().await
    }
}

/// One attempt; `Err(None)` if the server could not be reached.
async fn enter(
    house: &Arc<House>,
    endpoint: &Endpoint,
    at: At,
    replay: &Replay,
) -> Result<Entered, Option<LoginError>> {
    Entering::begin(house, endpoint, replay, at).await?.finish().await
}

impl Entering {
    async fn begin(
        house: &Arc<House>,
        endpoint: &Endpoint,
        replay: &Replay,
        at: At,
    ) -> Result<Self, Option<LoginError>> {
        let load = house.loads.enter(endpoint.clone(), 0).ok_or(None)?;
        let mut stream = seek::connect(endpoint).await.map_err(|_| None)?;
        let user = replay.user().unwrap_or_default();
        let (login, first) = Login::new(replay.clone(), house.users.borrow().of(user), at);
        stream.write_all(&first).await.map_err(|_| None)?;
        Ok(Self { stream, login, load })
    }

    /// Until the session is there; what has landed, unless it stands at a standby.
    async fn go_on(&mut self) -> Result<Option<Landed>, Option<LoginError>> {
        let mut buffer = vec![0; 8 << 10];
        loop {
            let got = self.stream.read(&mut buffer).await.map_err(|_| None)?;
            if got == 0 {
                return Err(None);
            }
            match self.login.feed(buffer.get(..got).unwrap_or_default())? {
                Step::More => {}
                Step::Send(bytes) => self.stream.write_all(&bytes).await.map_err(|_| None)?,
                Step::Standing => return Ok(None),
                Step::Done(landed) => return Ok(Some(landed)),
            }
        }
    }

    async fn finish(mut self) -> Result<Entered, Option<LoginError>> {
        let landed = self.go_on().await?.ok_or(None)?;
        Ok((self.stream, landed, self.load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_goes_on_that_was_granted_a_lease_since() {
        let lease = |epoch, until| Lease {
            epoch: Epoch(epoch),
            until: Moment(until),
        };
        let known = lease(3, 5_000);
        assert!(!goes_on(known, known, Epoch(3)));
        // One that was asked for before the session was lost may come after.
        assert!(!goes_on(known, lease(3, 5_900), Epoch(3)));
        assert!(goes_on(known, lease(3, 6_000), Epoch(3)));
        assert!(goes_on(known, lease(3, u64::MAX), Epoch(3)), "a pause");
        assert!(!goes_on(known, lease(4, 9_000), Epoch(3)), "another primary's");
    }
}
