//! A driver that gives a statement 300 ms and then sends a cancel request, as drivers with a timeout do.

use crate::chaos::dice::Dice;
use crate::chaos::history::Fate;
use crate::chaos::load::{self, Crew};
use crate::chaos::session::{Aim, Session};
use crate::writer::{Outcome, Write};
use matriarch::clock::boot_ns;
use std::time::Duration;
use tokio_postgres::{NoTls, Statement};

/// When it loses patience.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause between two rows.
const PACE: Duration = Duration::from_millis(10);
/// Its rows' writer.
const WRITER: i32 = 50;

/// A client that lives until the crew stops.
pub async fn client(crew: Crew, number: u32) {
    let mut dice = Dice::new(u64::from(number));
    load::live(&crew, Aim::Primary, |session| {
        let mut dice = Dice::new(dice.next_u64());
        let crew = crew.clone();
        async move { work(&crew, &session, &mut dice).await }
    })
    .await;
}

async fn work(crew: &Crew, session: &Session, dice: &mut Dice) {
    // The sleep takes longer than the patience now and then, so that also without a standby something is cancelled.
    let text = "INSERT INTO judge SELECT $1, $2 FROM pg_sleep($3) \
         RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int";
    let Ok(insert) = session.prepare(text).await else {
        return;
    };
    while crew.goes_on() {
        let sleep = if dice.one_in(20) { 0.29 } else { 0.0 };
        let (write, fate) = insert_one(crew, session, &insert, sleep).await;
        crew.history.lock().unwrap().rows.push(write);
        if fate == Fate::Unknown || session.client.is_closed() {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn insert_one(crew: &Crew, session: &Session, insert: &Statement, sleep: f64) -> (Write, Fate) {
    let seq = crew.number();
    let before = session.unwaited();
    let sent = boot_ns();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&WRITER, &seq, &sleep];
    let mut answer = std::pin::pin!(session.rows(insert, &parameters));
    let in_time = tokio::time::timeout(PATIENCE, &mut answer).await;
    let answer = match in_time {
        Ok(answer) => answer,
        Err(_) => {
            let cancel = session.client.cancel_token();
            // A cancel request that does not arrive changes nothing: the answer is still waited for.
            let _ = tokio::time::timeout(Duration::from_secs(1), cancel.cancel_query(NoTls)).await;
            answer.await
        }
    };
    let unwaited = session.unwaited() - before;
    crew.note_unwaited(unwaited);
    let (outcome, fate) = match &answer {
        Ok(_) if unwaited > 0 => (Outcome::Unknown, Fate::Unknown),
        Ok(rows) => (
            Outcome::Acked {
                timeline: rows[0].get(0),
            },
            Fate::Ok,
        ),
        Err(failure) => match failure.of_commit() {
            Fate::Failed => (Outcome::Refused, Fate::Failed),
            fate => (Outcome::Unknown, fate),
        },
    };
    let write = Write {
        writer: WRITER,
        seq,
        node: session.node,
        sent,
        ended: boot_ns(),
        outcome,
    };
    (write, fate)
}
