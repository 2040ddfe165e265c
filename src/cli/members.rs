//! The table of members that everybody knows, from the document of `/cluster`.

use super::document::{array, flag, text};
use super::sheet::{Column, Format, Sheet};
use super::yaml;
use serde_json::Value;
use std::collections::BTreeSet;

/// PostgreSQL's usual port, not worth showing when everybody uses it.
const USUAL_PORT: u64 = 5432;
/// A longer reason for a restart is not shown in the table.
const LONGEST_REASON: usize = 50;

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

    /// The table with every member below the one it follows, the leader first.
    pub(super) fn topology(&self, system_id: Option<&str>) -> String {
        let mut ordered = Vec::new();
        let members = array(self.cluster, "members");
        let (leaders, others): (Vec<&Value>, Vec<&Value>) = members.iter().partition(|m| leads(m));
        for leader in &leaders {
            ordered.push(indented(leader, 0));
            follow(text(leader, "name"), true, &others, 1, &mut ordered);
        }
        // Without a leader, or in a ring of members that follow each other, the rest still has to be seen.
        for other in others {
            if !ordered.iter().any(|(name, _)| name == text(other, "name")) {
                ordered.push(indented(other, usize::from(!leaders.is_empty())));
            }
        }
        let mut cluster = self.cluster.clone();
        if let Some(list) = cluster.get_mut("members") {
            *list = ordered.into_iter().map(|(_, member)| member).collect();
        }
        let tree = Members {
            name: self.name,
            cluster: &cluster,
            witnesses: self.witnesses,
        };
        tree.render(system_id, false, Format::Pretty)
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

fn leads(member: &Value) -> bool {
    matches!(text(member, "role"), "leader" | "standby_leader")
}

/// A member's name and its row, moved to the right by so many levels.
fn indented(member: &Value, level: usize) -> (String, Value) {
    let name = text(member, "name").to_owned();
    let mut row = member.clone();
    if level > 0 {
        let shown = format!("{}+ {name}", "  ".repeat(level - 1));
        if let Some(cell) = row.get_mut("name") {
            *cell = shown.into();
        }
    }
    if let Some(tags) = row.get_mut("tags") {
        *tags = yaml::flow(tags).into();
    }
    (name, row)
}

/// Adds whoever follows `source`, and whoever follows those. Without a tag that names another member, the leader is
/// followed.
fn follow(source: &str, leads: bool, others: &[&Value], level: usize, found: &mut Vec<(String, Value)>) {
    for other in others {
        let name = text(other, "name");
        let wanted = other.get("tags").map_or("", |tags| text(tags, "replicatefrom"));
        let known = others.iter().any(|m| text(m, "name") == wanted) && wanted != name;
        let follows = if known { wanted == source } else { leads };
        if follows && !found.iter().any(|(seen, _)| seen == name) {
            found.push(indented(other, level));
            follow(name, false, others, level + 1, found);
        }
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
