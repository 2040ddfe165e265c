//! How far back the log in pg_wal reaches: who needs an older segment gets it from an archive, or not at all.

use super::Postgres;
use crate::cluster::Lsn;

impl Postgres {
    /// Where the oldest segment of the log begins, of whatever timeline; blocking. `None` when there is none.
    pub fn oldest_wal(&self) -> Option<Lsn> {
        let entries = std::fs::read_dir(self.data_dir().join("pg_wal")).ok()?;
        let starts = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            // Its length tells the size of all.
            segment_start(name.to_str()?, entry.metadata().ok()?.len())
        });
        starts.min()
    }
}

/// `TTTTTTTTXXXXXXXXYYYYYYYY`: the timeline, and the number of the segment in two parts.
fn segment_start(name: &str, size: u64) -> Option<Lsn> {
    if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) || !size.is_power_of_two() {
        return None;
    }
    let part = |range| u64::from_str_radix(name.get(range)?, 16).ok();
    let (high, low) = (part(8..16)?, part(16..24)?);
    let start = low
        .checked_mul(size)
        .filter(|start| *start <= u64::from(u32::MAX))?;
    Some(Lsn((high << 32) + start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_begins_where_its_name_says() {
        const SIZE: u64 = 16 << 20;
        let lsn = |text: &str| text.parse::<Lsn>().ok();
        for (name, expected) in [
            ("000000010000000000000001", lsn("0/1000000")),
            ("0000000300000002000000FF", lsn("2/FF000000")),
            ("00000003.history", None),
            ("000000010000000000000001.partial", None),
            ("archive_status", None),
        ] {
            assert_eq!(segment_start(name, SIZE), expected, "{name}");
        }
        assert_eq!(
            segment_start("000000010000000000000001", 1_000),
            None,
            "an unfinished file"
        );
    }
}
