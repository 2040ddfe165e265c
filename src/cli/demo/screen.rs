//! What the person sees: instructions once, then a block rewritten in place, or plain lines without a terminal.

use super::ask::{Member, Sight};
use super::crew::{Crew, Hand, Pids};
use super::ground::{Ground, PASSWORD, Place};
use super::pulse::Beat;
use crate::cli::members::Members;
use crate::cli::sheet::Format;
use crate::clock;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

/// Events that stay in view.
const EVENTS: usize = 5;
/// A border, the heading, a border, three members, a border.
const TABLE_LINES: usize = 7;

/// What one drawing shows.
pub(super) struct Scene<'a> {
    pub(super) sight: &'a Sight,
    pub(super) crew: &'a Crew,
    pub(super) pulse: Beat,
}

/// The screen and what it showed last.
pub(super) struct Screen {
    is_terminal: bool,
    drawn: Vec<String>,
    events: VecDeque<String>,
    table: Vec<Member>,
    stalls: u64,
    suggested: Pids,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            drawn: Vec::new(),
            events: VecDeque::new(),
            table: Vec::new(),
            stalls: 0,
            suggested: Pids::default(),
        }
    }

    /// How to connect and what to try: printed once, so that it can be copied in peace.
    pub(super) fn introduce(&self, ground: &Ground) {
        let hosts: Vec<String> = ground
            .places
            .iter()
            .map(|place| format!("{}:{}", place.address, place.postgres))
            .collect();
        let exe = std::env::current_exe()
            .map_or_else(|_| "matriarch".to_owned(), |path| path.display().to_string());
        let rest = ground.places.first().map(Place::url).unwrap_or_default();
        say(&format!(
            "
Three nodes stream. A client commits a row every few milliseconds into table demo.

Connect (goes wherever writes are accepted):
  psql \"postgresql://postgres:{PASSWORD}@{}/postgres?target_session_attrs=read-write\"
Look from outside:
  {exe} -d {rest} list
  {exe} -d {rest} explain
  curl -s {rest}/cluster
Logs:
  {}/node*/matriarch.log

Kill what you like, from another terminal; the lines below always name the present processes.
  The primary's PostgreSQL killed: writes go on within about half a second.
  Its daemon killed or stopped:    its guard ends PostgreSQL when the lease of 2 s runs out, another node takes over.
                                   The demo starts a dead daemon again after 3 s, as systemd would.
  Its whole node killed:           the same, and the node returns as a replica.
  A replica killed:                the writing client notices nothing.
Ctrl-C stops everything and removes {}.
",
            hosts.join(","),
            ground.dir.display(),
            ground.dir.display(),
        ));
    }

    /// Something that happened, with the time of day.
    pub(super) fn event(&mut self, what: String) {
        let line = format!("{}  {what}", time_of_day());
        if !self.is_terminal {
            say(&line);
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }

    /// Shows the present state: rewrites the lines that changed, or says what changed.
    pub(super) fn draw(&mut self, scene: &Scene<'_>) {
        self.notice(scene);
        if self.is_terminal {
            let lines = self.block(scene);
            self.rewrite(lines);
            return;
        }
        let (primary, replica) = victims(scene);
        if primary.is_whole() && replica.is_whole() && primary != self.suggested {
            self.suggested = primary;
            suggestions(primary, replica).iter().for_each(|line| say(line));
        }
    }

    /// Turns differences to the last scene into events.
    fn notice(&mut self, scene: &Scene<'_>) {
        if scene.pulse.stalls > self.stalls
            && let Some((ms, node)) = &scene.pulse.last_stall
        {
            self.stalls = scene.pulse.stalls;
            self.event(format!(
                "writes had stopped for {} s and go on at {node}",
                seconds(*ms)
            ));
        }
        // While nobody answers, the last table stays the one to compare with.
        if scene.sight.members.is_empty() {
            return;
        }
        let changes: Vec<String> = scene
            .sight
            .members
            .iter()
            .filter(|member| !self.table.iter().any(|before| is_same(before, member)))
            .map(|member| {
                format!(
                    "{} is {}, {}, timeline {}",
                    member.name, member.role, member.state, member.timeline
                )
            })
            .collect();
        self.table = scene.sight.members.to_vec();
        changes.into_iter().for_each(|change| self.event(change));
    }

    fn block(&self, scene: &Scene<'_>) -> Vec<String> {
        let table = Members {
            name: "demo",
            cluster: &scene.sight.cluster,
            witnesses: &[],
        };
        let text = table.render(None, false, Format::Pretty);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // The block keeps its height while the table is shorter.
        lines.resize(lines.len().max(TABLE_LINES), String::new());
        lines.push(String::new());
        let (primary, replica) = victims(scene);
        lines.extend(suggestions(primary, replica));
        lines.push(String::new());
        lines.push(pulse_line(&scene.pulse));
        lines.push(String::new());
        lines.extend((0..EVENTS).map(|i| {
            self.events
                .get(i)
                .map_or(String::new(), |event| format!("  {event}"))
        }));
        lines
    }

    /// Writes only the lines that differ, so that selecting text elsewhere is not disturbed.
    fn rewrite(&mut self, lines: Vec<String>) {
        let mut out = String::from("\x1b[?7l");
        if self.drawn.len() != lines.len() {
            self.drawn = vec![String::new(); lines.len()];
            out.push_str(&"\n".repeat(lines.len()));
        }
        for (i, (new, old)) in lines.iter().zip(&self.drawn).enumerate() {
            if new != old {
                let up = lines.len() - i;
                out.push_str(&format!("\x1b[{up}A\r\x1b[K{new}\r\x1b[{up}B"));
            }
        }
        out.push_str("\x1b[?7h");
        self.drawn = lines;
        let mut stdout = std::io::stdout();
        // A terminal that has gone will send SIGHUP, which ends the demo.
        let _ = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// A line for the person. A terminal or pipe that has gone must not keep the demo from cleaning up.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same for what went wrong.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The pids of the primary and of one replica.
fn victims(scene: &Scene<'_>) -> (Pids, Pids) {
    let of = |is_wanted: fn(&Member) -> bool| {
        let member = scene.sight.members.iter().find(|member| is_wanted(member));
        let hand = scene
            .crew
            .hands
            .iter()
            .find(|hand| member.is_some_and(|member| member.name == hand.name));
        hand.map(Hand::pids).unwrap_or_default()
    };
    (of(Member::is_primary), of(|member| !member.is_primary()))
}

/// For people; nothing compares it.
fn time_of_day() -> String {
    let ms = i64::try_from(clock::wall_ms()).unwrap_or(0);
    let now = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Lag changes all the time and is no event.
fn is_same(before: &Member, now: &Member) -> bool {
    (&before.name, &before.role, &before.state, &before.timeline)
        == (&now.name, &now.role, &now.state, &now.timeline)
}

/// Lines to copy, for the present primary and one replica.
fn suggestions(primary: Pids, replica: Pids) -> Vec<String> {
    let mut lines = Vec::new();
    let mut suggest = |what: &str, pids: &[Option<i32>], why: &str| {
        let known: Option<Vec<String>> = pids.iter().map(|pid| pid.map(|pid| pid.to_string())).collect();
        lines.push(match known {
            Some(pids) => format!("  {:<34} # {why}", format!("{what} {}", pids.join(" "))),
            None => format!("  {:<34} # {why}: not all of it runs now", ""),
        });
    };
    let Pids {
        daemon,
        guard,
        postmaster,
    } = primary;
    suggest("kill -9", &[postmaster], "the primary's PostgreSQL");
    suggest("kill -9", &[daemon], "its daemon");
    suggest("kill -9", &[daemon, guard, postmaster], "its whole node");
    suggest("kill -STOP", &[daemon], "its daemon hangs; kill -CONT wakes it");
    suggest(
        "kill -9",
        &[replica.daemon, replica.guard, replica.postmaster],
        "a replica's whole node",
    );
    lines
}

fn pulse_line(beat: &Beat) -> String {
    let Some((_, node)) = &beat.last else {
        return "  no row committed yet".to_owned();
    };
    let last_stall = beat
        .last_stall
        .as_ref()
        .map_or("none yet".to_owned(), |(ms, _)| format!("{} s", seconds(*ms)));
    match beat.silence_ms() {
        silence if silence >= 200 => {
            format!(
                "  {} rows committed; no commit since {} s",
                beat.rows,
                seconds(silence)
            )
        }
        _ => format!(
            "  {} rows committed, now at {node}; last interruption: {last_stall}",
            beat.rows
        ),
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02}", ms / 1000, ms % 1000 / 10)
}
