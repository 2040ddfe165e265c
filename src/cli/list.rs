//! `list`: the members of a cluster, in the table everybody knows.

use super::block_on;
use super::client::Client;
use super::document::{array, flag, text};
use super::out::{self, CliError};
use super::sheet::{Column, Format, Sheet};
use super::target::Target;
use crate::clock;
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;

/// `-W` looks again this often.
const WATCH_S: f64 = 2.0;
/// PostgreSQL's usual port, not worth showing when everybody uses it.
const USUAL_PORT: u64 = 5432;
/// A longer reason for a restart is not shown in the table.
const LONGEST_REASON: usize = 50;

/// Show the members of the cluster.
#[derive(Args, Debug)]
pub struct List {
    /// Names of clusters; the one that answers when left out
    cluster: Vec<String>,
    /// Show every column, and witnesses too
    #[arg(short, long)]
    extended: bool,
    /// Say the time first
    #[arg(short, long)]
    timestamp: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,
    /// Look again after this many seconds, for ever
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<f64>,
    /// The same every 2 seconds
    #[arg(short = 'W')]
    watch_often: bool,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    group: Option<String>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds is needed, at most a day".to_owned()),
    }
}

impl List {
    pub(super) fn execute(self, target: &Target) -> Result<(), CliError> {
        let address = target.resolve()?;
        let mut client = Client::new(&address);
        let period = self.watch.or(self.watch_often.then_some(WATCH_S));
        block_on(async {
            let Some(period) = period else {
                let text = self.text(&mut client, address.scope.as_deref()).await?;
                return out::print(&text);
            };
            loop {
                let text = self.text(&mut client, address.scope.as_deref()).await;
                out::clear()?;
                match text {
                    Ok(text) => out::print(&text)?,
                    // A watcher is there to see the cluster come back.
                    Err(error) => out::complain(&error),
                }
                sleep(Duration::from_secs_f64(period)).await;
            }
        })
    }

    async fn text(&self, client: &mut Client, scope: Option<&str>) -> Result<String, CliError> {
        let cluster = client.get("/cluster").await?;
        if cluster
            .document
            .get("members")
            .and_then(Value::as_array)
            .is_none()
        {
            return Err(CliError::Answer {
                url: cluster.url,
                what: "a list of members",
            });
        }
        for member in array(&cluster.document, "members") {
            client.learn(text(member, "api_url"));
        }
        let status = client.get("/patroni").await?.document;
        let explained = if self.extended {
            client.get("/explain").await.ok()
        } else {
            None
        };
        let witnesses = explained
            .as_ref()
            .map_or(&[][..], |answer| array(&answer.document, "members"));
        let answering = text(&cluster.document, "scope");
        let mut wanted: Vec<&str> = self.cluster.iter().map(String::as_str).collect();
        if wanted.is_empty() {
            wanted.push(scope.unwrap_or(answering));
        }
        let mut shown = String::new();
        if self.timestamp {
            shown.push_str(&now());
        }
        for name in wanted {
            let known = name == answering;
            let cluster = if known { &cluster.document } else { &Value::Null };
            let members = Members {
                name,
                cluster,
                witnesses: if known { witnesses } else { &[] },
            };
            let system_id = status.get("database_system_identifier").and_then(Value::as_str);
            shown.push_str(&members.render(system_id.filter(|_| known), self.extended, self.format));
        }
        Ok(shown)
    }
}

fn now() -> String {
    let time = i64::try_from(clock::wall_ms())
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zone = jiff::tz::TimeZone::system();
    time.map(|t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S\n").to_string())
        .unwrap_or_default()
}

/// What is to be shown of one cluster.
pub(super) struct Members<'a> {
    /// The name asked for.
    pub(super) name: &'a str,
    /// The document of `/cluster`; null when no such cluster answers.
    pub(super) cluster: &'a Value,
    /// Members of `/explain`, for the witnesses among them.
    pub(super) witnesses: &'a [Value],
}

/// The columns that are left out while they are empty.
const OPTIONAL: [&str; 4] = [
    "Pending restart",
    "Pending restart reason",
    "Scheduled restart",
    "Tags",
];

