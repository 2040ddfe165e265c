//! The jobs themselves: straight sequences of acts on PostgreSQL, each with its deadline and its clean-up.

use super::hands::{Hands, Wanted};
use super::job::Done;
use super::slots::SlotWork;
use crate::clock;
use crate::cluster::{Endpoint, Epoch, Incarnation, MemberName, Moment, Promise, Settings, Synced, Timeline};
use crate::postgres::{DataDir, Probe, Proof};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// How often a server that starts or promotes is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// A stream that was told to end ends within a tenth of a second.
const STREAM_END_MS: u64 = 5_000;
/// How long a standby gets to stop cleanly before it is started again.
const RESTART: Duration = Duration::from_secs(60);
/// How often, and how long apart, the slot of a member that was taken out is tried to be dropped.
const SLOT_ATTEMPTS: u32 = 20;
const SLOT_PAUSE: Duration = Duration::from_millis(100);
/// How long PostgreSQL gets to end its children by itself before everything is killed.
const IMMEDIATE: Duration = Duration::from_millis(100);

fn good(result: Result<(), String>) -> Done {
    match result {
        Ok(()) => Done::Good,
        Err(why) => Done::Failed(why),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A new identity for a new copy of the data.
pub fn new_incarnation() -> Incarnation {
    Incarnation(random_run())
}

/// A random number that tells this run from every other one.
pub fn random_run() -> u64 {
    let mut bytes = [0_u8; 8];
    // Without random numbers the clock still differs from every earlier copy's.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = clock::boot_ns().to_le_bytes();
    }
    u64::from_le_bytes(bytes)
}

/// Looks at the data directory; `founding`: also at what a cluster that is founded from it would begin with.
pub async fn inspect(hands: Hands, founding: bool) -> Done {
    let look = move || {
        let found = hands.postgres.inspect().map_err(text)?;
        let brought = founding && matches!(found, DataDir::Present(_)) && !hands.postgres.has_marker();
        if brought && let Err(why) = hands.postgres.reads_our_files() {
            return Ok((DataDir::NotOurs(text(why)), None));
        }
        Ok((found, brought.then(|| hands.founding())))
    };
    let looked = tokio::task::spawn_blocking(look).await;
    Done::Inspected(looked.unwrap_or_else(|why| Err(text(why))))
}

/// Reads where the log of a stopped server ends.
pub async fn read_end(hands: Hands, hint: Option<crate::cluster::Lsn>) -> Done {
    Done::End(hands.postgres.wal_end(hint).await.map_err(text))
}

/// Starts as a standby of `upstream`, or of nobody yet.
pub async fn standby(hands: Hands, wanted: Wanted) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        hands.postgres.set_standby_signal(true).map_err(text)?;
        hands.start(&wanted.settings, None).await
    };
    match work.await {
        Ok(raised) => Done::Started { raised },
        Err(why) => Done::Failed(why),
    }
}

/// Starts a running standby again, and waits until it answers.
pub async fn again(hands: Hands, wanted: Wanted, patience: Duration) -> Done {
    stop(hands.clone(), RESTART).await;
    let bound = clock::now().plus(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
    let started = standby(hands.clone(), wanted).await;
    if matches!(started, Done::Started { .. })
        && let Err(why) = until(&hands, bound, "the standby", |probe| probe.in_recovery).await
    {
        return Done::Failed(why);
    }
    started
}

/// PostgreSQL pauses a replay that needs more than this standby was started with; only another start gives it more.
pub async fn raise(hands: Hands, wanted: Wanted) -> Done {
    let work = async {
        let at_least = hands.at_least().await?;
        let names: Vec<&str> = at_least.keys().copied().collect();
        let running = hands.session.numbers(&names).await.map_err(text)?;
        let low = at_least
            .iter()
            .find(|(name, bound)| running.get(**name).is_some_and(|value| value < *bound));
        Ok(low.map(|(name, bound)| format!("its {name} is lower than the primary's {bound}")))
    };
    match work.await {
        Ok(None) => Done::Good,
        Ok(Some(why)) => {
            tracing::warn!("starting the standby again: {why}");
            stop(hands.clone(), RESTART).await;
            standby(hands, wanted).await
        }
        Err(why) => Done::Failed(why),
    }
}

/// Writes the configuration of a running server and has it read.
pub async fn configure(hands: Hands, wanted: Wanted) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        hands.session.reload().await.map_err(text)
    };
    good(work.await)
}

