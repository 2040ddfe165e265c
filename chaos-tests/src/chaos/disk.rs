//! A node's own disk: an ext4 in a file, which can be filled up and whose power can be cut.

use crate::sys;
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Size of a disk. The file is sparse.
const SIZE: u64 = 3 << 30;
/// Attempts to take a disk away whose last process has just died.
const UMOUNT_ATTEMPTS: u32 = 200;

/// A mounted disk. Dropping it takes it away.
pub struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    /// Makes a disk and mounts it on this empty directory.
    pub fn new(mounted: &Path) -> Result<Self, String> {
        let image = mounted.with_extension("img");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(SIZE).map_err(|error| error.to_string())?;
        let name = image.display().to_string();
        // No blocks are kept for root: a full disk must be full for PostgreSQL and for the daemon alike.
        run("mkfs.ext4", &["-q", "-m", "0", &name])?;
        let disk = Self {
            image,
            mounted: mounted.to_owned(),
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let (image, mounted) = (
            self.image.display().to_string(),
            self.mounted.display().to_string(),
        );
        run("mount", &["-o", "loop", &image, &mounted])
    }

    fn umount(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..UMOUNT_ATTEMPTS {
            match run("umount", &[&self.mounted.display().to_string()]) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(last)
    }

    /// The power goes: nothing is written from now on. The witness is a write that fails.
    pub fn cut_power(&self) -> Result<(), String> {
        let root = File::open(&self.mounted).map_err(|error| error.to_string())?;
        sys::cut_power(&root).map_err(|error| format!("FS_IOC_SHUTDOWN: {error}"))?;
        match File::create(self.mounted.join("after-the-end")) {
            Ok(_) => Err("a file could be made after the power was cut".into()),
            Err(_) => Ok(()),
        }
    }

    /// The power comes back; nothing may run there.
    pub fn restore_power(&self) -> Result<(), String> {
        self.umount()?;
        self.mount()
    }

    /// Fills the disk. The witness is a write that fails.
    pub fn fill(&self) -> Result<(), String> {
        let path = self.ballast();
        for _ in 0..20 {
            let stat = statvfs(&self.mounted).map_err(|error| error.to_string())?;
            let free = stat.blocks_available() * stat.fragment_size();
            let already = path.metadata().map_or(0, |meta| meta.len());
            if free < 64 * 1024 {
                break;
            }
            // Metadata takes some; whatever is left is taken in the next round.
            let take = already + (free - free / 64).max(32 * 1024);
            let _ = run(
                "fallocate",
                &["-l", &take.to_string(), &path.display().to_string()],
            );
        }
        let mut rest = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.mounted.join("ballast-rest"))
            .map_err(|error| error.to_string())?;
        for _ in 0..64 {
            if rest
                .write_all(&[1_u8; 64 * 1024])
                .and_then(|()| rest.sync_data())
                .is_err()
            {
                return Ok(());
            }
        }
        Err("the disk is not full".into())
    }

    /// Makes room again.
    pub fn empty(&self) {
        let _ = std::fs::remove_file(self.ballast());
        let _ = std::fs::remove_file(self.mounted.join("ballast-rest"));
    }

    /// Whether it is full on purpose.
    pub fn is_filled(&self) -> bool {
        self.ballast().exists()
    }

    fn ballast(&self) -> PathBuf {
        self.mounted.join("ballast")
    }

    /// Writes everything to the disk that is not there yet.
    pub fn sync(&self) -> Result<(), String> {
        run("sync", &["-f", &self.mounted.display().to_string()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.umount().is_err() {
            let _ = run("umount", &["-l", &self.mounted.display().to_string()]);
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Runs a command to its end.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", said.trim()))
}
