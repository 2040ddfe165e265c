//! pgBouncer's admin console: clients wait there while primacy moves, and its host follows.

use super::console::Console;
use super::picture::Picture;
use super::{News, TRY_AGAIN, Trouble, look, rest};
use crate::clock;
use crate::cluster::{Endpoint, Moment, Revision};
use crate::config::{Pgbouncer, Reach};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// A pooler that was paused is resumed after so long, whatever has become of the switchover.
const HOLD_MS: u64 = 10_000;
/// How often it is looked whether a pause that waits for clients has become pointless.
const LOOK: Duration = Duration::from_millis(100);

/// One pgBouncer.
pub(super) struct Pooler {
    reach: Reach,
    section: Pgbouncer,
    /// There while it is paused by us.
    mark: PathBuf,
    memory: Memory,
    kept: Option<Console>,
    trouble: Trouble,
}

/// What it owes to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    /// Since when it is paused by us.
    paused_at: Option<Moment>,
    /// The newest switchover that it was paused for.
    paused_for: Option<Revision>,
    /// Whom its file names.
    host: Option<Endpoint>,
}

/// What it should hear next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Pause(Revision),
    Resume,
    Reload(Endpoint),
}

impl Memory {
    fn due(&self, picture: &Picture, has_file: bool, now: Moment) -> Option<Word> {
        let serving = picture.serving.as_ref().filter(|_| picture.moving.is_none());
        let at = serving.and_then(|serving| serving.at.clone());
        // A new host before the clients are let go, or they would be sent to the old one.
        if let Some(at) = at.filter(|at| has_file && self.host.as_ref() != Some(at)) {
            return Some(Word::Reload(at));
        }
        if let Some(since) = self.paused_at {
            let over = serving.is_some() || now.since(since) >= HOLD_MS;
            return over.then_some(Word::Resume);
        }
        let begun = picture.moving.filter(|asked| self.paused_for != Some(*asked));
        begun.map(Word::Pause)
    }
}

impl Pooler {
    pub(super) fn all(section: &Pgbouncer, dir: &Path) -> impl Iterator<Item = Self> + use<> {
        let (section, dir) = (section.clone(), dir.to_owned());
        section.addresses.clone().into_iter().map(move |reach| {
            let plain: String = reach
                .to_string()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .collect();
            let mark = dir.join(format!("pgbouncer-{plain}.paused"));
            let paused_at = mark.exists().then(clock::now);
            Self {
                reach,
                section: section.clone(),
                mark,
                memory: Memory {
                    paused_at,
                    ..Memory::default()
                },
                kept: None,
                trouble: Trouble::default(),
            }
        })
    }

    pub(super) async fn keep(mut self, mut facts: News, mut stopped: watch::Receiver<bool>) {
        loop {
            if let Some(picture) = look(&mut facts)
                && let Some(word) = self
                    .memory
                    .due(&picture, self.section.hosts_file.is_some(), clock::now())
            {
                match self.say(&word, &mut facts, &stopped).await {
                    Ok(()) => {
                        self.trouble.is_over();
                        continue;
                    }
                    Err(why) => self.fail(&why).await,
                }
            } else if !self.kept.as_ref().is_some_and(Console::is_open) {
                // Long before it is needed: whoever wrote a wrong password hears of it now.
                match self.console().await {
                    Ok(console) => {
                        self.trouble.is_over();
                        self.kept = Some(console);
                    }
                    Err(why) => self.fail(&why).await,
                }
            }
            if rest(&mut facts, &mut stopped).await {
                if self.memory.paused_at.is_some() {
                    let _ = self.resume().await;
                }
                return;
            }
        }
    }

    async fn fail(&mut self, why: &io::Error) {
        self.trouble
            .note(format!("notify.pgbouncer: {}: {why}", self.reach));
        tokio::time::sleep(TRY_AGAIN).await;
    }

    async fn say(
        &mut self,
        word: &Word,
        facts: &mut News,
        stopped: &watch::Receiver<bool>,
    ) -> io::Result<()> {
        match word {
            Word::Pause(asked) => {
                // Tried once a switchover: a pause that comes late is worse than none.
                self.memory.paused_for = Some(*asked);
                std::fs::write(&self.mark, "")?;
                self.memory.paused_at = Some(clock::now());
                self.pause(facts, stopped).await
            }
            Word::Resume => self.resume().await,
            Word::Reload(at) => self.reload(at).await,
        }
    }

    /// Waits as long as running transactions need, but no longer than the pause is good for anything.
    async fn pause(&mut self, facts: &mut News, stopped: &watch::Receiver<bool>) -> io::Result<()> {
        let (console, orders) = (self.console().await?, self.named("PAUSE"));
        let outcome = {
            let paused = console.order(&orders);
            tokio::pin!(paused);
            loop {
                tokio::select! {
                    outcome = &mut paused => break outcome?,
                    () = tokio::time::sleep(LOOK) => {}
                }
                let picture = look(facts).unwrap_or_default();
                let over = self.memory.due(&picture, false, clock::now()).is_some();
                if over || *stopped.borrow() {
                    tracing::info!(
                        "clients of pgBouncer at {} did not end their transactions in time",
                        self.reach
                    );
                    // The console is still busy with them.
                    return Ok(());
                }
            }
        };
        match outcome {
            Ok(()) => tracing::info!("paused pgBouncer at {} for the switchover", self.reach),
            Err(refusal) => tracing::debug!("PAUSE: {refusal}: another node's daemon was first"),
        }
        self.kept = Some(console);
        Ok(())
    }