/// The same for a server that takes no connections yet.
pub async fn configure_unheard(hands: Hands, wanted: Wanted) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        let told = hands.guard.signal(nix::sys::signal::Signal::SIGHUP).await;
        told.map_err(text)
    };
    good(work.await)
}

/// Ends everything of the data directory at once.
pub async fn fence(hands: Hands) -> Done {
    let _ = hands.guard.signal(nix::sys::signal::Signal::SIGQUIT).await;
    hands.gone_within(IMMEDIATE).await;
    good(hands.guard.kill_all().await.map_err(text))
}

/// Stops for a handover; `drains` if proxies keep new transactions back meanwhile, so that those under way can end.
pub async fn yield_up(hands: Hands, drains: bool, patience: Duration) -> Done {
    let postmaster = hands.guard.watch().borrow().postmaster;
    if drains && let Err(why) = hands.session.drain(postmaster).await {
        tracing::debug!("{why}");
    }
    stop(hands, patience).await
}

/// Stops cleanly (fast), or at once when that takes longer than `patience`.
pub async fn stop(hands: Hands, patience: Duration) -> Done {
    hands.before_stop().await;
    let _ = hands.guard.signal(nix::sys::signal::Signal::SIGINT).await;
    if hands.stops_within(patience).await {
        return Done::Good;
    }
    tracing::warn!(
        "a fast stop of PostgreSQL took longer than {} s, stopping at once",
        patience.as_secs()
    );
    fence(hands).await
}

/// Runs `work` towards a primary of `epoch`; whatever it started is gone again if it fails.
async fn rise(hands: Hands, epoch: Epoch, work: impl Future<Output = Result<(), String>>) -> Done {
    let guarded = async {
        hands.enforced(epoch).await?;
        work.await
    };
    match guarded.await {
        Ok(()) => Done::Risen(epoch),
        Err(why) => {
            fence(hands).await;
            Done::NotRisen(epoch, why)
        }
    }
}

/// Waits until the local server accepts connections and satisfies `ready`.
async fn until(
    hands: &Hands,
    deadline: Moment,
    what: &str,
    ready: impl Fn(&Probe) -> bool,
) -> Result<Probe, String> {
    let mut watch = hands.guard.watch();
    let mut last = "it did not answer".to_owned();
    while clock::now() < deadline {
        match hands.session.probe().await {
            Ok(probe) if ready(&probe) => return Ok(probe),
            Ok(_) => last = "it answered, but is not there yet".to_owned(),
            Err(why) => last = text(why),
        }
        let guard = watch.borrow_and_update().clone();
        if guard.postmaster.is_none() {
            let exit = guard.last_exit.unwrap_or_default();
            return Err(format!(
                "PostgreSQL ended while waiting for {what}: {exit}; see its log"
            ));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(format!("waited in vain for {what}: {last}"))
}

fn patience(settings: &Settings) -> Moment {
    clock::now().plus(settings.postgresql.pg_ctl_timeout_s.saturating_mul(1_000))
}

/// Promotes the running standby to `target`, and makes sure that it is on that timeline and no other.
pub async fn promote(
    hands: Hands,
    wanted: Wanted,
    epoch: Epoch,
    (current, target): (Timeline, Timeline),
    slots: Vec<MemberName>,
) -> Done {
    if let Err(why) = hands.pre_promote(&wanted.settings).await {
        return Done::Declined(epoch, why);
    }
    let work = async {
        if wanted.names.is_some() {
            // Who acknowledges is in force before anything can be written.
            hands.configure(&wanted).await?;
            hands.session.reload().await.map_err(text)?;
        }
        make_whole(&hands, &wanted).await?;
        hands.postgres.reserve_timelines(current, target).map_err(text)?;
        // Nobody can follow without its slot, and commits may be waiting for who follows. A standby can have slots too,
        // so they are made while it ends its recovery; should that come to nothing, there is a second try.
        let (risen, early) = tokio::join!(
            end_recovery(&hands, &wanted, target),
            hands.session.ensure_slots(&slots)
        );
        risen?;
        if early.is_err() {
            hands.session.ensure_slots(&slots).await.map_err(text)?;
        }
        let postgres = hands.postgres.clone();
        tokio::task::spawn_blocking(move || postgres.set_standby_signal(true))
            .await
            .map_err(text)?
            .map_err(text)
    };
    rise(hands.clone(), epoch, work).await
}

async fn end_recovery(hands: &Hands, wanted: &Wanted, target: Timeline) -> Result<(), String> {
    hands.session.promote().await.map_err(text)?;
    let bound = patience(&wanted.settings);
    let probe = until(hands, bound, "the end of recovery", |probe| !probe.in_recovery).await?;
    if probe.timeline == Some(target) {
        return Ok(());
    }
    Err(format!(
        "it was promoted to timeline {:?} instead of {target}",
        probe.timeline
    ))
}

/// Ends the stream and removes what it has left half, if it has. Its end would not be waited for else: promotion does
/// that, but too late for this.
async fn make_whole(hands: &Hands, wanted: &Wanted) -> Result<(), String> {
    let postgres = hands.postgres.clone();
    let half = tokio::task::spawn_blocking(move || postgres.half_segments())
        .await
        .map_err(text)?
        .map_err(text)?;
    if half.is_empty() {
        return Ok(());
    }
    let alone = Wanted {
        upstream: None,
        ..wanted.clone()
    };
    hands.configure(&alone).await?;
    hands.session.reload().await.map_err(text)?;
    received_nothing(hands, clock::now().plus(STREAM_END_MS)).await?;
    hands.remove_half_segments().await
}

/// Starts the stopped primary again.
pub async fn restart(hands: Hands, wanted: Wanted, epoch: Epoch, timeout_s: Option<u64>) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        let settings = &wanted.settings;
        let bound_s = timeout_s.unwrap_or(settings.primary_start_timeout_s);
        let bound = clock::now().plus(bound_s.saturating_mul(1_000));
        serve_from_disk(&hands, settings, epoch, bound).await
    };
    rise(hands.clone(), epoch, work).await
}

