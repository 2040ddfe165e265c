//! pgBouncer's admin console: one connection, kept, so that an order costs no log-in when it matters.

use crate::config::{Pgbouncer, Reach};
use std::io;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

/// Bound of everything that has nothing to wait for.
const DEADLINE: Duration = Duration::from_secs(1);

/// A connection to it, ended when dropped.
pub(super) struct Console {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Console {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Console {
    /// Logs in.
    pub(super) async fn open(section: &Pgbouncer, reach: &Reach) -> io::Result<Self> {
        let mut config = Config::new();
        match reach {
            Reach::Path(dir) => config.host_path(dir).port(section.port),
            Reach::Tcp(host, port) => config.host(host).port(*port),
        };
        config.dbname("pgbouncer").user(&section.username);
        if let Some(password) = &section.password {
            config.password(password.reveal());
        }
        let connected = tokio::time::timeout(DEADLINE, config.connect(NoTls)).await;
        let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let (client, connection) = connected.map_err(|error| io::Error::other(words(&error)))?;
        let driver = tokio::spawn(async move {
            // Whoever asks next notices.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Gives every order, however long it takes. What was refused is the inner error: the console is well.
    pub(super) async fn order(&self, statements: &[String]) -> io::Result<Result<(), String>> {
        let mut outcome = Ok(());
        for statement in statements {
            match self.client.batch_execute(statement).await {
                Ok(()) => {}
                Err(error) if error.as_db_error().is_some() => outcome = Err(words(&error)),
                Err(error) => return Err(io::Error::other(words(&error))),
            }
        }
        Ok(outcome)
    }

    /// The same for orders that are carried out at once.
    pub(super) async fn order_now(&self, statements: &[String]) -> io::Result<Result<(), String>> {
        let outcome = tokio::time::timeout(DEADLINE, self.order(statements)).await;
        outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => refusal.message().to_owned(),
        None => error.to_string(),
    }
}
