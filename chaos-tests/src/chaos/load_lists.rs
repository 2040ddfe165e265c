//! Clients whose serializable transactions append to several lists and read them.

use crate::chaos::dice::Dice;
use crate::chaos::history::{Call, Fate, ListTxn, Step};
use crate::chaos::load::{self, Crew};
use crate::chaos::session::{Aim, Failure, STAMP, Session};
use matriarch::clock::boot_ns;
use std::time::Duration;
use tokio_postgres::Statement;

/// The lists.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS lists (k bigint PRIMARY KEY, v bigint[] NOT NULL)";
/// Lists in use at a time.
const ACTIVE: u64 = 4;
/// After so many numbers the next lists are used, so that none becomes long.
const PER_LIST: i64 = 400;
/// Pause between two transactions.
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

struct Statements {
    append: Statement,
    read: Statement,
    stamp: Statement,
}

async fn work(crew: &Crew, number: u32, session: &Session, dice: &mut Dice) {
    let Ok(statements) = prepare(session).await else {
        return;
    };
    while crew.goes_on() {
        let txn = transact(crew, number, session, &statements, dice).await;
        let fate = txn.call.fate;
        let steps = txn.steps.len();
        let is_broken = session.client.is_closed() || fate == Fate::Unknown;
        crew.history.lock().unwrap().lists.push(txn);
        if is_broken {
            return;
        }
        if fate == Fate::Failed && session.run("ROLLBACK").await.is_err() {
            return;
        }
        // A server that refuses all is asked less often.
        tokio::time::sleep(if steps == 0 { PACE * 5 } else { PACE }).await;
    }
}

async fn prepare(session: &Session) -> Result<Statements, Failure> {
    Ok(Statements {
        append: session
            .prepare(
                "INSERT INTO lists VALUES ($1, ARRAY[$2::bigint]) \
                 ON CONFLICT (k) DO UPDATE SET v = lists.v || excluded.v",
            )
            .await?,
        read: session.prepare("SELECT v FROM lists WHERE k = $1").await?,
        stamp: session.prepare(&format!("SELECT {STAMP}")).await?,
    })
}

async fn transact(
    crew: &Crew,
    number: u32,
    session: &Session,
    statements: &Statements,
    dice: &mut Dice,
) -> ListTxn {
    let mut call = session.call(number);
    let mut steps = Vec::new();
    let before = session.unwaited();
    let done = fill(crew, session, statements, dice, &mut call, &mut steps).await;
    if done.is_ok() {
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
    ListTxn { call, steps }
}

/// Everything up to the commit. What fails here has certainly not been committed.
async fn fill(
    crew: &Crew,
    session: &Session,
    statements: &Statements,
    dice: &mut Dice,
    call: &mut Call,
    steps: &mut Vec<Step>,
) -> Result<(), Failure> {
    session.run("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    for _ in 0..dice.between(1, 4) {
        let value = crew.number();
        let key = value / PER_LIST * 10 + i64::try_from(dice.below(ACTIVE)).unwrap();
        if dice.one_in(2) {
            steps.push(Step::Append(key, value));
            session.rows(&statements.append, &[&key, &value]).await?;
        } else {
            let rows = session.rows(&statements.read, &[&key]).await?;
            let seen = rows.first().map_or_else(Vec::new, |row| row.get(0));
            steps.push(Step::Read(key, seen));
        }
    }
    let stamp = session.rows(&statements.stamp, &[]).await?;
    (call.timeline, call.lsn) = (stamp[0].get(0), stamp[0].get(1));
    Ok(())
}
