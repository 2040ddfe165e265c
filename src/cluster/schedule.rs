//! A time that an operator typed, in Patroni's words where it cannot be used.

use super::handover::When;
use super::order::Done;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;

/// Reads a time for a scheduled `action` (`switchover`, `restart`); `now_ms` is the wall clock.
pub fn schedule(text: &str, action: &str, now_ms: u64) -> Result<When, Done> {
    let unclear = || {
        let why = "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601";
        Done::text(422, why)
    };
    let text = text.trim();
    let text = text
        .strip_suffix(" UTC")
        .or_else(|| text.strip_suffix(" GMT"))
        .map_or(text.to_owned(), |bare| format!("{bare}Z"));
    // A space before the offset is common in what people paste.
    let text = text.replacen(" +", "+", 1).replacen(" -", "-", 1);
    let pieces = Pieces::parse(&text).map_err(|_| unclear())?;
    let time = pieces.time().ok_or_else(unclear)?;
    let Some(offset) = pieces.to_numeric_offset() else {
        let why = format!("Timezone information is mandatory for the scheduled {action}");
        return Err(Done::text(400, why));
    };
    let zoned = pieces
        .date()
        .to_datetime(time)
        .to_zoned(TimeZone::fixed(offset))
        .map_err(|_| unclear())?;
    let ms = u64::try_from(zoned.timestamp().as_millisecond()).unwrap_or(0);
    if ms < now_ms {
        return Err(Done::text(422, format!("Cannot schedule {action} in the past")));
    }
    let fraction = if zoned.subsec_nanosecond() == 0 {
        ""
    } else {
        "%.6f"
    };
    let iso = zoned
        .strftime(&format!("%Y-%m-%dT%H:%M:%S{fraction}%:z"))
        .to_string();
    Ok(When { ms, iso })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type() {
        let now = 1_795_228_892_000; // 2026-11-21T02:41:32Z
        let iso = |text: &str| schedule(text, "switchover", now).map(|when| when.iso);
        for (text, shown) in [
            ("2099-01-01T00:00+00", "2099-01-01T00:00:00+00:00"),
            ("2099-01-01 00:00:00Z", "2099-01-01T00:00:00+00:00"),
            ("2099-01-01 10:30 UTC", "2099-01-01T10:30:00+00:00"),
            ("2099-01-01T10:30:00.25+02:00", "2099-01-01T10:30:00.250000+02:00"),
            ("2099-01-01 10:30:00 -0530", "2099-01-01T10:30:00-05:30"),
        ] {
            assert_eq!(iso(text).as_deref(), Ok(shown), "{text}");
        }
        for (text, status, why) in [
            (
                "2020-01-01T00:00+00",
                422,
                "Cannot schedule switchover in the past",
            ),
            (
                "2099-01-01T00:00",
                400,
                "Timezone information is mandatory for the scheduled switchover",
            ),
            (
                "tomorrow",
                422,
                "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
            ),
        ] {
            assert_eq!(iso(text), Err(Done::text(status, why)), "{text}");
        }
        let when = schedule("2026-11-21T03:41:33+01:00", "restart", now).unwrap();
        assert_eq!(when.ms, now + 1_000);
    }
}
