//! Lease arithmetic: when a primary must have stopped, and when another may be made.
//!
//! The holder counts from the moment it *sent* the report that was answered; the leader counts from the
//! moment it answered, which is later, and adds the drift of clocks. Neither compares its clock with the
//! other's: both only measure how long something took. See design.md's rules 1 to 6.

use crate::cluster::Moment;

/// Two clocks are taken to run at the same rate within one part in a hundred (NTP slews by 0.05 %).
const DRIFT_PER_CENT: u64 = 1;
/// The guard's last process is gone at the deadline; this covers what was already on the wire.
pub const GUARD_SLACK_MS: u64 = 100;
/// The daemon stops PostgreSQL this long before the deadline.
pub const STOP_MARGIN_MS: u64 = 500;

/// In a pause a primary has no deadline. One that is ten years away stands for that: further than any machine runs, and
/// yet a number that the guard's page has room for.
pub const ENDLESS_MS: u64 = 10 * 365 * 86_400_000;

/// Whether this deadline stands for none.
pub fn is_endless(deadline: Moment, now: Moment) -> bool {
    deadline.since(now) > ENDLESS_MS / 2
}

/// The holder's deadline for a grant of `ttl_ms` that answered a report sent at `sent_at`.
pub fn deadline(sent_at: Moment, ttl_ms: u64) -> Moment {
    sent_at.plus(ttl_ms)
}

/// When the daemon must begin to stop a primary whose lease ends at `deadline`.
pub fn stop_at(deadline: Moment) -> Moment {
    Moment(deadline.0.saturating_sub(STOP_MARGIN_MS))
}

/// From when on no lease that anybody granted can still be running, on the leader's own clock: counted from
/// its last grant and from the moment it led with its own first entry applied, whichever is later.
pub fn move_at(lead_since: Moment, last_grant: Option<Moment>, wait_ttl_ms: u64) -> Moment {
    let from = last_grant.map_or(lead_since, |granted| granted.max(lead_since));
    from.plus(wait_ttl_ms + wait_ttl_ms * DRIFT_PER_CENT / 100 + GUARD_SLACK_MS)
}

/// The smallest ttl under which a change of Raft leader does not cost a healthy primary its lease.
pub fn smallest_ttl_ms(election_max_ms: u64, report_interval_ms: u64) -> u64 {
    3 * election_max_ms + report_interval_ms + STOP_MARGIN_MS + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_always_waits_longer_than_the_holder() {
        for ttl in [1_000, 2_000, 30_000, 300_000] {
            for (sent, answered) in [(0, 0), (5, 9), (100, 1_900)] {
                let holder_ends = deadline(Moment(sent), ttl);
                let leader_moves = move_at(Moment(0), Some(Moment(answered)), ttl);
                assert!(leader_moves.0 >= holder_ends.0 + ttl / 100 + GUARD_SLACK_MS);
            }
        }
    }

    #[test]
    fn a_new_leader_waits_from_its_own_start() {
        assert_eq!(move_at(Moment(10_000), None, 2_000), Moment(12_120));
        assert_eq!(
            move_at(Moment(10_000), Some(Moment(4_000)), 2_000),
            Moment(12_120)
        );
        assert_eq!(
            move_at(Moment(10_000), Some(Moment(14_000)), 2_000),
            Moment(16_120)
        );
    }

    #[test]
    fn the_default_ttl_outlives_an_election() {
        assert!(smallest_ttl_ms(400, 200) <= 2_000);
    }
}
