//! `history`: the timelines that ended, where, by which rule, and who went on.

use super::block_on;
use super::client::Client;
use super::out::{self, CliError};
use super::sheet::{Column, Format, Sheet};
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
    /// Accepted and ignored
    #[arg(long, hide = true)]
    group: Option<String>,
}

impl History {
    pub(super) fn execute(self, target: &Target) -> Result<(), CliError> {
        let address = target.resolve()?;
        let mut client = Client::new(&address);
        block_on(async {
            if let Some(wanted) = self.cluster.as_deref().or(address.scope.as_deref()) {
                let cluster = client.get("/cluster").await?;
                let scope = cluster
                    .document
                    .get("scope")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if scope != wanted {
                    let found = format!("{} belongs to cluster {scope}, not {wanted}", cluster.url);
                    return Err(CliError::Target(found));
                }
            }
            let answer = client.get("/history").await?;
            match answer.document.as_array() {
                Some(rows) => out::print(&history_sheet(rows).render(self.format)),
                None => Err(CliError::Answer {
                    url: answer.url,
                    what: "a history",
                }),
            }
        })
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
