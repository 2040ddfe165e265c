//! The only place that asks the time.

use crate::cluster::Moment;
use nix::time::{ClockId, clock_gettime};

/// The machine's boot-time clock (it counts suspended time), in milliseconds.
pub fn now() -> Moment {
    Moment(boot_ns() / 1_000_000)
}

/// The machine's boot-time clock in nanoseconds; the guard's deadlines are kept in these.
pub fn boot_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(t) => {
            u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
        }
        // Linux has had this clock since 2.6.39; without it there is no safe lease, so no time passes as zero.
        Err(_) => u64::MAX,
    }
}

/// Wall time in milliseconds since 1970, for people; nothing compares it.
pub fn wall_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(0))
        .unwrap_or(0)
}
