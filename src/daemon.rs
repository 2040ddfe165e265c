//! The daemon's composition root: everything is built here in order, runs, and is closed in reverse.
//!
//! 1. The node file is known to be good. The hands check programs, version and ownership: nothing was touched yet.
//! 2. The REST door opens: a port in use is the commonest mistake, and nothing has been started that it could hurt.
//! 3. The ledger and the guard: whoever runs PostgreSQL here already is found before anything else speaks.
//! 4. The Raft group: from here on peers may ask us things, so the desk and the mailroom stand ready.
//! 5. The loops: lead, reporter, node. systemd is told that we are ready when the doors are open; forming a group
//!    may take as long as the other nodes need.
//!
//! On the way back the node loop ends first, because it stops PostgreSQL and lets the leader know; Raft's lead is
//! handed over, the group closes its store, the guard goes when nothing runs, the REST door closes last, so that a
//! load balancer hears "no" instead of nothing.

use crate::api::{self, Access, ApiControl, ApiError, ApiHandle, ApiOptions, Identity, Operator, TlsOptions};
use crate::clock;
use crate::cluster::{Facts, Report, Settings, State};
use crate::config::{Config, PostgresConfig, Renewal, VerifyClient};
use crate::doors::Doors;
use crate::guard::{Guard, GuardError, GuardOptions};
use crate::journal::Journal;
use crate::lead::{self, Desk, Mailroom, Orders};
use crate::node::bearer::Bearer;
use crate::node::charge::Charge;
use crate::node::ledger::{Ledger, LedgerError};
use crate::node::machine::Replica;
use crate::node::reporter::{Reporter, Word};
use crate::node::tenancy::Tenancy;
use crate::node::{Agent, AgentError, AgentParts, Hands};
use crate::notify;
use crate::postgres::PostgresError;
use crate::proxy::Keeper;
use crate::systemd;
use crate::vip;
use matriarch_raft::{Group, StartError, TlsFiles};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// How long the REST door gets to finish open answers.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the proxy gets to end its sessions and itself.
const PROXY_DEADLINE: Duration = Duration::from_secs(8);

