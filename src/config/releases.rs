//! Releases of PostgreSQL with a fault that breaks what we promise, and the ones that mend it.

use crate::cluster::{Settings, SyncMode};

/// "Fix race condition in handling of synchronous_standby_names immediately after startup" in the release notes of
/// May 2025; later major versions never had it.
const START_RACE_MENDED: [u32; 5] = [130_021, 140_018, 150_013, 160_009, 170_005];

/// What is wrong with this server (`server_version_num`) for these settings, and which release mends it.
pub fn start_race(settings: &Settings, version: u32) -> Option<String> {
    if settings.synchronous_mode == SyncMode::Off {
        return None;
    }
    let mended = START_RACE_MENDED
        .into_iter()
        .find(|mended| mended / 10_000 == version / 10_000 && version < *mended)?;
    Some(format!(
        "PostgreSQL {} may acknowledge commits right after a start without waiting for a standby, in spite of \
         synchronous_mode; upgrade to {}",
        shown(version),
        shown(mended)
    ))
}

fn shown(version: u32) -> String {
    format!("{}.{}", version / 10_000, version % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_are_warned_of_in_synchronous_modes_only() {
        let settings = |synchronous_mode| Settings {
            synchronous_mode,
            ..Settings::default()
        };
        let quorum = settings(SyncMode::Quorum);
        assert_eq!(
            start_race(&quorum, 150_012).unwrap(),
            "PostgreSQL 15.12 may acknowledge commits right after a start without waiting for a standby, in spite of \
             synchronous_mode; upgrade to 15.13"
        );
        for good in [130_021, 140_018, 150_013, 150_018, 160_009, 170_005, 180_000] {
            assert_eq!(start_race(&quorum, good), None, "{good}");
        }
        for bad in [130_020, 140_000, 160_008, 170_004] {
            assert!(start_race(&settings(SyncMode::On), bad).is_some(), "{bad}");
            assert_eq!(start_race(&settings(SyncMode::Off), bad), None);
        }
    }
}
