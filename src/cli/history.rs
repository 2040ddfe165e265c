//! `history`: the timelines that ended, where, by which rule, and who went on.

use super::called::Done;
use super::cluster::Cluster;
use super::out::CliError;
use super::sheet::{Column, Format, Sheet};
use super::talk::Talk;
use super::target::Target;
use clap::Args;
use serde_json::Value;

/// Show the timelines that ended, and why.
#[derive(Args, Debug)]
pub struct History {
    /// Name of the cluster
    cluster: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
}

impl History {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
        let answer = cluster.get("/history").await?;
        match answer.document.as_array() {
            Some(rows) => talk.print(&history_sheet(rows).render(self.format))?,
            None => {
                return Err(CliError::Answer {
                    url: answer.url,
                    what: "a history",
                });
            }
        }
        Ok(Done::Whole)
    }
}

/// The rows of `/history`.
pub(super) fn history_sheet(rows: &[Value]) -> Sheet {
    let column = |name, right| Column {
        name,
        heading: Some(name),
        right,
    };
    let columns = vec![
        column("TL", true),
        column("LSN", true),
        column("Reason", false),
        column("Timestamp", false),
        column("New Leader", false),
    ];
    let whole = |row: &Value| {
        let mut cells = row.as_array().cloned().unwrap_or_default();
        cells.resize(columns.len(), "".into());
        cells
    };
    Sheet {
        title: None,
        rows: rows.iter().map(whole).collect(),
        columns,
    }
}
