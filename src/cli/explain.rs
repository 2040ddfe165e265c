//! `explain`: which rule holds now and since what, who may be promoted, and why each other may not.

use super::called::Done;
use super::client::{Answer, Client};
use super::document::{array, flag, number, text};
use super::explain_sync;
use super::out::{CliError, Style};
use super::table::Table;
use super::talk::Talk;
use super::target::Target;
use clap::Args;
use serde_json::Value;
use std::fmt::Write;

/// How many of the newest changes are told.
const CHANGES: usize = 5;
/// What detection and promotion add to the ttl after a node's death, for the estimate.
const AFTER_TTL_MS: u64 = 300;
/// A verdict that is older may hold no more: the leader says it several times a second.
const OLD_MS: u64 = 1_000;
/// The ttl we recommend, for the line that says what a longer one costs.
const SHORT_TTL_MS: u64 = 2_000;

/// Say which rule holds now, and who may be promoted.
#[derive(Args, Debug)]
pub struct Explain {
    /// Show the document instead
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) async fn execute(self, target: &Target, talk: &mut Talk<'_>) -> Result<Done, CliError> {
        let mut client = Client::new(&target.resolve(talk)?);
        let answer = client.get("/explain").await?;
        if answer.document.get("members").and_then(Value::as_array).is_none() {
            return Err(CliError::Answer {
                url: answer.url,
                what: "an explanation",
            });
        }
        if self.json {
            talk.print(&(crate::api::dumps(&answer.document) + "\n"))?;
            return Ok(Done::Whole);
        }
        let holder = holder_view(&client, &answer).await;
        let explanation = Explanation {
            here: &answer.document,
            holder,
            style: talk.style(),
        };
        talk.print(&explanation.text())?;
        Ok(Done::Whole)
    }
}

/// Only the primary knows how long its lease still runs: its own document, or why there is none.
async fn holder_view(client: &Client, answer: &Answer) -> Option<Result<Value, String>> {
    let here = &answer.document;
    let name = here
        .get("primary")
        .filter(|primary| primary.is_object())
        .map(|primary| text(primary, "name"))?;
    if name == text(here, "name") {
        return Some(Ok(here.clone()));
    }
    let member = array(here, "members")
        .iter()
        .find(|member| text(member, "name") == name)?;
    Some(client.get_from(text(member, "api_url"), "/explain").await)
}

/// What is to be told.
pub(super) struct Explanation<'a> {
    /// The document of the node that was asked.
    pub(super) here: &'a Value,
    /// The primary's own, when there is a primary.
    pub(super) holder: Option<Result<Value, String>>,
    /// Colours.
    pub(super) style: Style,
}