/// The signal file is removed just before the start and put back right after it, so that nobody else's start of
/// this directory ever comes up writable.
async fn serve_from_disk(
    hands: &Hands,
    settings: &Settings,
    epoch: Epoch,
    bound: Moment,
) -> Result<(), String> {
    hands.postgres.set_standby_signal(false).map_err(text)?;
    let started = hands.start(settings, Some(epoch)).await;
    let up = match started {
        Ok(_) => until(hands, bound, "PostgreSQL to accept writes", |p| !p.in_recovery)
            .await
            .map(|_| ()),
        Err(why) => Err(why),
    };
    hands.postgres.set_standby_signal(true).map_err(text)?;
    up
}

/// Creates the database cluster (or takes the one that is there), its roles and its first configuration.
pub async fn bootstrap(hands: Hands, wanted: Wanted, epoch: Epoch, create: bool) -> Done {
    let work = async {
        let settings = &wanted.settings;
        if create {
            hands.initdb().await?;
            hands.configure_first(&wanted).await?;
        } else {
            hands.configure(&wanted).await?;
        }
        serve_from_disk(&hands, settings, epoch, patience(settings)).await?;
        hands.create_roles(create).await?;
        if create {
            hands.post_bootstrap().await
        } else {
            Ok(())
        }
    };
    rise(hands.clone(), epoch, work).await
}

/// Makes a primary that was there before this cluster its first: no restart, but our configuration and the roles.
pub async fn adopt(hands: Hands, wanted: Wanted, epoch: Epoch) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        hands.postgres.set_standby_signal(true).map_err(text)?;
        hands.session.reload().await.map_err(text)?;
        hands.create_roles(false).await
    };
    rise(hands.clone(), epoch, work).await
}

/// What a serving primary owes beside serving.
pub async fn chores(hands: Hands, checkpoint: bool, work: SlotWork) -> Done {
    let SlotWork { slots, taken_out, .. } = work;
    let work = async {
        let dropped = hands.session.drop_slots(&slots.drop, &slots.keep).await;
        dropped.map_err(text)?;
        hands.session.ensure_slots(&slots.keep).await.map_err(text)?;
        take_slots(&hands, &taken_out).await?;
        if checkpoint {
            hands.session.checkpoint().await.map_err(text)?;
        }
        Ok(())
    };
    good(work.await)
}

/// Makes the checkpoint of a stop that follows a short one. Whoever is to be primary then has its stream by the end: one
/// that connects again just now (it has become what is waited for, and changes its name) would miss the last of the log.
pub async fn prepare(hands: Hands, to: Option<MemberName>) -> Done {
    let written = hands.session.checkpoint().await;
    if let (Ok(()), Some(to)) = (&written, &to)
        && let Err(why) = hands.session.await_stream(to).await
    {
        // Whether it has everything is judged when this server is down, as ever.
        tracing::warn!("{to} does not stream now: {why}");
    }
    good(written.map_err(text))
}

