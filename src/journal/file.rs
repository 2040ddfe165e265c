//! The log file, and the older ones that it becomes when it is full.

use super::JournalError;
use crate::config::Log;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The newest file; `.1` is the one before it.
pub const LOG_NAME: &str = "patroni.log";

/// A file that never grows beyond its size, and its predecessors.
pub(super) struct Files {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
    kept: u64,
    mode: Option<u32>,
}

impl Files {
    pub(super) fn open(dir: &Path, log: &Log) -> Result<Self, JournalError> {
        let path = dir.join(LOG_NAME);
        let opened = open(&path, log.mode).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Self {
                path,
                file,
                length,
                most: log.file_size,
                kept: log.file_num,
                mode: log.mode,
            }),
            Err(source) => Err(JournalError { path, source }),
        }
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let more = line.len() as u64;
        // As Patroni has it: no limit of zero, and no rotation where no old file is kept.
        if self.most > 0 && self.kept > 0 && self.length > 0 && self.length + more > self.most {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.length += more;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u64| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.kept).rev() {
            // A gap in the row is no fault.
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = open(&self.path, self.mode)?;
        self.length = 0;
        Ok(())
    }
}

fn open(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(file_size: u64, file_num: u64, mode: Option<u32>) -> Log {
        Log {
            file_size,
            file_num,
            mode,
            ..Log::default()
        }
    }

    fn read(dir: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(dir.join(name)).ok()
    }

    #[test]
    fn old_files_are_kept_as_many_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path(), &log(8, 2, Some(0o640))).unwrap();
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "five is longer than a file\n",
            "six\n",
        ] {
            files.write(line.as_bytes()).unwrap();
        }
        let found = ["patroni.log", "patroni.log.1", "patroni.log.2", "patroni.log.3"]
            .map(|name| read(dir.path(), name));
        let expected = ["six\n", "five is longer than a file\n", "four\n"].map(|text| Some(text.to_owned()));
        assert_eq!(found[..3], expected);
        assert_eq!(found[3], None);
        let mode = dir
            .path()
            .join("patroni.log")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_start_goes_on_where_the_last_one_ended() {
        let dir = tempfile::tempdir().unwrap();
        for (num, expected) in [(1, "b\n"), (0, "b\nb\n")] {
            let mut files = Files::open(dir.path(), &log(3, num, None)).unwrap();
            files.write(if num == 1 { b"a\n" } else { b"b\n" }).unwrap();
            drop(files);
            let mut files = Files::open(dir.path(), &log(3, num, None)).unwrap();
            if num == 1 {
                files.write(b"b\n").unwrap();
            }
            assert_eq!(read(dir.path(), LOG_NAME).unwrap(), expected);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = Files::open(Path::new("/nowhere"), &log(1, 1, None))
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .starts_with("log.dir: /nowhere/patroni.log cannot be written: ")
        );
    }
}
