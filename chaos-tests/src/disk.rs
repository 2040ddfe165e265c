//! A small disk of its own for a node's data: an ext4 image on a loop device, which can be filled and made read-only.

use crate::herd::give_to_postgres;
use std::path::{Path, PathBuf};
use std::process::Command;

const BALLAST: &str = "ballast";

/// Why such disks cannot be made here, or nothing.
pub fn unavailable() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("small disks need root".to_owned());
    }
    let tools = ["mkfs.ext4", "mount", "umount", "fallocate"];
    let missing = tools
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_err());
    let loops = Path::new("/dev/loop-control").exists();
    match (missing, loops) {
        (Some(tool), _) => Some(format!("{tool} is not installed")),
        (None, false) => Some("there is no /dev/loop-control".to_owned()),
        _ => None,
    }
}

/// The mounted disk; dropping it takes it away.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    image: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many MiB.
    pub fn make(image: PathBuf, at: PathBuf, mib: u64) -> Self {
        std::fs::create_dir_all(&at).expect("the mount point is made");
        let file = std::fs::File::create(&image).expect("the image is made");
        file.set_len(mib << 20).expect("the image has its size");
        run("mkfs.ext4", &["-q", "-m", "0", &text(&image)]);
        run("mount", &["-o", "loop", &text(&image), &text(&at)]);
        give_to_postgres(&at);
        Self { at, image }
    }

    /// Takes all room that is left, to the last block. Fails when a block is left: a fault that does not happen proves
    /// nothing.
    pub fn fill(&self) {
        let ballast = text(&self.at.join(BALLAST));
        // What is freed meanwhile is taken too; the last piece is as small as a block.
        for size in [16 << 20, 1 << 20, 64 << 10, 4 << 10_u64] {
            loop {
                let begun = std::fs::metadata(&ballast).map_or(0, |file| file.len());
                let (from, size) = (begun.to_string(), size.to_string());
                let taken = Command::new("fallocate")
                    .args(["-o", &from, "-l", &size, &ballast])
                    .output();
                if !taken.expect("fallocate runs").status.success() {
                    // A part of it may have been taken.
                    break;
                }
            }
        }
        assert!(
            self.room() < 1 << 20,
            "{} bytes are left of a full disk",
            self.room()
        );
    }

    /// Ends `fill`.
    pub fn free(&self) {
        std::fs::remove_file(self.at.join(BALLAST)).expect("the ballast is removed");
    }

    /// Makes it read-only as it is, or writable again. The kernel refuses the first while files are open for writing.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", options, &text(&self.at)]);
    }

    /// Bytes left for PostgreSQL.
    pub fn room(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.at).expect("the disk is there");
        stat.blocks_available() * stat.fragment_size()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its processes have been killed, but the kernel may need a moment to let go of their files.
        let at = text(&self.at);
        let gone = (0..100).any(|attempt| {
            if attempt > 0 {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Command::new("umount")
                .arg(&at)
                .output()
                .is_ok_and(|output| output.status.success())
        });
        assert!(gone || std::thread::panicking(), "{at} cannot be unmounted");
        let _ = std::fs::remove_file(&self.image);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the tool runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
