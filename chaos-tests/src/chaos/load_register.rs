//! Clients that read a register and set it if it still holds what they read.

use crate::chaos::dice::Dice;
use crate::chaos::history::{Fate, RegisterOp};
use crate::chaos::load::{self, Crew};
use crate::chaos::session::{Aim, STAMP, Session};
use matriarch::clock::boot_ns;
use std::time::Duration;

/// The registers.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS registers (k bigint PRIMARY KEY, v bigint, version bigint); \
     INSERT INTO registers SELECT k, 0, 0 FROM generate_series(0, 2) AS k ON CONFLICT DO NOTHING";
/// How many there are.
const REGISTERS: u64 = 3;
/// Pause between two operations.
const PACE: Duration = Duration::from_millis(15);

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
    let read = format!("SELECT v, version, {STAMP} FROM registers WHERE k = $1");
    let set = format!(
        "UPDATE registers SET v = $2, version = version + 1 WHERE k = $1 AND v = $3 \
         RETURNING v, version, {STAMP}"
    );
    let (Ok(read), Ok(set)) = (session.prepare(&read).await, session.prepare(&set).await) else {
        return;
    };
    let mut last = 0;
    while crew.goes_on() {
        let key = i64::try_from(dice.below(REGISTERS)).unwrap();
        let wrote = (!dice.one_in(3)).then(|| crew.number());
        let expected: i64 = last;
        let mut call = session.call(number);
        let before = session.unwaited();
        let answer = match &wrote {
            None => session.rows(&read, &[&key]).await,
            Some(value) => session.rows(&set, &[&key, value, &expected]).await,
        };
        let mut saw = None;
        call.fate = match &answer {
            Ok(rows) => {
                if let Some(row) = rows.first() {
                    saw = Some((row.get(0), row.get(1)));
                    (call.timeline, call.lsn) = (row.get(2), row.get(3));
                }
                Fate::Ok
            }
            Err(failure) => failure.of_commit(),
        };
        let unwaited = session.unwaited() - before;
        if unwaited > 0 {
            crew.note_unwaited(unwaited);
            call.fate = Fate::Unknown;
        }
        call.end = boot_ns();
        let fate = call.fate;
        let op = RegisterOp {
            call,
            key,
            wrote,
            saw,
        };
        // The next comparison is with a register of the same number only by chance: some must fail.
        last = saw.map_or(last, |(value, _)| value);
        crew.history.lock().unwrap().registers.push(op);
        if fate == Fate::Unknown || session.client.is_closed() {
            return;
        }
        let pause = if fate == Fate::Failed { PACE * 4 } else { PACE };
        tokio::time::sleep(pause).await;
    }
}
