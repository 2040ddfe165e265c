//! Waits until the transactions and log-ins under way have ended, so that a stop for a handover breaks none of them.

use super::processes::children;
use super::session::{bounded, refused};
use super::{PostgresError, Session};
use crate::clock;
use crate::cluster::Moment;
use std::time::Duration;

/// News of a shut gate has reached every proxy by then, and what they had passed on before has begun.
const NEWS: Duration = Duration::from_millis(60);
/// Everybody else waits for the next primary: transactions that take longer are broken, unless others end all the time,
const LEAST_MS: u64 = 400;
/// one at least in this time,
const PROGRESS_MS: u64 = 200;
/// and at last then.
const MOST_MS: u64 = 2_000;
/// More than all of that together.
const DRAIN: Duration = Duration::from_millis(2_500);
/// A log-in that takes longer behind the news is broken: its client may be slow, or not be one.
const LOG_INS_MS: u64 = 100;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Clients that are in a transaction or just begin one.
const AT_WORK: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' \
     AND pid <> pg_catalog.pg_backend_pid() AND state <> 'idle' AND application_name NOT LIKE 'matriarch%'";

impl Session {
    /// Waits until no client is in a transaction or logs in, as long as a handover can wait.
    ///
    /// # Errors
    /// The server does not answer; the stop is due all the same.
    pub async fn drain(&self, postmaster: Option<i32>) -> Result<(), PostgresError> {
        let work = async {
            let ((), live) = tokio::join!(tokio::time::sleep(NEWS), self.connect());
            let (live, begun) = (live?, clock::now());
            let mut patience = Patience::new(begun);
            loop {
                let row = live.client.query_one(AT_WORK, &[]).await;
                let at_work: i64 = row
                    .and_then(|row| row.try_get(0))
                    .map_err(refused("say who is at work"))?;
                let now = clock::now();
                let late = now.since(begun) >= LOG_INS_MS;
                let logs_in = !late && postmaster.is_some_and(somebody_logs_in);
                if at_work == 0 && !logs_in {
                    return Ok(());
                }
                if patience.is_over(at_work, now) {
                    tracing::info!("{at_work} transactions are broken off: they did not end in time");
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        bounded("the end of transactions under way", DRAIN, work).await
    }
}

/// How long transactions are awaited: at a busy server, where they wait for each other, longer than where one stands still.
#[derive(Debug)]
struct Patience {
    begun: Moment,
    fewest: i64,
    progress: Moment,
}

impl Patience {
    fn new(begun: Moment) -> Self {
        Self {
            begun,
            fewest: i64::MAX,
            progress: begun,
        }
    }

    /// So many are at work at this moment.
    fn is_over(&mut self, at_work: i64, now: Moment) -> bool {
        if at_work < self.fewest {
            (self.fewest, self.progress) = (at_work, now);
        }
        let stands = now.since(self.progress) >= PROGRESS_MS;
        let spent = now.since(self.begun);
        spent >= MOST_MS || spent >= LEAST_MS && stands
    }
}

/// Whether a server process is between its start and its first rest; pg_stat_activity does not show it yet.
fn somebody_logs_in(postmaster: i32) -> bool {
    children(postmaster).iter().any(|(_, title)| logs_in(title))
}

fn logs_in(title: &str) -> bool {
    let stages = ["initializing", "authentication", "startup"];
    let stage = title.trim_end_matches([' ', '\0']).rsplit(' ').next();
    let client = title.starts_with("postgres: ") && title.contains('(') && !title.contains("walsender ");
    client && stage.is_some_and(|it| stages.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_gets_longer_than_a_transaction_that_stands_still() {
        let over = |shown: &dyn Fn(u64) -> i64| {
            let mut patience = Patience::new(Moment(0));
            let mut looks = (0..5_000).step_by(5);
            looks.find(|ms| patience.is_over(shown(*ms), Moment(*ms)))
        };
        assert_eq!(over(&|_| 1), Some(LEAST_MS));
        assert_eq!(over(&|ms| if ms < 300 { 2 } else { 1 }), Some(300 + PROGRESS_MS));
        // One ends every tenth of a second, of more than can end.
        assert_eq!(
            over(&|ms| 1_000 - i64::try_from(ms / 100).unwrap()),
            Some(MOST_MS)
        );
    }

    #[test]
    fn a_log_in_is_known_by_its_title() {
        assert!(logs_in(
            "postgres: herd: app shop 10.0.0.9(41234) authentication\0"
        ));
        assert!(logs_in("postgres: app shop 10.0.0.9(41234) startup "));
        assert!(!logs_in("postgres: herd: app shop 10.0.0.9(41234) idle\0\0"));
        assert!(!logs_in(
            "postgres: walsender replicator 10.0.0.9(41234) authentication\0"
        ));
        assert!(!logs_in(
            "postgres: startup recovering 000000010000000000000003\0"
        ));
        assert!(
            !logs_in("postgres: herd: startup \0"),
            "the process that recovers"
        );
    }
}
