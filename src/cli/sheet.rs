//! Rows of values that can be shown as a table, tab-separated, as JSON or as YAML.

use super::table::Table;
use super::yaml;
use crate::api::dumps;
use clap::ValueEnum;
use serde_json::{Map, Value};

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table
    #[default]
    Pretty,
    /// Tab-separated values with a heading
    Tsv,
    /// JSON on one line
    Json,
    /// YAML
    Yaml,
    /// The same
    Yml,
}

/// A column: its full name, its heading in the table, its alignment.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Key in JSON and YAML, heading in tab-separated output.
    pub(super) name: &'static str,
    /// Heading in the table; `None` leaves the column out of it.
    pub(super) heading: Option<&'static str>,
    /// Whether it is aligned to the right.
    pub(super) right: bool,
}

/// Values in rows.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    /// The table's title.
    pub(super) title: Option<String>,
    /// The columns.
    pub(super) columns: Vec<Column>,
    /// The values; an empty string is nothing.
    pub(super) rows: Vec<Vec<Value>>,
}

impl Sheet {
    /// The text in that format, with a final newline.
    pub(super) fn render(&self, format: Format) -> String {
        match format {
            Format::Pretty => self.table().render(),
            Format::Tsv => self.tsv(),
            Format::Json => dumps(&self.objects()) + "\n",
            Format::Yaml | Format::Yml => yaml::block(&self.objects()) + "\n",
        }
    }

    fn table(&self) -> Table {
        let shown = |row: &[Value]| {
            let cells = self
                .columns
                .iter()
                .zip(row)
                .filter(|(column, _)| column.heading.is_some());
            cells.map(|(_, value)| cell(value)).collect()
        };
        Table {
            title: self.title.clone(),
            columns: self
                .columns
                .iter()
                .filter_map(|c| Some((c.heading?.to_owned(), c.right)))
                .collect(),
            rows: self.rows.iter().map(|row| shown(row)).collect(),
        }
    }

    fn tsv(&self) -> String {
        let mut text = self.columns.iter().map(|c| c.name).collect::<Vec<_>>().join("\t");
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(field).collect();
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        text
    }

    fn objects(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let pairs = self
                .columns
                .iter()
                .zip(row)
                .filter(|(_, value)| value.as_str() != Some(""));
            Value::Object(
                pairs
                    .map(|(c, value)| (c.name.to_owned(), value.clone()))
                    .collect::<Map<_, _>>(),
            )
        };
        self.rows.iter().map(object).collect()
    }
}

pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) | Value::Array(_) => yaml::block(value).trim_end().to_owned(),
        plain => plain.to_string(),
    }
}

/// One row stays one line, whatever is in it.
fn field(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', ", ").replace('\t', " "),
        other => yaml::flow(other),
    }
}
