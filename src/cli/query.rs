//! `query`: run SQL on a member, as libpq's environment says who asks.

use super::Group;
use super::called::Done;
use super::cluster::Cluster;
use super::dsn::Which;
use super::out::CliError;
use super::sheet::{Format, cell};
use super::sql::{self, Rows};
use super::table::Table;
use super::talk::{Talk, local_time};
use super::target::Target;
use super::watching::Watching;
use super::yaml;
use crate::api::dumps;
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tokio::time::sleep;

/// Run SQL on a member. `-c` and `-d` of the cluster stand before the command.
#[derive(Args, Debug)]
pub struct Query {
    /// Name of the cluster
    cluster: Option<String>,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    format: Format,
    /// Read the SQL from a file, or from standard input with -
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The SQL
    #[arg(short, long, value_name = "SQL")]
    command: Option<String>,
    /// The user; PGUSER or whoever is logged in when left out
    #[arg(short = 'U', long, value_name = "NAME")]
    username: Option<String>,
    /// Ask for the password; PGPASSWORD and the password file are used when left out
    #[arg(long)]
    password: bool,
    /// The database; PGDATABASE or the user's name when left out
    #[arg(short, long, value_name = "NAME")]
    dbname: Option<String>,
    /// What stands between columns of tab-separated output
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    delimiter: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    watching: Watching,
    #[command(flatten)]
    group: Group,
}

impl Query {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        self.which.check()?;
        let statement = self.statement(talk)?;
        let mut login = sql::Login::from_env(self.username.clone(), self.dbname.clone());
        if self.password {
            login.password = Some(talk.ask_secretly("Password")?);
        }
        loop {
            // Whoever has the role may have changed since the last look.
            let cluster = Cluster::find(target, self.cluster.as_deref(), talk).await?;
            let done = self.once(&cluster, &statement, &login, talk).await?;
            match self.watching.period() {
                Some(period) => sleep(period).await,
                None => return Ok(done),
            }
        }
    }

    fn statement(&self, talk: &mut Talk<'_>) -> Result<String, CliError> {
        match (&self.command, &self.file) {
            (Some(_), Some(_)) => Err(CliError::Refused(
                "--file and --command are mutually exclusive options".to_owned(),
            )),
            (None, None) => Err(CliError::Refused(
                "You need to specify either --command or --file".to_owned(),
            )),
            (Some(statement), None) => Ok(statement.clone()),
            (None, Some(file)) if file.as_os_str() == "-" => {
                let mut text = String::new();
                talk.input.read_to_string(&mut text).map_err(CliError::Input)?;
                Ok(text)
            }
            (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| CliError::File {
                path: file.clone(),
                why: error.to_string(),
            }),
        }
    }

    /// One look. What PostgreSQL says against it is shown as a row, which is what scripts know.
    async fn once(
        &self,
        cluster: &Cluster,
        statement: &str,
        login: &sql::Login,
        talk: &mut Talk<'_>,
    ) -> Result<Done, CliError> {
        let answer = match self.which.find(cluster) {
            Some(member) => sql::run(&member, login, statement).await,
            None => {
                let wanted = match (&self.which.member, self.which.role) {
                    (Some(name), _) => format!("member {name}"),
                    (None, Some(role)) => format!("role {role}"),
                    (None, None) => "role leader".to_owned(),
                };
                Err(format!("No connection to {wanted} is available"))
            }
        };
        match answer {
            Ok(rows) => {
                talk.print(&self.shown(&rows))?;
                Ok(Done::Whole)
            }
            Err(reason) => {
                let row = vec![local_time(0).into(), format!("ERROR, SQLSTATE: {reason}").into()];
                let failure = Rows {
                    columns: Vec::new(),
                    rows: vec![row],
                };
                talk.print(&self.shown(&failure))?;
                Ok(Done::Partly)
            }
        }
    }

    fn shown(&self, answer: &Rows) -> String {
        match self.format {
            Format::Tsv => delimited(answer, &self.delimiter),
            Format::Pretty => table(answer),
            Format::Json => dumps(&objects(answer)) + "\n",
            Format::Yaml | Format::Yml => yaml::block(&objects(answer)) + "\n",
        }
    }
}

/// Values as Python writes them: scripts compare with `True` and `None`.
fn delimited(answer: &Rows, delimiter: &str) -> String {
    let word = |value: &Value| match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut text = String::new();
    if !answer.columns.is_empty() {
        text.push_str(&(answer.columns.join(delimiter) + "\n"));
    }
    for row in &answer.rows {
        let words: Vec<String> = row.iter().map(word).collect();
        text.push_str(&(words.join(delimiter) + "\n"));
    }
    text
}

fn table(answer: &Rows) -> String {
    let is_number = |at: usize| {
        let mut values = answer.rows.iter().filter_map(|row| row.get(at));
        values.all(|value| value.is_number() || value.is_null())
    };
    let width = answer.rows.first().map_or(answer.columns.len(), Vec::len);
    let heading = |at: usize| answer.columns.get(at).cloned().unwrap_or_default();
    let shown = |value: &Value| {
        if value.is_null() {
            String::new()
        } else {
            cell(value)
        }
    };
    Table {
        title: None,
        columns: (0..width).map(|at| (heading(at), is_number(at))).collect(),
        rows: answer
            .rows
            .iter()
            .map(|row| row.iter().map(shown).collect())
            .collect(),
    }
    .render()
}

fn objects(answer: &Rows) -> Value {
    if answer.columns.is_empty() {
        return json!(answer.rows);
    }
    let object = |row: &Vec<Value>| {
        let pairs = answer.columns.iter().cloned().zip(row.iter().cloned());
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    answer.rows.iter().map(object).collect()
}
