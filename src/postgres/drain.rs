//! Waits until the transactions under way have ended, so that a stop for a handover breaks none of them.

use super::session::{bounded, refused};
use super::{PostgresError, Session};
use std::time::Duration;

/// News of a shut gate has reached every proxy by then, and what they had passed on before has begun.
const NEWS: Duration = Duration::from_millis(60);
/// Transactions that take longer are broken: everybody else waits for the next primary.
const DRAIN: Duration = Duration::from_millis(400);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Clients that are in a transaction or just begin one.
const AT_WORK: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' \
     AND pid <> pg_catalog.pg_backend_pid() AND state <> 'idle' AND application_name NOT LIKE 'matriarch%'";

impl Session {
    /// Waits until no client is in a transaction, as long as a handover can wait.
    ///
    /// # Errors
    /// Somebody still is, or the server does not answer; the stop is due all the same.
    pub async fn drain(&self) -> Result<(), PostgresError> {
        tokio::time::sleep(NEWS).await;
        let work = async {
            let live = self.connect().await?;
            loop {
                let row = live.client.query_one(AT_WORK, &[]).await;
                let at_work: i64 = row
                    .and_then(|row| row.try_get(0))
                    .map_err(refused("say who is at work"))?;
                if at_work == 0 {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        bounded("the end of transactions under way", DRAIN, work).await
    }
}