impl Members<'_> {
    /// The whole text.
    pub(super) fn render(&self, system_id: Option<&str>, extended: bool, format: Format) -> String {
        let mut text = self.sheet(system_id, extended, format).render(format);
        if format == Format::Pretty {
            text.push_str(&self.footer());
        }
        text
    }

    fn sheet(&self, system_id: Option<&str>, extended: bool, format: Format) -> Sheet {
        let members = array(self.cluster, "members");
        let with_port = shows_ports(members);
        let mut rows: Vec<Vec<Value>> = members.iter().map(|m| self.row(m, with_port, format)).collect();
        rows.extend(
            self.witnesses
                .iter()
                .filter(|m| flag(m, "witness"))
                .map(|m| self.witness(m)),
        );
        let mut columns = columns();
        let first_optional = columns.len();
        let kept: Vec<bool> = OPTIONAL
            .iter()
            .enumerate()
            .map(|(at, _)| {
                extended
                    || rows
                        .iter()
                        .any(|row| row.get(first_optional + at) != Some(&"".into()))
            })
            .collect();
        columns.extend(OPTIONAL.iter().map(|name| left(name)));
        let keep = |at: usize| at < first_optional || kept.get(at - first_optional).copied().unwrap_or(false);
        let title = match system_id {
            Some(id) => format!("Cluster: {} ({id})", self.name),
            None if members.is_empty() => format!("Cluster: {} (uninitialized)", self.name),
            None => format!("Cluster: {} (initializing)", self.name),
        };
        Sheet {
            title: Some(title),
            columns: chosen(columns, keep),
            rows: rows.into_iter().map(|row| chosen(row, keep)).collect(),
        }
    }

    fn row(&self, member: &Value, with_port: bool, format: Format) -> Vec<Value> {
        let host = match member.get("port") {
            Some(port) if with_port => endpoint(text(member, "host"), port),
            _ => text(member, "host").to_owned(),
        };
        let own = |key: &str| member.get(key).cloned().unwrap_or_else(|| "".into());
        let pending = if flag(member, "pending_restart") { "*" } else { "" };
        vec![
            self.name.into(),
            own("name"),
            host.into(),
            titled(text(member, "role")).into(),
            own("state"),
            own("timeline"),
            own("receive_lsn"),
            mebibytes(member.get("receive_lag")),
            own("replay_lsn"),
            mebibytes(member.get("replay_lag")),
            pending.into(),
            reasons(member.get("pending_restart_reason"), format).into(),
            member
                .get("scheduled_restart")
                .map_or("", |restart| text(restart, "schedule"))
                .into(),
            own("tags"),
        ]
    }

    fn witness(&self, member: &Value) -> Vec<Value> {
        let mut row = vec![Value::from(""); columns().len() + OPTIONAL.len()];
        let state = if flag(member, "present") {
            "voting"
        } else {
            "silent"
        };
        let known = [self.name, text(member, "name"), "", "Witness", state];
        for (cell, value) in row.iter_mut().zip(known) {
            *cell = value.into();
        }
        row
    }

    fn footer(&self) -> String {
        let mut text_below = String::new();
        for member in array(self.cluster, "members") {
            if let Some(why) = member.get("trouble").and_then(Value::as_str) {
                text_below.push_str(&format!(" {}: {why}\n", text(member, "name")));
            }
        }
        if flag(self.cluster, "pause") {
            text_below.push_str(" Maintenance mode: on\n");
        }
        if let Some(planned) = self.cluster.get("scheduled_switchover") {
            let first = " Switchover scheduled at: ";
            text_below.push_str(&format!("{first}{}\n", text(planned, "at")));
            for key in ["from", "to"]
                .into_iter()
                .filter(|key| planned.get(*key).is_some())
            {
                text_below.push_str(&format!(
                    "{:>width$} {}\n",
                    format!("{key}:"),
                    text(planned, key),
                    width = first.len() - 1
                ));
            }
        }
        text_below
    }
}

fn columns() -> Vec<Column> {
    let right = |name, heading| Column {
        name,
        heading: Some(heading),
        right: true,
    };
    vec![
        Column {
            name: "Cluster",
            heading: None,
            right: false,
        },
        left("Member"),
        left("Host"),
        left("Role"),
        left("State"),
        right("TL", "TL"),
        right("Receive LSN", "Receive LSN"),
        right("Receive Lag", "Lag"),
        right("Replay LSN", "Replay LSN"),
        right("Replay Lag", "Lag"),
    ]
}

fn left(name: &'static str) -> Column {
    Column {
        name,
        heading: Some(name),
        right: false,
    }
}

fn chosen<T>(list: Vec<T>, keep: impl Fn(usize) -> bool) -> Vec<T> {
    list.into_iter()
        .enumerate()
        .filter(|(at, _)| keep(*at))
        .map(|(_, item)| item)
        .collect()
}

/// Ports are shown for all when one is unusual or two members share a host.
fn shows_ports(members: &[Value]) -> bool {
    let hosts: BTreeSet<&str> = members.iter().map(|m| text(m, "host")).collect();
    let unusual = |m: &Value| {
        m.get("port")
            .and_then(Value::as_u64)
            .is_some_and(|port| port != USUAL_PORT)
    };
    hosts.len() < members.len() || members.iter().any(unusual)
}

fn endpoint(host: &str, port: &Value) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// `sync_standby` is shown as `Sync Standby`.
fn titled(role: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|c| c.to_ascii_uppercase().to_string() + chars.as_str())
            .unwrap_or_default()
    };
    role.split('_').map(word).collect::<Vec<_>>().join(" ")
}

fn mebibytes(lag: Option<&Value>) -> Value {
    match lag.and_then(Value::as_f64) {
        // Half to even; a lag that does not fit cannot be.
        Some(bytes) => ((bytes / 1_048_576.0).round_ties_even() as u64).into(),
        None => "".into(),
    }
}

fn reasons(reasons: Option<&Value>, format: Format) -> String {
    let line = |(name, change): (&String, &Value)| {
        let whole = format!(
            "{name}: {}->{}",
            text(change, "old_value"),
            text(change, "new_value")
        );
        if format == Format::Pretty && whole.chars().count() > LONGEST_REASON {
            format!("{name}: [hidden - too long]")
        } else {
            whole
        }
    };
    let all = reasons.and_then(Value::as_object).into_iter().flatten();
    all.map(line).collect::<Vec<_>>().join("\n")
}
