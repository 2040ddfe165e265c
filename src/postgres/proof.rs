//! The primary's proof that the standbys it counts now have everything that any others ever acknowledged.

use super::session::{Live, bounded, refused};
use super::{PostgresError, Session};
use crate::cluster::Lsn;
use std::time::Duration;

/// How often the standbys' positions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bound of one look.
const LOOK: Duration = Duration::from_secs(1);
/// One attempt; a standby that is away may need several.
const ATTEMPT: Duration = Duration::from_secs(30);

/// What is to be proved.
#[derive(Clone, Debug)]
pub struct Proof {
    /// `synchronous_standby_names` as it was written.
    pub names: String,
    /// The names that count.
    pub members: Vec<String>,
    /// How many of them must have everything.
    pub count: u32,
    /// The names that counted before and do not any more; all of them where more are needed than before.
    pub dropped: Vec<String>,
    /// The server ran without any names before.
    pub first: bool,
}

impl Session {
    /// Carries out the proof on a connection of its own. The steps, and what each is for:
    ///
    /// 1. A backend forked after the postmaster read the new names shows them: every process has been told.
    /// 2. After a start without names, backends wait only once the checkpointer has noticed; a checkpoint asked for
    ///    after that is begun by a checkpointer that has.
    /// 3. The streams of names that no longer count are ended and seen gone: their walsenders might still go by the
    ///    names they had read, and new ones cannot.
    /// 4. A record written now is flushed by `count` of the members, and with it all that was acknowledged before.
    ///
    /// It waits by looking at positions, not by a commit that waits: a commit that is given up leaves a backend behind
    /// that waits for ever.
    pub async fn prove(&self, proof: &Proof) -> Result<(), PostgresError> {
        bounded(
            "the proof of the synchronous standbys",
            ATTEMPT,
            self.attempt(proof),
        )
        .await
    }

    async fn attempt(&self, proof: &Proof) -> Result<(), PostgresError> {
        let live = loop {
            let live = self.connect().await?;
            if text(
                &live,
                "SELECT pg_catalog.current_setting('synchronous_standby_names')",
            )
            .await?
                == proof.names
            {
                break live;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let sql = |what| refused(what);
        if proof.count == 0 {
            return Ok(());
        }
        if proof.first {
            live.client
                .batch_execute("CHECKPOINT")
                .await
                .map_err(sql("write a checkpoint"))?;
        }
        self.end_streams(&live, &proof.dropped).await?;
        let mark = "SET synchronous_commit = local; \
             SELECT pg_catalog.pg_logical_emit_message(true, 'matriarch', 'synchronous standbys')";
        live.client
            .batch_execute(mark)
            .await
            .map_err(sql("write a record"))?;
        let position = text(&live, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").await?;
        let mark: Lsn = position.parse().unwrap_or_default();
        const HAVE: &str = "SELECT count(DISTINCT lower(application_name)) FROM pg_catalog.pg_stat_replication \
             WHERE lower(application_name) = ANY($1) AND state = 'streaming' AND flush_lsn >= $2::text::pg_lsn";
        let members: Vec<String> = proof.members.iter().map(|name| name.to_lowercase()).collect();
        loop {
            let row = live.client.query_one(HAVE, &[&members, &mark.to_string()]).await;
            let have: i64 = row
                .and_then(|row| row.try_get(0))
                .map_err(sql("say what its standbys have"))?;
            if have >= i64::from(proof.count) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn end_streams(&self, live: &Live, names: &[String]) -> Result<(), PostgresError> {
        if names.is_empty() {
            return Ok(());
        }
        const END: &str = "SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_replication \
             WHERE lower(application_name) = ANY($1)";
        const LEFT: &str = "SELECT count(*) FROM pg_catalog.pg_stat_get_activity(NULL) WHERE pid = ANY($1)";
        let names: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let rows = live
            .client
            .query(END, &[&names])
            .await
            .map_err(refused("end a stream"))?;
        let pids: Vec<i32> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        loop {
            let row = live.client.query_one(LEFT, &[&pids]).await;
            let left: i64 = row
                .and_then(|row| row.try_get(0))
                .map_err(refused("say who streams"))?;
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn text(live: &Live, sql: &str) -> Result<String, PostgresError> {
    let row = live.client.query_one(sql, &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(refused("answer"))
}

impl Session {
    /// Whether a standby has read that it is to stream from nobody, and no process of its receives, nor is about to:
    /// one that still connects is not shown by `pg_stat_wal_receiver`.
    pub async fn receives_nothing(&self) -> Result<bool, PostgresError> {
        const SQL: &str = "SELECT (pg_catalog.current_setting('primary_conninfo') = '' AND NOT EXISTS (SELECT FROM \
             pg_catalog.pg_stat_get_activity(NULL) WHERE backend_type = 'walreceiver'))::text";
        let work = async { Ok(text(&self.connect().await?, SQL).await? == "true") };
        bounded("a look at the receiver", LOOK, work).await
    }
}