    async fn resume(&mut self) -> io::Result<()> {
        match self.order(&self.named("RESUME")).await? {
            Ok(()) => tracing::info!("resumed pgBouncer at {}", self.reach),
            Err(refusal) => tracing::debug!("RESUME: {refusal}: somebody else has done it"),
        }
        self.memory.paused_at = None;
        match std::fs::remove_file(&self.mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn reload(&mut self, at: &Endpoint) -> io::Result<()> {
        if let Some(file) = &self.section.hosts_file {
            let text = hosts(&self.section.databases, at);
            if std::fs::read_to_string(file).ok().as_deref() != Some(&text) {
                replace(file, &text)
                    .map_err(|error| io::Error::other(format!("hosts_file {}: {error}", file.display())))?;
            }
            self.order(&["RELOAD".to_owned()])
                .await?
                .map_err(io::Error::other)?;
            tracing::info!("pgBouncer at {} goes to {at} now", self.reach);
        }
        self.memory.host = Some(at.clone());
        Ok(())
    }

    async fn order(&mut self, orders: &[String]) -> io::Result<Result<(), String>> {
        let console = self.console().await?;
        let outcome = console.order_now(orders).await?;
        self.kept = Some(console);
        Ok(outcome)
    }

    /// The connection that is kept, or a new one.
    async fn console(&mut self) -> io::Result<Console> {
        match self.kept.take().filter(Console::is_open) {
            Some(console) => Ok(console),
            None => Console::open(&self.section, &self.reach).await,
        }
    }

    /// The order for each database, or for all.
    fn named(&self, verb: &str) -> Vec<String> {
        if self.section.databases.is_empty() {
            return vec![verb.to_owned()];
        }
        let names = self.section.databases.iter();
        names.map(|name| format!("{verb} \"{name}\"")).collect()
    }
}

/// The file that pgbouncer.ini includes.
fn hosts(databases: &[String], at: &Endpoint) -> String {
    let everything = ["*".to_owned()];
    let names = if databases.is_empty() {
        &everything[..]
    } else {
        databases
    };
    let mut text = "; Written by matriarch at every change of primary.\n[databases]\n".to_owned();
    for name in names {
        text.push_str(&format!("{name} = host={} port={}\n", at.host, at.port));
    }
    text
}

/// Written beside and renamed: pgBouncer never reads half of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::super::picture::Serving;
    use super::*;

    fn at(host: &str) -> Endpoint {
        Endpoint {
            host: host.to_owned(),
            port: 5432,
        }
    }

    fn picture(serving: Option<&str>, moving: Option<u64>) -> Picture {
        Picture {
            serving: serving.map(|host| Serving {
                member: host.into(),
                at: Some(at(host)),
            }),
            moving: moving.map(Revision),
            ..Picture::default()
        }
    }

    /// Does what is due and says it.
    fn step(memory: &mut Memory, serving: Option<&str>, moving: Option<u64>, now: u64) -> String {
        let now = Moment(now);
        let due = memory.due(&picture(serving, moving), true, now);
        match &due {
            Some(Word::Pause(asked)) => {
                (memory.paused_for, memory.paused_at) = (Some(*asked), Some(now));
                "pause".to_owned()
            }
            Some(Word::Resume) => {
                memory.paused_at = None;
                "resume".to_owned()
            }
            Some(Word::Reload(at)) => {
                memory.host = Some(at.clone());
                format!("reload {}", at.host)
            }
            None => String::new(),
        }
    }

    #[test]
    fn clients_wait_while_primacy_moves_and_find_the_new_host() {
        let mut memory = Memory::default();
        assert_eq!(step(&mut memory, Some("a"), None, 0), "reload a");
        assert_eq!(step(&mut memory, Some("a"), None, 1), "");
        assert_eq!(step(&mut memory, Some("a"), Some(7), 2), "pause");
        assert_eq!(step(&mut memory, Some("a"), Some(7), 3), "");
        assert_eq!(step(&mut memory, None, None, 4), "");
        assert_eq!(step(&mut memory, Some("b"), None, 5), "reload b");
        assert_eq!(step(&mut memory, Some("b"), None, 6), "resume");
        assert_eq!(step(&mut memory, Some("b"), None, 7), "");
        // A failover asks nobody to wait.
        assert_eq!(step(&mut memory, None, None, 8), "");
        assert_eq!(step(&mut memory, Some("a"), None, 9), "reload a");
        assert_eq!(step(&mut memory, Some("a"), None, 10), "");
    }

    #[test]
    fn nobody_waits_longer_than_the_bound_and_a_switchover_pauses_once() {
        let mut memory = Memory::default();
        assert_eq!(step(&mut memory, None, Some(7), 0), "pause");
        assert_eq!(step(&mut memory, None, Some(7), HOLD_MS - 1), "");
        assert_eq!(step(&mut memory, None, Some(7), HOLD_MS), "resume");
        assert_eq!(step(&mut memory, None, Some(7), HOLD_MS + 1), "");
        assert_eq!(step(&mut memory, None, Some(8), HOLD_MS + 2), "pause");
        // Called off: the same primary serves on.
        assert_eq!(step(&mut memory, Some("a"), None, HOLD_MS + 3), "reload a");
        assert_eq!(step(&mut memory, Some("a"), None, HOLD_MS + 4), "resume");
    }

    #[test]
    fn the_file_names_the_primary_for_each_database_or_for_all() {
        let section = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let text = hosts(&names, &at("10.0.0.12"));
            text.split_once("[databases]\n").unwrap().1.to_owned()
        };
        assert_eq!(section(&[]), "* = host=10.0.0.12 port=5432\n");
        assert_eq!(
            section(&["app", "shop"]),
            "app = host=10.0.0.12 port=5432\nshop = host=10.0.0.12 port=5432\n"
        );
    }
}