impl Explanation<'_> {
    /// The whole text.
    pub(super) fn text(&self) -> String {
        let mut told = String::new();
        let here = self.here;
        let id = here
            .get("system_id")
            .and_then(Value::as_str)
            .unwrap_or("no data yet");
        let _ = writeln!(
            told,
            "{} ({id}), epoch {}, revision {}, as {} knows it\n",
            self.style.bold(&format!("Cluster {}", text(here, "scope"))),
            number(here, "epoch"),
            number(here, "revision"),
            text(here, "name"),
        );
        let lines = [
            ("Primary", self.primary()),
            ("Lease", self.lease()),
            ("Rule", self.rule()),
            ("Since", self.since()),
            ("Raft", self.raft()),
            ("ttl", self.ttl()),
        ];
        let mut lines: Vec<(&str, String)> = lines.into();
        if let Some(sync) = here.get("sync").filter(|sync| sync.is_object()) {
            lines.push(("Sync", explain_sync::acknowledging(sync, self.style)));
            let holder = here.get("primary").map(|primary| text(primary, "name"));
            let electing = explain_sync::electing(sync, holder.unwrap_or_default(), self.style);
            lines.extend(electing.into_iter().map(|line| ("Election", line)));
        }
        for (name, line) in lines {
            let _ = writeln!(told, "{:<9} {line}", format!("{name}:"));
        }
        let _ = write!(
            told,
            "\n{}\n{}",
            self.style.bold("Who may be promoted"),
            self.members().render()
        );
        told.push_str(&self.changes());
        told
    }

    fn primary(&self) -> String {
        let here = self.here;
        let Some(primary) = here.get("primary").filter(|primary| primary.is_object()) else {
            return self.style.warning("none yet");
        };
        let how = match text(primary, "origin") {
            "promotion" => "by promotion",
            "restart" => "by a restart in place",
            _ => "since the cluster was created",
        };
        match primary.get("timeline").and_then(Value::as_u64) {
            Some(timeline) => format!("{} on timeline {timeline}, {how}", text(primary, "name")),
            None => format!("{}, {how}", text(primary, "name")),
        }
    }

    fn lease(&self) -> String {
        let lease = match &self.holder {
            None => return "nobody has one".to_owned(),
            Some(Err(reason)) => {
                return self
                    .style
                    .warning(&format!("unknown, the primary does not say: {reason}"));
            }
            Some(Ok(document)) => document.get("lease"),
        };
        let Some(lease) = lease.filter(|lease| flag(lease, "held")) else {
            return self
                .style
                .warning("the primary has none now, so it accepts no writes");
        };
        let gate = if flag(lease, "gate_open") {
            "clients may write"
        } else {
            "clients may not write yet"
        };
        format!("{} left, {gate}", seconds(number(lease, "remaining_ms")))
    }

    fn rule(&self) -> String {
        match self.here.get("standing").filter(|standing| standing.is_object()) {
            Some(standing) => {
                let rule = format!("{}: {}", text(standing, "rule"), text(standing, "reason"));
                match number(self.here, "leader_contact_ms") {
                    heard if heard > OLD_MS => {
                        let old = format!("{rule}; that was {} ago", seconds(heard));
                        self.style.warning(&old)
                    }
                    _ => rule,
                }
            }
            None => self
                .style
                .warning("unknown, the Raft leader has not told this node"),
        }
    }

    fn since(&self) -> String {
        match array(self.here, "events").last() {
            Some(event) => change(event),
            None => "nothing has been decided yet".to_owned(),
        }
    }

    fn raft(&self) -> String {
        let raft = self.here.get("raft").unwrap_or(&Value::Null);
        let voters = array(raft, "voters").len();
        let rest = format!("in term {}, {voters} voters", number(raft, "term"));
        let heard = seconds(number(self.here, "leader_contact_ms"));
        match raft.get("leader").and_then(Value::as_str) {
            Some(leader) if flag(raft, "leading") => format!("{leader} (this node) leads {rest}"),
            Some(leader) => format!("{leader} leads {rest}; it answered this node {heard} ago"),
            None => self
                .style
                .warning(&format!("no leader {rest}; last heard of one {heard} ago")),
        }
    }

    fn ttl(&self) -> String {
        let (ttl, wait) = (number(self.here, "ttl_ms"), number(self.here, "wait_ttl_ms"));
        let mut line = format!(
            "{}: a primary whose node dies is replaced after about {}",
            seconds(ttl),
            seconds(ttl.max(wait) + AFTER_TTL_MS)
        );
        if wait > ttl {
            let _ = write!(line, ", as a lease of {} may still run", seconds(wait));
        }
        if ttl > SHORT_TTL_MS {
            let short = SHORT_TTL_MS / 1_000;
            let _ = write!(
                line,
                "; `ttl: {short}` makes that {}",
                seconds(SHORT_TTL_MS + AFTER_TTL_MS)
            );
        }
        line
    }

    fn members(&self) -> Table {
        let headings = ["Member", "Promotable", "Why", "Last report"];
        let primary = self
            .here
            .get("primary")
            .map(|primary| text(primary, "name"))
            .unwrap_or_default();
        let row = |member: &Value| {
            let (may, why) = verdict(member, text(member, "name") == primary);
            let seen = member.get("seen_ms").and_then(Value::as_u64);
            let seen = seen.map_or("never".to_owned(), |ms| format!("{} ago", seconds(ms)));
            vec![text(member, "name").to_owned(), may.to_owned(), why, seen]
        };
        Table {
            title: None,
            columns: headings
                .iter()
                .map(|name| ((*name).to_owned(), *name == "Last report"))
                .collect(),
            rows: array(self.here, "members").iter().map(row).collect(),
        }
    }

    fn changes(&self) -> String {
        let events = array(self.here, "events");
        if events.is_empty() {
            return String::new();
        }
        let newest = events.iter().rev().take(CHANGES);
        newest.fold(
            format!("\n{}\n", self.style.bold("Latest changes of primacy")),
            |told, event| told + "  " + &change(event) + "\n",
        )
    }
}

/// Whether a member may be promoted, and the reason with what it is busy with.
fn verdict(member: &Value, is_primary: bool) -> (&'static str, String) {
    let (may, mut why) = if is_primary {
        ("primary", String::new())
    } else if flag(member, "witness") {
        ("no", "a witness holds no data".to_owned())
    } else {
        match member.get("may_promote").and_then(Value::as_bool) {
            Some(true) => ("yes", String::new()),
            Some(false) => ("no", text(member, "why_not").to_owned()),
            None if flag(member, "fit") => ("unknown", "the Raft leader has not said".to_owned()),
            None => ("no", text(member, "unfit_reason").to_owned()),
        }
    };
    let position = match (
        member.get("state").and_then(Value::as_str),
        member.get("lsn").and_then(Value::as_str),
    ) {
        (Some(state), Some(lsn)) => format!("{state} at {lsn}"),
        (Some(state), None) => state.to_owned(),
        (None, _) => String::new(),
    };
    for more in [
        position.as_str(),
        text(member, "activity"),
        text(member, "tenure"),
    ] {
        if !more.is_empty() {
            why = if why.is_empty() {
                more.to_owned()
            } else {
                format!("{why}; {more}")
            };
        }
    }
    (may, why)
}

fn change(event: &Value) -> String {
    let who = event.get("member").and_then(Value::as_str).unwrap_or("nobody");
    // Whole seconds are enough for people; the history has the rest.
    let at = text(event, "at").get(..19).unwrap_or_default().replace('T', " ");
    format!(
        "{at} UTC, epoch {}: {who} by {}: {}",
        number(event, "epoch"),
        text(event, "rule"),
        text(event, "reason")
    )
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}