/// Why the daemon did not start, or ended by itself: one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The Raft directory cannot be used.
    #[error("raft.data_dir: {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// PostgreSQL's programs or its data directory.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The REST door.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The Raft group.
    #[error(transparent)]
    Raft(#[from] StartError),
    /// The node loop ended by itself.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The thread that speaks with the other nodes.
    #[error("the thread for the other nodes ended: {0}")]
    Speaker(tokio::task::JoinError),
    /// Signals cannot be awaited.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

/// Runs until SIGTERM or SIGINT, or until this node must not go on. `speaker` is for what must wait for no disk and no
/// PostgreSQL: agreement with the other nodes, judgement, leases.
pub async fn run(config: Config, journal: Journal, speaker: Handle) -> Result<(), DaemonError> {
    let config = Arc::new(config);
    let dir = config.raft.data_dir.clone();
    prepare(&dir).map_err(|source| DaemonError::Directory {
        path: dir.clone(),
        source,
    })?;
    if let Some(section) = &config.postgresql {
        Hands::check(&config, section)?;
    }
    let (facts, facts_seen) = watch::channel(None);
    let (close, closed) = oneshot::channel::<()>();
    let operator = Operator::default();
    let door = api::serve(api_options(&config), facts_seen, operator.clone(), async {
        let _ = closed.await;
    })
    .await?;
    let mut ledger = Ledger::open(&dir)?;
    let guard = attach_guard(&config, &mut ledger).await?;
    let hands = match (&config.postgresql, &guard) {
        (Some(section), Some(guard)) => Some(Hands::new(
            config.clone(),
            Arc::new(section.clone()),
            guard.clone(),
        )?),
        _ => None,
    };
    let controls = Controls {
        renewal: Arc::new(Renewal::new(config.clone(), std::env::vars().collect())),
        operator,
        rest: door.control(),
        journal,
        speaker,
    };
    let outcome = live(config, ledger, hands, guard.clone(), facts, controls).await;
    // It goes only when nothing runs; where this node had to give up beside a running PostgreSQL, it stays with it.
    if let Some(guard) = guard
        && let Err(why) = guard.quit().await
    {
        tracing::info!("the guard stays: {why}");
    }
    let _ = close.send(());
    finish(door).await;
    outcome
}

/// What is asked of the running daemon, and what can be changed of it.
struct Controls {
    renewal: Arc<Renewal>,
    operator: Operator,
    rest: ApiControl,
    journal: Journal,
    speaker: Handle,
}

/// The Raft directory belongs to the daemon's user alone: it holds the log, the guard's socket and the ledger.
fn prepare(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

async fn attach_guard(config: &Config, ledger: &mut Ledger) -> Result<Option<Guard>, DaemonError> {
    let Some(section) = &config.postgresql else {
        return Ok(None);
    };
    let exe = std::env::current_exe().map_err(|source| DaemonError::Directory {
        path: "matriarch".into(),
        source,
    })?;
    let options = GuardOptions {
        dir: config.raft.data_dir.clone(),
        data_dir: Some(section.data_dir.clone()),
        exe,
    };
    let guard = Guard::attach(options).await?;
    // A PostgreSQL that we did not start is somebody's; ours, left by a guard that died, is stopped.
    let state = guard.watch().borrow().clone();
    if state.postmaster.is_none() && !state.clean {
        if ledger.is_newcomer() {
            if let Err(why) = adopt(config, section, &guard, ledger).await {
                let _ = guard.quit().await;
                return Err(why);
            }
        } else {
            guard.kill_all().await?;
        }
    }
    Ok(Some(guard))
}

/// Takes over the PostgreSQL that runs in the data directory, as it runs. The ledger says so first: a daemon that comes
/// back must not take it for one that has no right to run.
async fn adopt(
    config: &Config,
    section: &PostgresConfig,
    guard: &Guard,
    ledger: &mut Ledger,
) -> Result<(), DaemonError> {
    let pid = Hands::check(config, section)?.adoptable()?;
    ledger.change(|facts| facts.guest = true)?;
    let dir = section.data_dir.display();
    guard.adopt(pid, section.data_dir.clone()).await.map_err(|why| {
        DaemonError::Agent(AgentError::Misplaced(format!(
            "postgresql.data_dir: the PostgreSQL that runs in {dir} cannot be taken over: {why}; stop it first"
        )))
    })?;
    tracing::info!("taking over the PostgreSQL that runs in {dir} (postmaster {pid}) without a restart");
    Ok(())
}

pub(crate) fn api_options(config: &Config) -> ApiOptions {
    let rest = &config.restapi;
    let tls = rest.certfile.as_ref().map(|certfile| TlsOptions {
        certfile: certfile.clone(),
        keyfile: rest.keyfile.clone(),
        keyfile_password: rest.keyfile_password.clone(),
        cafile: rest.cafile.clone(),
        verify_client: match rest.verify_client {
            VerifyClient::None => api::VerifyClient::None,
            VerifyClient::Optional => api::VerifyClient::Optional,
            VerifyClient::Required => api::VerifyClient::Required,
        },
        ciphers: rest.ciphers.clone(),
    });
    let mut headers: Vec<(String, String)> = rest.http_extra_headers.clone().into_iter().collect();
    if tls.is_some() {
        headers.extend(rest.https_extra_headers.clone());
    }
    ApiOptions {
        identity: Identity {
            name: config.name.as_str().to_owned(),
            scope: config.scope.clone(),
        },
        listen: rest.listen.clone(),
        tls,
        access: Access::new(rest),
        extra_headers: headers,
        server_tokens: Some(rest.server_tokens.clone()),
    }
}

/// How this node speaks to its peers.
pub(crate) fn raft_settings(config: &Config, may_form: bool) -> matriarch_raft::Settings {
    let raft = &config.raft;
    let tls = match (&raft.certfile, &raft.keyfile, &raft.cafile) {
        (Some(certfile), Some(keyfile), Some(cafile)) => Some(TlsFiles {
            certfile: certfile.clone(),
            keyfile: keyfile.clone(),
            cafile: cafile.clone(),
        }),
        _ => None,
    };
    matriarch_raft::Settings {
        cluster: config.scope.clone(),
        name: config.name.as_str().to_owned(),
        self_addr: raft.self_addr.clone(),
        bind_addr: raft.bind_addr.clone(),
        partners: raft.partner_addrs.clone(),
        data_dir: raft.data_dir.clone(),
        password: raft.password.as_ref().map(|secret| secret.reveal().to_owned()),
        tls,
        heartbeat_ms: raft.heartbeat_interval_ms,
        election_min_ms: raft.election_min_ms,
        election_max_ms: raft.election_max_ms,
        may_form,
    }
}

async fn live(
    config: Arc<Config>,
    ledger: Ledger,
    hands: Option<Hands>,
    guard: Option<Guard>,
    facts: watch::Sender<Option<Arc<Facts>>>,
    controls: Controls,
) -> Result<(), DaemonError> {
    let (state, state_seen) = watch::channel(Arc::new(State::default()));
    let (settings, settings_seen) = watch::channel(Arc::new(Settings::default()));
    let (poke, poked) = watch::channel(0);
    let (word, word_seen) = watch::channel(Word::default());
    let (urgent, urgent_seen) = watch::channel(0);
    let desk = Arc::new(Desk::default());
    let (tally, proxy) = watch::channel(None);
    let (lives, proxy_lives) = watch::channel(false);
    let (hold, hold_seen) = watch::channel(vip::Hold::default());
    let bearer = Arc::new(Bearer::default());
    let mailroom = Arc::new(Mailroom::new(
        desk.clone(),
        state_seen.clone(),
        settings_seen.clone(),
        poke,
    ));
    // Data that once belonged to a group never founds another one, however empty the Raft directory is.
    let may_form = hands.as_ref().is_none_or(|hands| !hands.postgres.has_marker());
    let replica = Box::new(Replica::new(state, settings));
    let speaker = controls.speaker;
    let joining = Group::start(raft_settings(&config, may_form), replica, mailroom.clone());
    let group = speaker.spawn(joining).await.map_err(DaemonError::Speaker)??;
    let orders = Orders::new(
        group.clone(),
        desk.clone(),
        state_seen.clone(),
        settings_seen.clone(),
    );
    mailroom.open(group.clone(), orders.clone());
    let (node_orders, asked) = crate::node::orders::channel();
    controls.operator.open(orders, node_orders);
    let tenancy = Arc::new(Tenancy::new(guard, clock::now()));
    let renewal = controls.renewal;
    let doors = Doors {
        rest: controls.rest,
        group: group.clone(),
        journal: controls.journal,
    };
    let first = Report::first(crate::node::info(&config, group.id(), ledger.facts().incarnation));
    let (report, report_seen) = watch::channel(Arc::new(first));
    let gate = mailroom.gate();
    let reporter = Reporter {
        group: group.clone(),
        mailroom,
        report: report_seen,
        urgent: urgent_seen,
        gate: gate.clone(),
        settings: settings_seen.clone(),
        tenancy: tenancy.clone(),
        bearer: bearer.clone(),
        word: Arc::new(word),
    };
    let (shut, is_shut) = watch::channel(false);
    let address = config
        .vip
        .clone()
        .map(|vip| tokio::spawn(vip::keep(vip, facts.subscribe(), is_shut.clone(), hold)));
    let told = notify::start(
        &config.notify,
        &config.raft.data_dir,
        &facts.subscribe(),
        &is_shut,
    );
    let (end_proxy, proxy_ends) = watch::channel(false);
    let keeper = std::env::current_exe().ok().map(|exe| Keeper {
        dir: config.raft.data_dir.clone(),
        exe,
        config: renewal.watch(),
        facts: facts.subscribe(),
        gate,
        tally,
        lives,
        stop: proxy_ends,
    });
    let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
    let me = config.name.clone();
    let charge = match hands.as_ref().zip(std::env::current_exe().ok()) {
        Some((hands, exe)) => Some(Charge {
            guard: hands.guard.clone(),
            config: renewal.watch(),
            exe,
            group: group.clone(),
            report: reporter.report.clone(),
            settings: settings_seen.clone(),
        }),
        None => None,
    };
    let parts = AgentParts {
        config,
        renewal: renewal.clone(),
        hands,
        ledger,
        run: crate::node::random_run(),
        group: group.clone(),
        desk: desk.clone(),
        tenancy,
        state: state_seen.clone(),
        settings: settings_seen.clone(),
        word: word_seen,
        poke: poked,
        report,
        urgent,
        orders: asked,
        proxy,
        proxy_lives,
        hold: hold_seen,
        bearer,
        facts,
    };
    let (agent, postmaster) = Agent::new(parts);
    let mut tasks = vec![
        speaker.spawn(lead::watch_state(desk.clone(), state_seen.clone())),
        speaker.spawn(lead::watch_lead(desk.clone(), group.status())),
        speaker.spawn(lead::run(
            me,
            group.clone(),
            desk,
            state_seen.clone(),
            settings_seen,
        )),
        speaker.spawn(lead::see_off(group.clone(), state_seen.clone())),
        tokio::spawn(systemd::feed(reporter.tenancy.clone())),
        speaker.spawn(reporter.run()),
        tokio::spawn(doors.follow(renewal.watch())),
    ];
    tasks.extend(charge.map(|charge| tokio::spawn(charge.run())));
    let (stop, stopped) = oneshot::channel();
    let signals = tokio::spawn(await_signals(stop, renewal)?);
    systemd::ready();
    let outcome = agent.run(postmaster, stopped).await;
    systemd::stopping();
    signals.abort();
    let _ = shut.send(true);
    let closing = async {
        for task in address.into_iter().chain(told) {
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(CLOSE_DEADLINE, closing).await;
    let paused = state_seen.borrow().pause.is_on();
    dismiss(keeper, end_proxy, paused).await;
    leave_lead(&group).await;
    for task in tasks {
        task.abort();
    }
    group.close().await;
    outcome.map_err(DaemonError::from)
}

/// The proxy ends with a daemon that was asked to stop; in a pause PostgreSQL stays, and so do its clients.
async fn dismiss(keeper: Option<JoinHandle<()>>, end: watch::Sender<bool>, paused: bool) {
    let Some(keeper) = keeper else { return };
    if paused {
        keeper.abort();
    } else {
        end.send_replace(true);
        if tokio::time::timeout(PROXY_DEADLINE, keeper).await.is_err() {
            tracing::warn!("the proxy is not known to have ended");
        }
    }
}

/// Who leads and leaves hands the lead over first, so that nobody has to miss a heartbeat to notice.
async fn leave_lead(group: &Group) {
    let status = group.status().borrow().clone();
    let heir = status
        .peers_level
        .iter()
        .find(|(id, level)| *level && *id != status.id);
    if let (Some(_), Some((heir, _))) = (status.lead, heir) {
        let _ = tokio::time::timeout(Duration::from_secs(1), group.hand_over(*heir)).await;
    }
}

fn await_signals(
    stop: oneshot::Sender<()>,
    renewal: Arc<Renewal>,
) -> Result<impl Future<Output = ()> + Send + 'static, DaemonError> {
    let mut term = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let mut hup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    systemd::reloading();
                    renewal.renew();
                    systemd::ready();
                }
            }
        }
        let _ = stop.send(());
        std::future::pending().await
    })
}

async fn finish(door: ApiHandle) {
    let _ = tokio::time::timeout(CLOSE_DEADLINE, door.closed()).await;
}
