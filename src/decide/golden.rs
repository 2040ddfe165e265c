//! Runs text scripts: below each question stand lines that begin with `|`, the recorded answer.
//!
//! `MATRIARCH_RECORD=1 cargo test decide` writes the answers anew; review them as a diff.

use super::candidate;
use super::duty::{Process, duty};
use super::rules::{Verdict, plan};
use super::script::World;
use super::slots::{self, Attendance};
use super::sync;
use crate::cluster::{Act, MemberName, Role, SyncMode};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What an act would do, in words.
pub(crate) fn act_text(act: &Act) -> String {
    match act {
        Act::Register(info) => format!("register {}", info.name),
        Act::Bootstrap {
            member,
            epoch,
            config,
            ttl_ms,
        } => {
            format!("{member} bootstraps in epoch {epoch} with {config} and a ttl of {ttl_ms} ms")
        }
        Act::Initialized {
            member,
            epoch,
            system_id,
            timeline,
        } => {
            format!("{member} initialized {system_id} in epoch {epoch} on timeline {timeline}")
        }
        Act::Promote {
            member,
            epoch,
            timeline,
        } => {
            format!("promote {member} in epoch {epoch} to timeline {timeline}")
        }
        Act::Restart { member, epoch } => format!("restart {member} in epoch {epoch}"),
        Act::Promoted(p) => format!(
            "{} was promoted in epoch {}: timeline {} forked from {} at {}",
            p.member, p.epoch, p.timeline, p.parent, p.switch
        ),
        Act::Judge { member, fitness } => format!("{member} is {fitness:?}"),
        Act::Configure { config, ttl_ms, .. } => format!("configure {config}, ttl {ttl_ms} ms"),
        Act::TtlSettled { ttl_ms } => format!("the ttl of {ttl_ms} ms is settled"),
        Act::Forget { member } => format!("forget {member}"),
        Act::Dismiss { member } => format!("take {member} out"),
        Act::Readmit { member } => format!("let {member} in again"),
        Act::Fence { epoch } => format!("fence everything below epoch {epoch}"),
        Act::Elect {
            member,
            epoch,
            timeline,
            quorum,
            ..
        } => {
            let names = sync::names(quorum, SyncMode::Quorum);
            format!("elect {member} in epoch {epoch} to timeline {timeline} with '{names}'")
        }
        Act::Resync { quorum } => match quorum {
            Some(quorum) => format!("resync to '{}'", sync::names(quorum, SyncMode::Quorum)),
            None => "synchronous replication is off".to_owned(),
        },
        Act::Settle { epoch, serial } => format!("change {serial} of epoch {epoch} is settled"),
        Act::Ask(asked) => format!("record a {}", asked.word()),
        Act::Begin { epoch, to } => format!("begin the handover of epoch {epoch} to {to}"),
        Act::Resumed { since } => format!("the pause that ended at revision {since} is over"),
        Act::CallOff { asked } => format!("forget what was asked at revision {asked}"),
    }
}

fn answer(world: &World, question: &str, fired: &mut BTreeSet<&'static str>) -> String {
    let view = world.view();
    match question {
        "plan" => {
            let (rule, verdict) = plan(&view);
            fired.insert(rule);
            match verdict {
                Verdict::Stand(reason) => format!("{rule}: stand, {reason}"),
                Verdict::Propose(act, reason) => {
                    format!("{rule}: {}\nbecause {reason}", act_text(&act))
                }
            }
        }
        "who" => {
            let mut text = String::new();
            for found in candidate::candidates(&view) {
                let warm = if found.warm { "" } else { ", cold" };
                writeln!(text, "{} may, {}{warm}", found.name, found.reach).unwrap();
            }
            for name in world.state.members.keys() {
                if let Some(why) = candidate::why_not(&view, name) {
                    writeln!(text, "{name} may not: {why}").unwrap();
                }
            }
            text
        }
        "slots" => {
            let is_primary = world.local.process == Process::Up(Some(Role::Primary));
            let heard = world.heard.values();
            let ages = heard.map(|heard| (heard.report.member(), world.now.since(heard.at)));
            let mut attendance = Attendance::default();
            attendance.look(&world.state, ages, world.now, world.now);
            let (me, now) = (&world.local.me, world.now);
            let slots = slots::slots(me, is_primary, &world.state, &world.settings, &attendance, now);
            let reports = world.heard.values().map(|heard| &heard.report);
            let reached = slots::reached(&slots.keep, world.state.timeline(), reports);
            let names =
                |names: &[MemberName]| names.iter().map(|name| format!(" {name}")).collect::<String>();
            let reached: String = reached
                .iter()
                .map(|(name, lsn)| format!(" {name}@{lsn}"))
                .collect();
            format!(
                "keep{}, drop{}, reached{reached}",
                names(&slots.keep),
                names(&slots.drop)
            )
        }
        "duty" => format!("{:?}", duty(&world.state, &world.local(), world.now)),
        _ => panic!("no question is called '{question}'"),
    }
}

/// Runs every script of a folder below `src/decide/testdata`; answers which rules fired.
pub(crate) fn run_all(folder: &str) -> BTreeSet<&'static str> {
    let dir = testdata(folder);
    let mut files: Vec<PathBuf> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut fired = BTreeSet::new();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let mut told = String::new();
        let mut world = World::herd(&["a", "b", "c"]);
        for line in script.lines().filter(|line| !line.starts_with('|')) {
            told.push_str(line);
            told.push('\n');
            if let Some(question) = world.hear_line(line) {
                for line in answer(&world, question, &mut fired).lines() {
                    writeln!(told, "| {line}").unwrap();
                }
            }
        }
        recorded(&file, &told);
    }
    fired
}

/// A folder of this module's test data.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/decide/testdata")
        .join(name)
}

/// Compares with a recorded file; `MATRIARCH_RECORD=1` records it instead.
#[track_caller]
pub(crate) fn recorded(file: &Path, found: &str) {
    if std::env::var_os("MATRIARCH_RECORD").is_some() {
        std::fs::write(file, found).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    let same = |(a, b): &(&str, &str)| a == b;
    let at = expected.lines().zip(found.lines()).take_while(same).count();
    assert!(
        expected == found,
        "{}:{}: expected {:?}, found {:?}; MATRIARCH_RECORD=1 records what was found",
        file.display(),
        at + 1,
        expected.lines().nth(at),
        found.lines().nth(at)
    );
}
