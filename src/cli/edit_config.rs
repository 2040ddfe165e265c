//! `edit-config`: change the settings that all members share, and see the change first.

use super::called::Done;
use super::cluster::Cluster;
use super::editor;
use super::http::{Question, Reply};
use super::out::{CliError, Style};
use super::patch;
use super::talk::Talk;
use super::target::Target;
use super::yaml;
use axum::http::Method;
use clap::Args;
use serde_json::{Map, Value};
use similar::TextDiff;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A change of the settings is committed long before.
const PATIENCE: Duration = Duration::from_secs(30);
/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

/// Change the settings that all members share.
#[derive(Args, Debug)]
pub struct EditConfig {
    /// Name of the cluster
    cluster: Option<String>,
    /// Show no difference
    #[arg(short, long)]
    quiet: bool,
    /// Set a key, such as ttl=30 or postgresql.use_slots=true; null removes it. May be repeated
    #[arg(short, long, value_name = "KEY=YAML")]
    set: Vec<String>,
    /// Set a server parameter, such as max_connections=200. May be repeated
    #[arg(short, long, value_name = "NAME=YAML")]
    pg: Vec<String>,
    /// Merge a YAML file into the settings, or standard input with -
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    apply: Option<PathBuf>,
    /// Put a YAML file in place of all settings, or standard input with -
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replace: Option<PathBuf>,
    /// Ask nothing
    #[arg(long)]
    force: bool,
}

impl EditConfig {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let (before, tag) = settings(&mut cluster).await?;
        let (after, draft) = match self.changed(&before, talk)? {
            Some(after) => (after, None),
            None => editor::edit(&show(&before))?,
        };
        if after == before {
            talk.say("Not changed")?;
            return Ok(Done::Whole);
        }
        if !self.quiet {
            let text = diff(&show(&before), &show(&after), talk.style());
            talk.print(&text)?;
        }
        let from_input = [&self.apply, &self.replace]
            .into_iter()
            .flatten()
            .any(|file| is_input(file));
        if from_input && !self.force {
            talk.say("Use --force option to apply changes")?;
            return Ok(Done::Partly);
        }
        if !self.force && !talk.confirm("Apply these changes?")? {
            return Ok(Done::Partly);
        }
        if let Err(error) = self.send(&cluster, tag.as_deref(), before, after).await {
            if let Some(draft) = draft {
                talk.note(&format!(
                    "note: what you wrote is kept in {}",
                    draft.keep().display()
                ));
            }
            return Err(error);
        }
        talk.say("Configuration changed")?;
        Ok(Done::Whole)
    }

    /// The settings as the options want them; `None` where the person wants to write them.
    fn changed(
        &self,
        before: &Map<String, Value>,
        talk: &mut Talk<'_>,
    ) -> Result<Option<Map<String, Value>>, CliError> {
        if self.set.is_empty() && self.pg.is_empty() && self.apply.is_none() && self.replace.is_none() {
            return Ok(None);
        }
        let mut after = before.clone();
        if let Some(file) = &self.replace {
            after = read(file, talk)?;
        }
        if let Some(file) = &self.apply {
            after = patch::merged(&after, &read(file, talk)?)?;
        }
        for assignment in &self.set {
            patch::set(&mut after, assignment)?;
        }
        for assignment in &self.pg {
            patch::set(&mut after, &format!("postgresql.parameters.{assignment}"))?;
        }
        Ok(Some(after))
    }

    /// Only what differs is sent, so that a change of another key at the same moment is not undone; one that was made
    /// while the person was looking ends this one.
    async fn send(
        &self,
        cluster: &Cluster,
        tag: Option<&str>,
        before: Map<String, Value>,
        after: Map<String, Value>,
    ) -> Result<(), CliError> {
        let change = patch::difference(&before, &after);
        // To merging, 20 and "20" are the same, and it does not always store a null.
        let whole = self.replace.is_some() || patch::merged(&before, &change)? != after;
        let (method, body) = if whole {
            (Method::PUT, Value::Object(after))
        } else {
            (Method::PATCH, Value::Object(change))
        };
        let question = Question {
            method,
            path: "/config",
            body: Some(&body),
            patience: PATIENCE,
            if_match: tag,
        };
        match cluster.send_any(None, &question).await? {
            Reply { status: 200, .. } => Ok(()),
            Reply { status: 409, .. } => Err(CliError::Refused(
                "Config modification aborted due to concurrent changes".to_owned(),
            )),
            Reply { status, text, .. } => Err(CliError::Refused(format!(
                "the settings were not changed, status code={status}, ({text})"
            ))),
        }
    }
}

/// The settings, and the tag by which exactly these are meant.
async fn settings(cluster: &mut Cluster) -> Result<(Map<String, Value>, Option<String>), CliError> {
    let answer = cluster.get("/config").await?;
    match answer.document {
        Value::Object(map) => Ok((map, answer.tag)),
        _ => Err(CliError::Answer {
            url: answer.url,
            what: "settings",
        }),
    }
}

fn is_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn read(file: &Path, talk: &mut Talk<'_>) -> Result<Map<String, Value>, CliError> {
    if is_input(file) {
        let mut text = String::new();
        talk.input.read_to_string(&mut text).map_err(CliError::Input)?;
        return patch::yaml_mapping("standard input", &text);
    }
    let text = std::fs::read_to_string(file).map_err(|error| CliError::File {
        path: file.to_owned(),
        why: error.to_string(),
    })?;
    patch::yaml_mapping(&file.display().to_string(), &text)
}

fn show(settings: &Map<String, Value>) -> String {
    yaml::block(&Value::Object(settings.clone()))
}

/// The unified difference of two texts.
fn diff(before: &str, after: &str, style: Style) -> String {
    let plain = TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header("", "")
        .missing_newline_hint(false)
        .to_string();
    let coloured = |line: &str| match line.as_bytes().first() {
        _ if line.starts_with("---") || line.starts_with("+++") => style.bold(line),
        Some(b'+') => style.added(line),
        Some(b'-') => style.removed(line),
        Some(b'@') => style.place(line),
        _ => line.to_owned(),
    };
    plain.lines().map(|line| coloured(line) + "\n").collect()
}
