//! Starting a member: settings checked, store opened, port bound, background tasks begun.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use matriarch_storage::{Log, Meta, Options, Store};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::beats::Beats;
use crate::errors::StartError;
use crate::form;
use crate::machine::{Inbox, Machine};
use crate::net::auth::Credentials;
use crate::net::listen::listen;
use crate::net::pool::{Dialer, Pools};
use crate::net::throttle::Throttle;
use crate::net::tls::Tls;
use crate::node::{Names, Node, Parts, learn};
use crate::settings::Settings;
use crate::types::{Identity, random};
use crate::wire::envelope::{Sealed, open, seal};
use crate::wire::stored::{FormationBytes, NodeBytes};
use crate::{farewell, farewell::Expelled, join, observe, portless, ticks};

/// Longest wait for a TCP connection, when the election timeout would allow more.
const CONNECT: Duration = Duration::from_secs(1);

/// `Group::start`.
pub(crate) async fn start(
    settings: Settings,
    machine: Box<dyn Machine>,
    inbox: Arc<dyn Inbox>,
) -> Result<Arc<Node>, StartError> {
    check(&settings)?;
    farewell::put_aside(&settings.data_dir)?;
    let tls = settings
        .tls
        .as_ref()
        .map(|files| Tls::load(files, &settings.name))
        .transpose()?;
    let store = open_store(&settings)?;
    let unusable = |why: String| StartError::Store {
        dir: settings.data_dir.clone(),
        why,
    };
    let known = known(store.as_ref(), &settings).map_err(|e| unusable(e.to_string()))?;
    if known.record.addr != settings.self_addr {
        return Err(unusable(format!(
            "it belongs to {}, but self_addr is {}; give the node its old address or an empty directory",
            known.record.addr, settings.self_addr
        )));
    }
    if settings.self_addr.is_empty() {
        let node = Arc::new(assemble(settings, tls, inbox, store, &known.record));
        node.spawn(portless::take_part(node.clone(), machine));
        return Ok(node);
    }
    let bind = settings.bind_addr.as_ref().unwrap_or(&settings.self_addr);
    let listener = TcpListener::bind(bind).await.map_err(|e| StartError::Listen {
        addr: bind.clone(),
        why: e.to_string(),
    })?;
    let node = Arc::new(assemble(settings, tls, inbox, store, &known.record));
    // Before the port answers: a partner must never take a member that is just starting for an empty node.
    node.settled.store(known.settled(), Ordering::SeqCst);
    node.spawn(listen(node.clone(), listener));
    node.spawn(observe::observe(node.clone()));
    node.spawn(node.beats.clone().keep());
    node.spawn(ticks::pace(node.clone()));
    node.spawn(join::tend(node.clone()));
    node.spawn(form::enter(node.clone(), machine, known));
    Ok(node)
}

