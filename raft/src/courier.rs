//! Brings one message to a member's peer port without taking part in the group: for a process that outlives its member.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::time::timeout;

use crate::errors::{AskError, StartError};
use crate::net::auth::Credentials;
use crate::net::pool::Dialer;
use crate::net::throttle::Throttle;
use crate::net::tls::Tls;
use crate::settings::Settings;
use crate::types::Identity;
use crate::wire::envelope::{open, seal};
use crate::wire::message::{Lane, Request, Response};

/// Speaks under a member's name and credentials, and under no id: it opens no store, so it knows none.
pub struct Courier {
    dialer: Dialer,
}

impl Courier {
    /// Reads the certificates, if the group has some.
    pub fn new(settings: &Settings) -> Result<Courier, StartError> {
        let tls = settings
            .tls
            .as_ref()
            .map(|files| Tls::load(files, &settings.name))
            .transpose()?;
        let credentials = Credentials {
            cluster: settings.cluster.clone(),
            name: settings.name.clone(),
            addr: settings.self_addr.clone(),
            password: settings.password.clone().unwrap_or_default(),
            tls: RwLock::new(tls),
        };
        let dialer = Dialer {
            credentials: Arc::new(credentials),
            identity: Arc::new(RwLock::new(Identity::default())),
            connect: Duration::from_millis(settings.election_max_ms),
            introduce: Arc::new(|_| {}),
            farewell: Arc::new(|_| {}),
            throttle: Throttle::default(),
            spoken: Mutex::default(),
            #[cfg(test)]
            wire: std::sync::OnceLock::new(),
        };
        Ok(Courier { dialer })
    }

    /// Has the `Inbox` of whoever lives at `addr` handle a message.
    pub async fn deliver(
        &self,
        addr: &str,
        message: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let unreachable = |why: String| AskError::Unreachable {
            addr: addr.to_owned(),
            why,
        };
        let exchange = async {
            let mut frames = self.dialer.dial(addr, 0, Lane::Message).await?;
            let request = seal(&Request::Message(message)).map_err(|e| e.to_string())?;
            frames.write(&request).await.map_err(|e| e.to_string())?;
            let answer = frames.read().await.map_err(|e| e.to_string())?;
            open::<Response>(&answer).map_err(|e| e.to_string())
        };
        match timeout(deadline, exchange).await {
            Ok(Ok(Response::Message(answer))) => Ok(answer),
            Ok(Ok(other)) => Err(unreachable(format!("it answered something else: {other:?}"))),
            Ok(Err(why)) => Err(unreachable(why)),
            Err(_) => Err(AskError::Deadline {
                addr: addr.to_owned(),
                deadline_ms: deadline.as_millis() as u64,
            }),
        }
    }
}
