//! Keeps the addresses of the allowlist's host names fresh, off the path of any request.

use super::access::Resolved;
use super::serve::{Terms, member_hosts};
use crate::cluster::Facts;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// One name gets this long.
const LOOKUP: Duration = Duration::from_secs(5);
/// Between two looks at which names are wanted.
const LOOK: Duration = Duration::from_secs(1);
/// Known addresses are asked for again after so many looks.
const AGE: u32 = 60;

/// Runs for ever. A name that cannot be resolved now keeps the addresses it had: a name server that is away must not
/// lock the operators out.
pub(super) async fn keep(
    mut terms: watch::Receiver<Arc<Terms>>,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    resolved: watch::Sender<Arc<Resolved>>,
) {
    let (mut known, mut looks) = (BTreeSet::new(), 0);
    loop {
        let access = terms.borrow_and_update().access.clone();
        let wanted = access.names(&member_hosts(facts.borrow().as_deref()));
        if wanted != known || looks >= AGE {
            let old = resolved.borrow().clone();
            let found = look_up(&wanted, &old).await;
            resolved.send_replace(Arc::new(found));
            (known, looks) = (wanted, 0);
        }
        looks += 1;
        if access.has_names() {
            sleep(LOOK).await;
        } else if terms.changed().await.is_err() {
            // The door is closing, and this ends with it.
            std::future::pending::<()>().await;
        }
    }
}

async fn look_up(wanted: &BTreeSet<String>, old: &Resolved) -> Resolved {
    let mut found = Resolved::new();
    for name in wanted {
        let looked = timeout(LOOKUP, lookup_host((name.as_str(), 0))).await;
        let why = match looked {
            Ok(Ok(addresses)) => {
                let addresses = addresses.map(|address| address.ip().to_canonical());
                found.insert(name.clone(), addresses.collect());
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", LOOKUP.as_secs()),
        };
        match old.get(name).filter(|addresses| !addresses.is_empty()) {
            Some(addresses) => {
                found.insert(name.clone(), addresses.clone());
            }
            None => tracing::warn!("restapi.allowlist: {name} has no address and is let nowhere: {why}"),
        }
    }
    found
}
