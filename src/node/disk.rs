//! Whether PostgreSQL could write to a directory: room, mount and, where nothing else writes there, a real write.

use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// A running server goes on in its log files until it needs room; with less than this it cannot store a row.
const RUNNING_NEEDS: u64 = 2 * MIB;
/// A start replays the log, writes a checkpoint and asks for log files of 16 MB each.
const START_NEEDS: u64 = 24 * MIB;
/// Once full, a disk is usable again only with some room more, or the next minute would fill it.
const RETURN_NEEDS: u64 = 48 * MIB;

/// How much is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// PostgreSQL runs there.
    GoOn,
    /// It is to be started.
    Start,
    /// The same, after the disk was found unusable.
    Return,
}

/// Looks at each directory, or at what is nearest above it; says what is wrong with the first bad one.
pub fn judge(dirs: &[PathBuf], need: Need) -> Result<(), String> {
    dirs.iter().try_for_each(|dir| {
        one(nearest(dir), need).map_err(|why| format!("the disk of {} {why}", dir.display()))
    })
}

fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(dir)
}

fn one(dir: &Path, need: Need) -> Result<(), String> {
    let stat = statvfs(dir).map_err(|why| format!("cannot be looked at: {}", io::Error::from(why)))?;
    // For the owner of the data; root would have the reserved blocks too.
    let left = match stat.blocks() {
        // It does not count.
        0 => u64::MAX,
        _ => stat.blocks_available().saturating_mul(stat.fragment_size()),
    };
    room(left, stat.flags().contains(FsFlags::ST_RDONLY), need)?;
    if need == Need::GoOn {
        return Ok(());
    }
    write(dir).map_err(|why| match why.kind() {
        io::ErrorKind::StorageFull => full(left),
        io::ErrorKind::ReadOnlyFilesystem => READ_ONLY.to_owned(),
        _ => format!("cannot be written: {why}"),
    })
}

const READ_ONLY: &str = "is read-only";

fn full(left: u64) -> String {
    format!("is full ({} MB left)", left / MIB)
}

fn room(left: u64, read_only: bool, need: Need) -> Result<(), String> {
    let least = match need {
        Need::GoOn => RUNNING_NEEDS,
        Need::Start => START_NEEDS,
        Need::Return => RETURN_NEEDS,
    };
    match (read_only, left < least) {
        (true, _) => Err(READ_ONLY.to_owned()),
        (_, true) => Err(full(left)),
        _ => Ok(()),
    }
}

/// A file without a name: an interrupted probe leaves nothing behind that an inspection could wonder about.
fn write(dir: &Path) -> io::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(dir);
    let mut file = match opened {
        Ok(file) => file,
        // A file system that knows no such files is judged by its room alone.
        Err(why) if matches!(why.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            return Ok(());
        }
        Err(why) => return Err(why),
    };
    file.write_all(&[0_u8; 8_192])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_room_is_usable_and_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned(), dir.path().join("not/yet/there")];
        for need in [Need::GoOn, Need::Start, Need::Return] {
            assert_eq!(judge(&dirs, need), Ok(()));
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_keeps_from_writing_is_told() {
        let why = write(Path::new("/nowhere")).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn how_much_room_is_enough() {
        let said = |mib, need| room(mib * MIB, false, need).err();
        assert_eq!(said(3, Need::GoOn), None);
        assert_eq!(said(1, Need::GoOn).as_deref(), Some("is full (1 MB left)"));
        assert_eq!(said(23, Need::Start).as_deref(), Some("is full (23 MB left)"));
        assert_eq!(said(30, Need::Start), None);
        assert_eq!(said(30, Need::Return).as_deref(), Some("is full (30 MB left)"));
        assert_eq!(room(1 << 40, true, Need::GoOn).err().as_deref(), Some(READ_ONLY));
    }
}
