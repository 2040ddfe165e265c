//! `--scheduled`: a moment as people write it.

use super::out::CliError;
use crate::clock;
use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// An example for questions: an hour from now.
pub(super) fn example() -> String {
    let hour = now(TimeZone::system()).saturating_add(jiff::SignedDuration::from_hours(1));
    hour.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// The moment in ISO 8601 with its zone, or `None` for now. A moment without a zone is local.
pub(super) fn parse(text: &str) -> Result<Option<String>, CliError> {
    parse_in(text, &now(TimeZone::system()))
}

fn now(zone: TimeZone) -> Zoned {
    let ms = i64::try_from(clock::wall_ms()).unwrap_or(0);
    Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(zone)
}

fn parse_in(text: &str, now: &Zoned) -> Result<Option<String>, CliError> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("now") {
        return Ok(None);
    }
    let moment = read(text, now).ok_or_else(|| {
        CliError::Refused(format!(
            "Unable to parse scheduled timestamp ({text}): write one such as 2030-01-31T22:15 or 2030-01-31T22:15+01:00"
        ))
    })?;
    Ok(Some(iso(&moment)))
}

fn read(text: &str, now: &Zoned) -> Option<Zoned> {
    if let Ok(time) = text.parse::<Time>()
        && text.contains(':')
        && text.len() <= "hh:mm:ss".len()
    {
        return now
            .date()
            .to_datetime(time)
            .to_zoned(now.time_zone().clone())
            .ok();
    }
    // A zone may stand behind a space.
    let joined = match text.rsplit_once(' ') {
        Some((moment, zone)) if zone.starts_with(['+', '-', 'Z']) => format!("{moment}{zone}"),
        _ => text.to_owned(),
    };
    let pieces = Pieces::parse(&joined).ok()?;
    let civil = pieces
        .date()
        .to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let zone = match pieces.to_numeric_offset() {
        Some(offset) => TimeZone::fixed(offset),
        None => now.time_zone().clone(),
    };
    civil.to_zoned(zone).ok()
}

/// As Python's isoformat has it, which is what other tools compare with.
fn iso(moment: &Zoned) -> String {
    let pattern = if moment.subsec_nanosecond() == 0 {
        "%Y-%m-%dT%H:%M:%S%:z"
    } else {
        "%Y-%m-%dT%H:%M:%S.%6f%:z"
    };
    moment.strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now: Zoned = "2026-11-21T02:42:38+02:00[+02:00]".parse().unwrap();
        for (text, expected) in [
            ("now", None),
            ("", None),
            ("2099-01-01T00:00", Some("2099-01-01T00:00:00+02:00")),
            ("2099-01-01 00:00:01", Some("2099-01-01T00:00:01+02:00")),
            ("2099-01-01T00:00+00", Some("2099-01-01T00:00:00+00:00")),
            ("2099-01-01T00:00Z", Some("2099-01-01T00:00:00+00:00")),
            ("2099-01-01 00:00 +01:00", Some("2099-01-01T00:00:00+01:00")),
            (
                "2099-01-01T00:00:00.5+00:00",
                Some("2099-01-01T00:00:00.500000+00:00"),
            ),
            ("2099-01-01", Some("2099-01-01T00:00:00+02:00")),
            ("23:15", Some("2026-11-21T23:15:00+02:00")),
        ] {
            assert_eq!(parse_in(text, &now).unwrap().as_deref(), expected, "{text}");
        }
        for bad in ["tomorrow", "2099-13-01T00:00", "12"] {
            assert!(parse_in(bad, &now).is_err(), "{bad}");
        }
    }
}
