//! The words of the text scripts: what they mean for a report, and how they are read.

use super::script_sync;
use crate::cluster::{
    Endpoint, Epoch, Fork, Incarnation, MemberInfo, Offer, PostgresReport, PostgresState, Report, Revision,
    Role, Tags, Tenure, Timeline, WalEnd,
};

/// What a member's report says.
pub(super) fn said(report: &mut Report, key: &str, value: &str) {
    match key {
        "none" => report.tenure = Tenure::None,
        "holding" => {
            let epoch = Epoch(number(value));
            report.tenure = Tenure::Holding { epoch };
        }
        "end" | "why" => {
            let Tenure::Ended { end, why, .. } = &mut report.tenure else {
                panic!("{key} needs ended=EPOCH before it");
            };
            match key {
                "end" => *end = Some(wal_end(value)),
                _ => value.clone_into(why),
            }
        }
        "unpromotable" => report.unpromotable = (value != "no").then(|| value.to_owned()),
        "incarnation" => report.info.incarnation = Some(Incarnation(number(value))),
        "rearmed" => report.rearmed = Some(Revision(number(value))),
        "knocked" => report.primary_answers = Some(value == "answered"),
        "promised" | "synced" => script_sync::said(report, key, value),
        "addr" => value.clone_into(&mut report.info.raft_addr),
        "offer" => {
            report.offer = Some(Offer {
                config: format!("{{\"by\":\"{}\"}}", report.info.name),
                ttl_ms: 2_000,
                existing: (!value.is_empty()).then(|| number(value.trim_end_matches("-standby"))),
                end: None,
                standby: value.ends_with("-standby"),
            });
        }
        _ => postgres_said(report.postgres.as_mut().unwrap(), key, value),
    }
}

fn postgres_said(postgres: &mut PostgresReport, key: &str, value: &str) {
    match key {
        "up" => {
            postgres.state = PostgresState::Running;
            postgres.role = role(value);
        }
        "starting" => postgres.state = PostgresState::Starting,
        "down" => postgres.state = PostgresState::Crashed,
        "timeline" => postgres.timeline = Some(timeline(value)),
        "at" => postgres.location = Some(value.parse().unwrap()),
        "received" => postgres.received = Some(value.parse().unwrap()),
        "replayed" => postgres.replayed = Some(value.parse().unwrap()),
        "nowhere" => (postgres.received, postgres.replayed) = (None, None),
        "streamed" => postgres.streamed_in = (value != "none").then(|| Epoch(number(value))),
        "cut" => postgres.replication_state = None,
        "streams" => postgres.replication_state = Some("streaming".to_owned()),
        "said" => postgres.said_ms = number(value),
        "system" => postgres.system_id = Some(number(value)),
        "fork" => postgres.fork = Some(fork(value)),
        _ => panic!("no word '{key}' is known for a member"),
    }
}

pub(crate) fn member_info(name: &str, number: usize) -> MemberInfo {
    MemberInfo {
        name: name.into(),
        raft_id: number as u64 + 1,
        raft_addr: format!("{name}:2222"),
        api_url: format!("http://{name}:8008/patroni"),
        postgres: Some(Endpoint {
            host: name.to_owned(),
            port: 5432,
        }),
        tags: Tags::default(),
        incarnation: None,
        level: crate::cluster::command::LEVEL,
        pooler: None,
    }
}

pub(super) fn names(words: &[(String, String)]) -> Vec<&str> {
    words.iter().map(|(key, _)| key.as_str()).collect()
}

pub(super) fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("'{text}' is not a number"))
}

pub(super) fn timeline(text: &str) -> Timeline {
    Timeline(u32::try_from(number(text)).unwrap())
}

pub(super) fn role(text: &str) -> Role {
    match text {
        "primary" => Role::Primary,
        "replica" => Role::Replica,
        "demoted" => Role::Demoted,
        _ => panic!("'{text}' is no role"),
    }
}

/// `1@0/5000000`: timeline and position.
pub(super) fn wal_end(text: &str) -> WalEnd {
    let (on, lsn) = text.split_once('@').unwrap();
    WalEnd {
        timeline: timeline(on),
        lsn: lsn.parse().unwrap(),
    }
}

/// `2<1@0/5000000`: timeline 2 forked from 1 there.
pub(super) fn fork(text: &str) -> Fork {
    let (new, from) = text.split_once('<').unwrap();
    let from = wal_end(from);
    Fork {
        timeline: timeline(new),
        parent: from.timeline,
        switch: from.lsn,
    }
}

/// Splits `a b=c d="e f"`.
pub(super) fn words(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return found;
        }
        let end = text.find([' ', '=']).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let (value, rest) = match (rest.strip_prefix("=\""), rest.strip_prefix('=')) {
            (Some(quoted), _) => quoted.split_once('"').unwrap(),
            (None, Some(bare)) => bare.split_at(bare.find(' ').unwrap_or(bare.len())),
            (None, None) => ("", rest),
        };
        found.push((key.to_owned(), value.to_owned()));
        text = rest;
    }
}
