//! Syncs of one program of one node that fail on demand, by a library that its processes load before libc.

use crate::chaos::disk;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const SOURCE: &str = include_str!("failing_syncs.c");

/// The switch of one node.
pub struct FailingSyncs {
    library: PathBuf,
    marks: PathBuf,
}

impl FailingSyncs {
    /// Builds the library in this directory.
    pub fn build(dir: &Path) -> Result<PathBuf, String> {
        let (source, library) = (dir.join("failing_syncs.c"), dir.join("failing_syncs.so"));
        fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
        let [input, output] = [&source, &library].map(|path| path.display().to_string());
        disk::run("cc", &["-shared", "-fPIC", "-O1", "-o", &output, &input, "-ldl"])?;
        Ok(library)
    }

    /// A switch whose marks lie in this directory, which is made.
    pub fn new(library: PathBuf, marks: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&marks).map_err(|error| error.to_string())?;
        Ok(Self { library, marks })
    }

    /// What the node's processes load.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Where they look, as the library's variable `EIO_DIR` says it.
    pub fn marks(&self) -> &Path {
        &self.marks
    }

    /// From now on every sync of this program fails.
    pub fn begin(&self, program: &str) -> Result<(), String> {
        let mark = self.marks.join(program);
        let made = fs::write(&mark, "").and_then(|()| {
            // PostgreSQL's processes are another user's.
            fs::set_permissions(&mark, fs::Permissions::from_mode(0o666))
        });
        made.map_err(|error| error.to_string())
    }

    /// How many have failed.
    pub fn refused(&self, program: &str) -> u64 {
        fs::metadata(self.marks.join(program)).map_or(0, |meta| meta.len())
    }

    /// Syncs are syncs again.
    pub fn end(&self, program: &str) {
        let _ = fs::remove_file(self.marks.join(program));
    }
}