pub(crate) fn assemble(
    settings: Settings,
    tls: Option<Tls>,
    inbox: Arc<dyn Inbox>,
    store: Arc<dyn Log>,
    record: &NodeBytes,
) -> Node {
    let credentials = Arc::new(Credentials {
        cluster: settings.cluster.clone(),
        name: settings.name.clone(),
        addr: portless::address(&settings.self_addr, record.incarnation),
        password: settings.password.clone().unwrap_or_default(),
        tls: RwLock::new(tls),
    });
    let identity = Arc::new(RwLock::new(Identity {
        foundation: record.foundation,
        ..Identity::default()
    }));
    let names: Names = Arc::new(Mutex::new(HashMap::new()));
    let changed = Arc::new(Notify::new());
    let introduce = {
        let (names, changed) = (names.clone(), changed.clone());
        Arc::new(move |peer| learn(&names, &changed, peer))
    };
    let fatal: Arc<OnceLock<String>> = Arc::default();
    let expelled: Arc<Expelled> = Arc::default();
    let farewell = {
        let (settings, identity) = (settings.clone(), identity.clone());
        let (fatal, expelled, changed) = (fatal.clone(), expelled.clone(), changed.clone());
        Arc::new(move |goodbye| {
            let me = *identity.read().unwrap_or_else(PoisonError::into_inner);
            farewell::part(&settings, me, &fatal, &expelled, &goodbye);
            changed.notify_one();
        })
    };
    let beats = Arc::new(Beats::new(
        Duration::from_millis(settings.heartbeat_ms),
        Duration::from_millis(settings.election_min_ms),
    ));
    let dialer = Dialer {
        credentials: credentials.clone(),
        identity: identity.clone(),
        connect: CONNECT.min(Duration::from_millis(settings.election_min_ms) / 2),
        introduce,
        farewell,
        throttle: Throttle::default(),
        spoken: Mutex::default(),
        #[cfg(test)]
        wire: OnceLock::new(),
    };
    let pools = Arc::new(Pools::new(dialer, beats.clone()));
    let mut founders = settings.partners.clone();
    if !settings.self_addr.is_empty() {
        founders.push(settings.self_addr.clone());
    }
    founders.sort();
    founders.dedup();
    if !settings.self_addr.is_empty() && !record.admitted && !matches!(founders.len(), 3 | 5) {
        let n = founders.len();
        tracing::warn!(
            "{n} nodes found a group: three or five are right; two or four survive no more losses than one or three"
        );
    }
    Node::new(Parts {
        settings,
        credentials,
        pools,
        inbox,
        changed,
        names,
        founders,
        claim: record.incarnation,
        identity,
        fatal,
        expelled,
        store,
        beats,
    })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    let wrong = |why: String| Err(StartError::Settings(why));
    let (heartbeat, min, max) = (
        settings.heartbeat_ms,
        settings.election_min_ms,
        settings.election_max_ms,
    );
    if heartbeat == 0 || heartbeat * 3 > min || min >= max {
        return wrong(format!(
            "heartbeat {heartbeat} ms, election_min {min} ms, election_max {max} ms: \
             three heartbeats must fit election_min, and election_min must be below election_max"
        ));
    }
    let bind = settings.bind_addr.iter();
    let addresses = || {
        bind.clone()
            .chain(Some(&settings.self_addr).filter(|addr| !addr.is_empty()))
            .chain(&settings.partners)
    };
    if settings.self_addr.is_empty() && settings.partners.is_empty() {
        return wrong("without self_addr this node takes part through its partners: list some".to_owned());
    }
    for addr in addresses() {
        match addr.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {}
            _ => return wrong(format!("{addr:?} is not an address like host:2222")),
        }
    }
    if settings.password.is_none()
        && settings.tls.is_none()
        && let Some(addr) = addresses().find(|addr| !is_loopback(addr))
    {
        return wrong(format!(
            "{addr} is not a loopback address: set password or certfile, keyfile and cafile"
        ));
    }
    Ok(())
}

fn is_loopback(addr: &str) -> bool {
    let host = addr
        .rsplit_once(':')
        .map_or(addr, |(host, _)| host)
        .trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(crate) fn open_store(settings: &Settings) -> Result<Arc<dyn Log>, StartError> {
    let dir: &Path = &settings.data_dir;
    let opened = Store::open(dir, &settings.cluster, Options::default());
    opened
        .map(|store| Arc::new(store) as Arc<dyn Log>)
        .map_err(|e| StartError::Store {
            dir: dir.to_owned(),
            why: e.to_string(),
        })
}

pub(crate) fn load<T: Sealed>(store: &dyn Log, key: Meta) -> std::io::Result<Option<T>> {
    match store.get(key).map_err(std::io::Error::other)? {
        Some(bytes) => Ok(Some(open(&bytes)?)),
        None => Ok(None),
    }
}

/// What the store holds at the start.
pub(crate) fn known(store: &dyn Log, settings: &Settings) -> std::io::Result<form::Known> {
    let mut record = own_record(store, settings)?;
    let formation = load::<FormationBytes>(store, Meta::Formation)?;
    if formation.is_some() {
        record.foundation = record.foundation.max(form::FORMED);
    }
    Ok(form::Known { record, formation })
}

/// What the store says of its node. An empty store gets its claim here, once and durably, so that partners can tell a
/// restarted store from a wiped one.
fn own_record(store: &dyn Log, settings: &Settings) -> std::io::Result<NodeBytes> {
    if let Some(record) = load::<NodeBytes>(store, Meta::Node)? {
        return Ok(record);
    }
    // 0 is the founders' incarnation.
    let incarnation = u64::from_le_bytes(random()?).max(1);
    let record = NodeBytes {
        addr: settings.self_addr.clone(),
        incarnation,
        generation: 0,
        foundation: 0,
        admitted: false,
    };
    store
        .put(Meta::Node, seal(&record)?)
        .map_err(std::io::Error::other)?;
    Ok(record)
}
