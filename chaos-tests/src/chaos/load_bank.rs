//! Clients that move money between accounts, and sometimes count it all.

use crate::chaos::dice::Dice;
use crate::chaos::history::{Call, Fate, Total, Transfer};
use crate::chaos::load::{self, Crew};
use crate::chaos::session::{Aim, Failure, STAMP, Session};
use matriarch::clock::boot_ns;
use std::time::Duration;

/// Accounts and the ledger.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS accounts (id bigint PRIMARY KEY, balance bigint NOT NULL); \
     CREATE TABLE IF NOT EXISTS ledger (id bigint, source bigint, target bigint, amount bigint); \
     INSERT INTO accounts SELECT n, 100 FROM generate_series(1, 8) AS n ON CONFLICT DO NOTHING";
/// All money there is.
pub const MONEY: i64 = 800;
/// Accounts.
const ACCOUNTS: u64 = 8;
/// Pause between two operations.
const PACE: Duration = Duration::from_millis(20);

/// A client that lives until the crew stops.
pub async fn client(crew: Crew, number: u32, aim: Aim) {
    let mut dice = Dice::new(u64::from(number));
    load::live(&crew, aim, |session| {
        let mut dice = Dice::new(dice.next_u64());
        let crew = crew.clone();
        async move { work(&crew, number, &session, &mut dice).await }
    })
    .await;
}

async fn work(crew: &Crew, number: u32, session: &Session, dice: &mut Dice) {
    while crew.goes_on() {
        let fate = if dice.one_in(5) {
            count(crew, number, session).await
        } else {
            transfer(crew, number, session, dice).await
        };
        if fate == Fate::Unknown || session.client.is_closed() {
            return;
        }
        if fate == Fate::Failed && session.run("ROLLBACK").await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn count(crew: &Crew, number: u32, session: &Session) -> Fate {
    let mut call = session.call(number);
    let Ok(statement) = session.prepare("SELECT sum(balance)::bigint FROM accounts").await else {
        return Fate::Failed;
    };
    let Ok(rows) = session.rows(&statement, &[]).await else {
        return Fate::Failed;
    };
    call.end = boot_ns();
    call.fate = Fate::Ok;
    let total = Total {
        call,
        sum: rows[0].get(0),
        on_standby: false,
    };
    crew.history.lock().unwrap().totals.push(total);
    Fate::Ok
}

async fn transfer(crew: &Crew, number: u32, session: &Session, dice: &mut Dice) -> Fate {
    let mut call = session.call(number);
    let id = crew.number();
    let before = session.unwaited();
    if fill(session, dice, id, &mut call).await.is_ok() {
        call.fate = match session.run("COMMIT").await {
            Ok(()) => Fate::Ok,
            Err(failure) => failure.of_commit(),
        };
        let unwaited = session.unwaited() - before;
        if unwaited > 0 {
            crew.note_unwaited(unwaited);
            call.fate = Fate::Unknown;
        }
    }
    call.end = boot_ns();
    let fate = call.fate;
    crew.history.lock().unwrap().transfers.push(Transfer { call, id });
    fate
}

/// Everything up to the commit. Accounts are locked in one order, so that nobody waits in a circle.
async fn fill(session: &Session, dice: &mut Dice, id: i64, call: &mut Call) -> Result<(), Failure> {
    let source = dice.between(1, ACCOUNTS);
    let target = 1 + (source + dice.below(ACCOUNTS - 1)) % ACCOUNTS;
    let amount = dice.between(1, 9);
    let change = |account: u64| {
        let sign = if account == source { '-' } else { '+' };
        format!("UPDATE accounts SET balance = balance {sign} {amount} WHERE id = {account}")
    };
    session.run("BEGIN").await?;
    session.run(&change(source.min(target))).await?;
    session.run(&change(source.max(target))).await?;
    session
        .run(&format!(
            "INSERT INTO ledger VALUES ({id}, {source}, {target}, {amount})"
        ))
        .await?;
    let stamp = session.prepare(&format!("SELECT {STAMP}")).await?;
    let rows = session.rows(&stamp, &[]).await?;
    (call.timeline, call.lsn) = (rows[0].get(0), rows[0].get(1));
    Ok(())
}
