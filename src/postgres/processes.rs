//! The children of a postmaster, with their titles.

use std::collections::BTreeMap;
use std::fs;

/// Process ids and titles; blocking, some microseconds for each. On a kernel that does not list children nobody is found.
pub(super) fn children(postmaster: i32) -> BTreeMap<i32, String> {
    let list = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
    let pids = list.unwrap_or_default();
    let title = |pid: i32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&bytes).into_owned()))
    };
    pids.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter_map(title)
        .collect()
}
