//! The shared memory id of a postmaster that was killed: its next start in the same directory frees it, and nothing else
//! does. A directory that is given up takes it along, or a machine runs out of ids (4096 by default) one by one.

use super::files;
use crate::sys;
use std::path::Path;

/// How deep below a directory data directories are looked for.
const DEPTH: usize = 4;

/// Frees what the last postmaster of this data directory left, if nobody uses it.
pub(super) fn free(data_dir: &Path) {
    let text = files::read(&data_dir.join("postmaster.pid"));
    if let Some((key, id)) = text.ok().flatten().as_deref().and_then(segment) {
        sys::free_shared_memory(key, id);
    }
}

/// The same for every data directory below this one.
pub fn free_below(dir: &Path) {
    below(dir, DEPTH);
}

fn below(dir: &Path, depth: usize) {
    free(dir);
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), depth);
        }
    }
}

/// Key and id, which stand in the seventh line of postmaster.pid.
fn segment(text: &str) -> Option<(i32, i32)> {
    let mut words = text.lines().nth(6)?.split_whitespace();
    // The key is printed without a sign.
    let key = words.next()?.parse::<u32>().ok()?.cast_signed();
    Some((key, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seventh_line_tells_key_and_id() {
        let text = "4711\n/srv/pg\n1763700000\n5432\n/run/postgresql\n*\n  10087030     98304\nready   \n";
        assert_eq!(segment(text), Some((10_087_030, 98_304)));
        assert_eq!(segment("4711\n/srv/pg\n"), None);
        assert_eq!(segment("a\nb\nc\nd\ne\nf\n\n"), None);
    }
}
