//! The power goes: an ext4 on a loop device is shut down under the writing child; what was not synced is gone.
//!
//! Needs root, loop devices and e2fsprogs; without them the test says what it skipped for. The mounts live in a
//! mount namespace of the test's own thread, so that they end with it however it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Chance, Judge};
use nix::sched::{CloneFlags, unshare};

/// Cuts with the protection on; nothing may be lost in any.
const CUTS: u64 = 25;

/// Cuts with `fdatasync` off; something must be lost in at least one.
const CUTS_UNPROTECTED: u64 = 10;

/// `FS_IOC_SHUTDOWN`, and its flag for "do not even write the journal".
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
static NO_LOG_FLUSH: u32 = 2;

#[test]
fn child() {
    common::child();
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let Some(mut disk) = Disk::prepare() else { return };
    let mut chance = Chance(1);
    let mut judge = Judge::default();
    for cut in 0..CUTS {
        disk.cut_while_writing(true, 1 + chance.below(400) as usize, &mut judge);
        judge
            .verdict(&disk.store())
            .unwrap_or_else(|what| panic!("cut {cut}: {what}"));
    }
    println!(
        "{CUTS} power cuts, {} acknowledgements checked, nothing lost",
        judge.lines
    );
}

#[test]
fn without_fdatasync_the_same_test_fails() {
    let Some(mut disk) = Disk::prepare() else { return };
    let mut chance = Chance(2);
    for cut in 0..CUTS_UNPROTECTED {
        let mut judge = Judge::default();
        disk.cut_while_writing(false, 50 + chance.below(400) as usize, &mut judge);
        if let Err(what) = judge.verdict(&disk.store()) {
            println!("lost at cut {cut}: {what}");
            return;
        }
        std::fs::remove_dir_all(disk.store()).unwrap();
    }
    panic!("nothing was lost in {CUTS_UNPROTECTED} cuts without fdatasync: this test proves nothing");
}

/// A file system whose power can be cut.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn prepare() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let skipped = if !run("mkfs.ext4", &[Path::new("-q"), &image]) {
            "mkfs.ext4"
        } else if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            "unshare (needs root)"
        } else if !run("mount", &[Path::new("--make-rprivate"), Path::new("/")]) {
            "mount --make-rprivate"
        } else {
            let disk = Self { dir };
            if disk.mount() {
                return Some(disk);
            }
            "mount -o loop"
        };
        println!("skipped: {skipped}");
        None
    }

    fn mount(&self) -> bool {
        run(
            "mount",
            &[
                Path::new("-o"),
                Path::new("loop"),
                &self.dir.path().join("image"),
                &self.mounted(),
            ],
        )
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn store(&self) -> PathBuf {
        self.mounted().join("raft")
    }

    /// Lets a child write until `enough` acknowledgements were heard, cuts the power, and brings it back.
    fn cut_while_writing(&mut self, fdatasync: bool, enough: usize, judge: &mut Judge) {
        let (mut child, mut lines) = common::spawn(&self.store(), fdatasync);
        let heard_before = judge.lines;
        while judge.lines - heard_before < enough {
            judge.hear(&lines.next().expect("the child lives until the power goes"));
        }
        let root = File::open(self.mounted()).unwrap();
        // SAFETY: the descriptor is open for the whole call and the argument is a valid pointer to the u32 it reads.
        let answer = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const NO_LOG_FLUSH) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        // The witness that the power is gone: the child's disk fails, and what it says until then counts.
        let failure = lines
            .by_ref()
            .inspect(|line| judge.hear(line))
            .find(|line| line.starts_with("failed"));
        let _ = child.kill();
        child.wait().unwrap();
        let failure = failure.expect("the child must notice that its disk is gone");
        assert!(failure.contains("Input/output error"), "{failure}");
        drop(root);
        assert!(
            run("umount", &[&self.mounted()]),
            "nothing holds the file system any more"
        );
        assert!(self.mount(), "the file system comes back");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[Path::new("-l"), &self.mounted()]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