/// Whoever was taken out streams no more, and nothing is kept for it.
async fn take_slots(hands: &Hands, gone: &[MemberName]) -> Result<(), String> {
    if gone.is_empty() {
        return Ok(());
    }
    for _ in 0..SLOT_ATTEMPTS {
        if hands.session.take_slots(gone).await.map_err(text)? {
            return Ok(());
        }
        tokio::time::sleep(SLOT_PAUSE).await;
    }
    Err("a member that was taken out holds its replication slot".to_owned())
}

/// Keeps for the others what they would need, should this standby be promoted, and nothing older; slots that are left
/// from its time as primary would hold its log for ever.
pub async fn tidy(hands: Hands, work: SlotWork) -> Done {
    let SlotWork { slots, reached, .. } = work;
    let work = async {
        hands.session.drop_slots(&slots.drop, &slots.keep).await?;
        hands.session.ensure_spare_slots(&slots.keep).await?;
        hands.session.advance_slots(&reached).await
    };
    good(work.await.map_err(text))
}

/// Ends the stream of a standby for good, and reads where its log ends then. The promise itself is in the ledger; here
/// PostgreSQL is made to keep it, also through restarts that nobody of ours sees.
pub async fn promise(hands: Hands, wanted: Wanted, epoch: Epoch, running: bool) -> Done {
    let work = async {
        hands.configure(&wanted).await?;
        let (mut hint, mut received) = (None, None);
        if running {
            hands.session.reload().await.map_err(text)?;
            let bound = clock::now().plus(STREAM_END_MS);
            let probe = until(&hands, bound, "the end of the stream", |probe| {
                probe.in_recovery && probe.wal_receiver.is_none()
            })
            .await?;
            received_nothing(&hands, bound).await?;
            (hint, received) = (probe.replayed, probe.received);
        }
        let end = hands.postgres.wal_end(hint).await.map_err(text)?;
        if running {
            // A receiver that was about to connect when it was looked for would have made the log longer since.
            let after = hands.session.probe().await.map_err(text)?;
            let still = hands.session.receives_nothing().await.map_err(text)?;
            if !still || after.received > received {
                return Err("its stream went on after it was ended".to_owned());
            }
        }
        end.ok_or_else(|| "the end of its log could not be read".to_owned())
    };
    match work.await {
        Ok(end) => Done::Promised(Promise { epoch, end }),
        Err(why) => Done::Failed(why),
    }
}

/// Twice in a row, a moment apart: a receiver that was asked for and is not there yet is neither seen nor gone.
async fn received_nothing(hands: &Hands, bound: Moment) -> Result<(), String> {
    let mut quiet = 0;
    while quiet < 2 {
        if clock::now() >= bound {
            return Err("waited in vain for the end of the stream".to_owned());
        }
        let nothing = hands.session.receives_nothing().await.map_err(text)?;
        quiet = if nothing { quiet + 1 } else { 0 };
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// Proves that the synchronous standbys have everything.
pub async fn prove(hands: Hands, proof: Proof, synced: Synced) -> Done {
    match hands.session.prove(&proof).await {
        Ok(()) => Done::Proved(synced),
        Err(why) => Done::Failed(text(why)),
    }
}

/// Replaces the data by a copy of `from`'s; what was there is kept aside until the copy is complete.
pub async fn clone(
    hands: Hands,
    from: Endpoint,
    copy: Incarnation,
    progress: watch::Sender<Option<String>>,
) -> Done {
    let work = async {
        let aside: Option<PathBuf> = hands.postgres.move_aside().map_err(text)?;
        hands.postgres.base_backup(&from, progress).await.map_err(text)?;
        hands.postgres.set_standby_signal(true).map_err(text)?;
        if let Some(aside) = aside {
            let postgres = hands.postgres.clone();
            // Removing a large old copy takes a while and nobody needs to wait for it.
            tokio::task::spawn_blocking(move || {
                if let Err(why) = postgres.discard_aside(&aside) {
                    tracing::warn!("{}: the old data could not be removed: {why}", aside.display());
                }
            });
        }
        Ok(())
    };
    match work.await {
        Ok(()) => Done::Cloned(copy),
        Err(why) => Done::Failed(why),
    }
}

/// Rewinds the data to the common past with `from`'s.
pub async fn rewind(hands: Hands, from: Endpoint) -> Done {
    good(hands.postgres.rewind(&from).await.map_err(text))
}
