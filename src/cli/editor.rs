//! Lets a person write settings in their editor.

use super::out::CliError;
use super::patch;
use serde_json::{Map, Value};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Editors where `$EDITOR` names none.
const EDITORS: [&str; 2] = ["editor", "vi"];

/// A file that a person writes. It is removed when this is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    fn create(text: &str) -> Result<Self, CliError> {
        let chance = getrandom::u64().unwrap_or(0);
        let path = std::env::temp_dir().join(format!("matriarch-{chance:016x}.yaml"));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Ok(()) => Ok(Self { path, kept: false }),
            Err(error) => Err(unusable(&path, &error.to_string())),
        }
    }

    /// Leaves the file where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What a person makes of `text`, and the file in which they wrote it. What is no YAML stays in its file.
pub(super) fn edit(text: &str) -> Result<(Map<String, Value>, Option<Draft>), CliError> {
    let draft = Draft::create(text)?;
    run(&draft.path)?;
    let written =
        std::fs::read_to_string(&draft.path).map_err(|error| unusable(&draft.path, &error.to_string()))?;
    let name = draft.path.display().to_string();
    match patch::yaml_mapping(&name, &written) {
        Ok(settings) => Ok((settings, Some(draft))),
        Err(error) => {
            let _ = draft.keep();
            Err(error)
        }
    }
}

/// `$EDITOR` may hold arguments, so a shell reads it.
fn run(path: &Path) -> Result<(), CliError> {
    let wanted = std::env::var("EDITOR")
        .ok()
        .filter(|editor| !editor.trim().is_empty());
    let Some(editor) = wanted.or_else(|| EDITORS.into_iter().find(|name| is_there(name)).map(str::to_owned))
    else {
        return Err(CliError::Refused(
            "EDITOR is not set, and neither editor nor vi is there: set it, or use --set, --apply or --replace".to_owned(),
        ));
    };
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("edit-config")
        .arg(path)
        .status()
        .map_err(|error| CliError::Refused(format!("the editor {editor} cannot be started: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(CliError::Refused(format!(
            "the editor {editor} failed ({status}); nothing is changed"
        )))
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn unusable(path: &Path, why: &str) -> CliError {
    CliError::File {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}
