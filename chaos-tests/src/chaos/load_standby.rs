//! Clients that read on one node while it is a standby.

use crate::chaos::history::{Call, Fate, StandbyRead, Total};
use crate::chaos::load::{self, Crew};
use crate::chaos::session::{Aim, Failure, Session};
use matriarch::clock::boot_ns;
use std::time::Duration;
use tokio_postgres::Statement;

/// Pause between two reads.
const PACE: Duration = Duration::from_millis(100);
/// The newest lists.
const LISTS: &str = "SELECT k, v FROM lists WHERE pg_is_in_recovery() ORDER BY k DESC LIMIT 5";
/// All money.
const TOTAL: &str = "SELECT sum(balance)::bigint FROM accounts WHERE pg_is_in_recovery()";

/// A client that lives until the crew stops.
pub async fn client(crew: Crew, number: u32, node: usize) {
    load::live(&crew, Aim::Node(node), |session| {
        let crew = crew.clone();
        async move {
            // Whatever fails here is a read that told nothing.
            let _ = work(&crew, number, &session).await;
        }
    })
    .await;
}

async fn work(crew: &Crew, number: u32, session: &Session) -> Result<(), Failure> {
    let lists = session.prepare(LISTS).await?;
    let total = session.prepare(TOTAL).await?;
    while crew.goes_on() {
        read(crew, session.call(number), session, &lists, &total).await?;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

async fn read(
    crew: &Crew,
    mut call: Call,
    session: &Session,
    lists: &Statement,
    total: &Statement,
) -> Result<(), Failure> {
    let lists: Vec<(i64, Vec<i64>)> = session
        .rows(lists, &[])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let sum: Option<i64> = session.rows(total, &[]).await?[0].get(0);
    call.end = boot_ns();
    call.fate = Fate::Ok;
    let mut history = crew.history.lock().unwrap();
    if let Some(sum) = sum {
        history.totals.push(Total {
            call: call.clone(),
            sum,
            on_standby: true,
        });
    }
    if !lists.is_empty() {
        history.standby_reads.push(StandbyRead { call, lists });
    }
    Ok(())
}
