//! The members' physical replication slots on the local server: made, taken along, dropped.

use super::session::{ACT, Session, bounded, refused};
use super::{PostgresError, slot_name};
use crate::cluster::{Lsn, MemberName};

impl Session {
    /// Makes sure that every member has its physical slot, and one that keeps log: what lost its log, or never had any,
    /// is made anew, because nobody could stream through it. No other is dropped.
    ///
    /// # Errors
    /// The server does not answer, or has no room for another slot (`max_replication_slots`).
    pub async fn ensure_slots(&self, members: &[MemberName]) -> Result<(), PostgresError> {
        const BROKEN: &str = "wal_status IS NOT DISTINCT FROM 'lost' OR restart_lsn IS NULL";
        self.make_slots(members, BROKEN).await
    }

    /// The same on a standby, where a slot also must not keep rows from being cleaned up: what a standby of its own
    /// asked for while this server was primary would be asked of the primary now, for ever.
    ///
    /// # Errors
    /// As above.
    pub async fn ensure_spare_slots(&self, members: &[MemberName]) -> Result<(), PostgresError> {
        const BROKEN: &str = "wal_status IS NOT DISTINCT FROM 'lost' OR restart_lsn IS NULL \
             OR xmin IS NOT NULL OR catalog_xmin IS NOT NULL";
        self.make_slots(members, BROKEN).await
    }

    async fn make_slots(&self, members: &[MemberName], broken: &str) -> Result<(), PostgresError> {
        const CREATE: &str = "SELECT pg_catalog.pg_create_physical_replication_slot($1::text::name, true) \
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text::name)";
        if members.is_empty() {
            return Ok(());
        }
        let names = names(members);
        let drop = format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = ANY($1::text[]::name[]) AND slot_type = 'physical' AND NOT active AND ({broken})"
        );
        let work = async {
            let live = self.connect().await?;
            let dropped = live.client.execute(&drop, &[&names]).await;
            dropped.map_err(refused("drop a replication slot"))?;
            for slot in &names {
                let made = live.client.execute(CREATE, &[slot]).await;
                made.map_err(refused("create a replication slot"))?;
            }
            Ok(())
        };
        bounded("the creation of replication slots", ACT, work).await
    }

    /// Lets go of the log before these places, on a standby: as far as it has been replayed here, and never back.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn advance_slots(&self, reached: &[(MemberName, Lsn)]) -> Result<(), PostgresError> {
        const ADVANCE: &str = "SELECT pg_catalog.pg_replication_slot_advance(s.slot_name, least(t.place::pg_lsn, r.replayed)) \
             FROM (SELECT pg_catalog.pg_last_wal_replay_lsn() AS replayed OFFSET 0) r, \
               unnest($1::text[], $2::text[]) AS t(name, place) \
             JOIN pg_catalog.pg_replication_slots s ON s.slot_name = t.name::name \
             WHERE s.slot_type = 'physical' AND NOT s.active AND s.restart_lsn < least(t.place::pg_lsn, r.replayed)";
        if reached.is_empty() {
            return Ok(());
        }
        let (names, places): (Vec<String>, Vec<String>) = reached
            .iter()
            .map(|(member, place)| (slot_name(member.as_str()), place.to_string()))
            .unzip();
        let work = async {
            let live = self.connect().await?;
            let moved = live.client.execute(ADVANCE, &[&names, &places]).await;
            moved.map(|_| ()).map_err(refused("advance a replication slot"))
        };
        bounded("the advance of replication slots", ACT, work).await
    }

    /// Drops the physical slots of these members as far as nobody uses them; one that also stands for a member of
    /// `keep` stays.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn drop_slots(&self, members: &[MemberName], keep: &[MemberName]) -> Result<(), PostgresError> {
        const DROP: &str = "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = ANY($1::text[]::name[]) AND slot_type = 'physical' AND NOT active";
        let keep = names(keep);
        let mut names = names(members);
        names.retain(|name| !keep.contains(name));
        if names.is_empty() {
            return Ok(());
        }
        let work = async {
            let live = self.connect().await?;
            let dropped = live.client.execute(DROP, &[&names]).await;
            dropped.map(|_| ()).map_err(refused("drop a replication slot"))
        };
        bounded("the removal of replication slots", ACT, work).await
    }

    /// Ends who streams through the slots of these members, and drops them; answers whether all are gone.
    pub async fn take_slots(&self, members: &[MemberName]) -> Result<bool, PostgresError> {
        const END: &str = "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = ANY($1::text[]::name[]) AND slot_type = 'physical' AND active";
        const LEFT: &str = "SELECT count(*) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = ANY($1::text[]::name[]) AND slot_type = 'physical'";
        let names = names(members);
        let work = async {
            let live = self.connect().await?;
            let ended = live.client.execute(END, &[&names]).await;
            ended.map(|_| ()).map_err(refused("end a replication connection"))
        };
        bounded("the end of replication connections", ACT, work).await?;
        self.drop_slots(members, &[]).await?;
        let work = async {
            let live = self.connect().await?;
            let row = live.client.query_one(LEFT, &[&names]).await;
            row.map(|row| row.get::<_, i64>(0) == 0)
                .map_err(refused("count the replication slots"))
        };
        bounded("a look at the replication slots", ACT, work).await
    }
}

fn names(members: &[MemberName]) -> Vec<String> {
    members.iter().map(|member| slot_name(member.as_str())).collect()
}
