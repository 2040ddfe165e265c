//! Whether this node is good for a PostgreSQL at all: servers that end by themselves, and a disk that takes no more.
//!
//! ```text
//!   postmaster gone, not by us ----> counted: 3 within a minute -> not promotable for a while, started no sooner
//!   postmaster gone, job failed ---> disk probed with a write ---> unusable: nothing is started, probed every 5 s
//!   a serving primary hangs -------> not promotable for a while, if somebody else is
//!   postmaster runs ---------------> room looked at every 2 s ---> full: not promotable; a primary gives way
//! ```
//!
//! A primary on a full disk often does not die: it refuses rows one by one for as long as its last log file lasts. So it
//! ends its epoch itself, but only if the leader says that somebody else may be promoted. What is unusable stays out
//! with the reason in its report, and comes back by itself. The probes run beside the loop, one at a time: a disk that
//! does not answer costs one thread, and counts as unusable.

use super::agent::Agent;
use super::disk::{self, Need};
use super::job::Purpose;
use crate::clock;
use crate::cluster::Moment;
use crate::decide::duty::{Duty, Process};
use crate::decide::lease;
use std::collections::VecDeque;
use std::path::PathBuf;
use tokio::task::JoinHandle;

/// So many ends of PostgreSQL by itself within [`WINDOW_MS`] are no accident.
const ENDS: usize = 3;
const WINDOW_MS: u64 = 60_000;
/// A node with so many ends is not promoted, and starts nothing, for this long after the last one; twice as long after each
/// further one, up to the longest: what ends it may pass, and it may be the only one that has everything.
const FIRST_MS: u64 = 5_000;
const SPARED_MS: u64 = 20_000;
/// Others that may be elected without the one that hung are elected within this; if nobody was, it is needed.
const ELECTED_MS: u64 = 3_000;
/// How often the disk is looked at while PostgreSQL runs, and while it is unusable.
const LOOK_MS: u64 = 2_000;
const AGAIN_MS: u64 = 5_000;
/// How long a primary's last word, and the next start, wait for the disk: what a crash left unwritten may come first.
const PATIENCE_MS: u64 = 1_000;
/// A disk that has not answered a probe by then is unusable until it does.
const HUNG_MS: u64 = 10_000;
/// A running primary gives way after so many looks in a row at a full disk: one may be a passing peak.
const LOOKS: u32 = 2;

/// What is known of this node's fitness.
#[derive(Debug, Default)]
pub struct Fitness {
    dirs: Vec<PathBuf>,
    postmaster: Option<i32>,
    /// The postmaster ends because we want it to.
    ours: bool,
    ends: VecDeque<Moment>,
    /// Why the last one ended.
    last_end: String,
    /// `None` until the disk was probed since PostgreSQL went down.
    disk: Option<Result<(), String>>,
    /// So many looks in a row found it unusable.
    bad_looks: u32,
    next: Moment,
    /// When a primary was last found not to answer, although somebody could take over.
    hung: Option<Moment>,
    probe: Option<(Moment, JoinHandle<Result<(), String>>)>,
}

impl Fitness {
    /// The directories that PostgreSQL must be able to write.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            ..Self::default()
        }
    }

    /// Takes in which postmaster runs, whether its end is our doing, and how the last one ended; answers whether one has
    /// just ended by itself.
    fn saw(&mut self, postmaster: Option<i32>, ours: bool, exit: &str, now: Moment) -> bool {
        self.ours |= ours;
        if self.postmaster == postmaster {
            return false;
        }
        let by_itself = self.postmaster.is_some() && !self.ours;
        if self.postmaster.is_some() {
            if by_itself {
                self.ends.push_back(now);
                exit.clone_into(&mut self.last_end);
            }
            self.doubt(now);
        }
        if postmaster.is_some() {
            self.next = now.plus(LOOK_MS);
            self.bad_looks = 0;
        }
        self.postmaster = postmaster;
        self.ours = ours && postmaster.is_some();
        by_itself
    }

    /// Something failed that may have to do with the disk.
    pub(super) fn doubt(&mut self, now: Moment) {
        if self.disk == Some(Ok(())) {
            self.disk = None;
        }
        self.next = now;
    }

    /// Ends a probe that is done and begins one that is due.
    fn look(&mut self, now: Moment) {
        while self.ends.front().is_some_and(|at| now.since(*at) > WINDOW_MS) {
            self.ends.pop_front();
        }
        if let Some((since, probe)) = &mut self.probe {
            if let Some(found) = outcome(probe) {
                self.probe = None;
                self.took_in(found, now);
            } else if now.since(*since) > HUNG_MS {
                let dir = self.dirs.first().map(|dir| dir.display().to_string());
                let why = format!("the disk of {} does not answer", dir.unwrap_or_default());
                self.disk = Some(Err(why));
            }
            return;
        }
        if now < self.next || self.dirs.is_empty() {
            return;
        }
        let need = match (self.postmaster, &self.disk) {
            (Some(_), _) => Need::GoOn,
            (None, Some(Err(_))) => Need::Return,
            (None, _) => Need::Start,
        };
        let dirs = self.dirs.clone();
        let probe = tokio::task::spawn_blocking(move || disk::judge(&dirs, need));
        self.probe = Some((now, probe));
    }

    fn took_in(&mut self, found: Result<(), String>, now: Moment) {
        match &found {
            Err(why) if self.disk.as_ref() != Some(&found) => tracing::warn!("{why}"),
            Ok(()) if matches!(self.disk, Some(Err(_))) => tracing::info!("the disk is usable again"),
            _ => {}
        }
        self.bad_looks = if found.is_err() { self.bad_looks + 1 } else { 0 };
        let pause = if self.postmaster.is_some() {
            LOOK_MS
        } else {
            AGAIN_MS
        };
        self.next = if found.is_ok() && self.postmaster.is_none() {
            // Nothing more to learn until something happens.
            Moment(u64::MAX)
        } else {
            now.plus(pause)
        };
        self.disk = Some(found);
    }

    /// Whether the disk was probed since PostgreSQL went down; what is wrong with it belongs to the last word.
    pub(super) fn is_known(&self, now: Moment) -> bool {
        let late = |(since, _): &(Moment, _)| now.since(*since) > PATIENCE_MS;
        self.disk.is_some() || self.dirs.is_empty() || self.probe.as_ref().is_some_and(late)
    }

    /// Why this node may not be promoted; `fenced`: by the promises of the others, who could have been elected at once.
    pub(super) fn unfit(&self, now: Moment, fenced: bool) -> Option<String> {
        let spared_ms = if fenced { ELECTED_MS } else { SPARED_MS };
        let hung = self.hung.filter(|at| now.since(*at) < spared_ms);
        self.stuck(now)
            .or_else(|| hung.map(|_| "its PostgreSQL did not answer".to_owned()))
    }

    /// Why it starts nothing either.
    fn stuck(&self, now: Moment) -> Option<String> {
        if let Some(Err(why)) = &self.disk {
            return Some(why.clone());
        }
        let last = self.ends.back()?;
        let further = self.ends.len().checked_sub(ENDS)?;
        let spared_ms = (FIRST_MS << further.min(10)).min(SPARED_MS);
        (now.since(*last) < spared_ms).then(|| {
            format!(
                "its PostgreSQL has ended by itself {} times within a minute, at last it {}",
                self.ends.len(),
                self.last_end
            )
        })
    }
}

fn outcome(probe: &mut JoinHandle<Result<(), String>>) -> Option<Result<(), String>> {
    use std::task::{Context, Poll, Waker};
    // The loop comes by often enough: nobody needs to be woken.
    let mut context = Context::from_waker(Waker::noop());
    match std::future::Future::poll(std::pin::Pin::new(probe), &mut context) {
        Poll::Ready(done) => Some(done.unwrap_or_else(|why| Err(format!("the disk was not probed: {why}")))),
        Poll::Pending => None,
    }
}

impl Agent {
    /// What this pass shows of the node's fitness.
    pub(super) fn look_at_fitness(&mut self, now: Moment) {
        if self.parts.hands.is_none() {
            return;
        }
        let job = self.job.as_ref().map(|job| &job.purpose);
        let (_, until) = self.parts.tenancy.lease();
        let exit = self.guard.last_exit.as_deref().unwrap_or("is gone");
        // Past its deadline it is the guard that ends a primary, and a guard that dies takes it along.
        let guarded = self.running.is_some() && now >= lease::stop_at(until);
        let ours = matches!(
            job,
            Some(Purpose::Fence | Purpose::Stop | Purpose::Raise | Purpose::Again)
        ) || guarded
            || exit.contains("its guard died");
        if self.fitness.saw(self.guard.postmaster, ours, exit, now) {
            self.callbacks_after_end();
        }
        self.fitness.look(now);
        if self.hung_since(now).is_some() && self.has_heir() {
            // What made it hang is not known: a start in the same place could hang as well.
            self.fitness.hung = Some(now);
        }
    }

    /// Nothing is started where it could only fail, and fill the disk or spoil the data on the way.
    pub(super) fn is_held_back(&self, now: Moment) -> bool {
        let starts = matches!(
            self.duty,
            Duty::Follow(_) | Duty::Stand | Duty::Rewind(..) | Duty::Clone(..)
        );
        starts
            && self.process() == Process::Down
            && (!self.fitness.is_known(now) || self.fitness.stuck(now).is_some())
    }

    /// Why this serving primary has to give way to somebody who can take over.
    pub(super) fn must_give_way(&self) -> Option<String> {
        let why = self.fitness.disk.as_ref()?.as_ref().err()?;
        let serving = self.risen.is_some() && self.risen == self.running;
        let patient = self.fitness.bad_looks < LOOKS;
        (serving && !patient && self.has_heir()).then(|| why.clone())
    }

    /// Whether the leader lately said that somebody else may be promoted.
    fn has_heir(&self) -> bool {
        let word = self.parts.word.borrow();
        let is_recent = clock::now().since(word.at) < LOOK_MS;
        let candidates = word.standing.iter().flat_map(|standing| &standing.candidates);
        let mut heirs = candidates.filter(|(name, why_not)| why_not.is_none() && *name != self.me);
        is_recent && heirs.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000 + ms)
    }

    fn run_once(fitness: &mut Fitness, pid: i32, ours: bool, ms: u64) {
        fitness.saw(Some(pid), false, "", at(ms));
        fitness.saw(Some(pid), ours, "", at(ms + 10));
        fitness.saw(None, false, "was killed by signal 6", at(ms + 20));
        fitness.look(at(ms + 20));
        fitness.took_in(Ok(()), at(ms + 30));
    }

    #[tokio::test]
    async fn three_ends_within_a_minute_are_no_accident() {
        let mut fitness = Fitness::new(Vec::new());
        run_once(&mut fitness, 1, false, 0);
        run_once(&mut fitness, 2, false, 1_000);
        assert_eq!(fitness.unfit(at(2_000), false), None);
        run_once(&mut fitness, 3, false, 2_000);
        let why = fitness.unfit(at(2_100), false).unwrap();
        assert_eq!(
            why,
            "its PostgreSQL has ended by itself 3 times within a minute, at last it was killed by signal 6"
        );
        assert_eq!(
            fitness.unfit(at(2_000 + FIRST_MS + 100), false),
            None,
            "it is tried again"
        );
        for (pid, ms, spared_ms) in [
            (4, 40_000, 2 * FIRST_MS),
            (5, 50_000, SPARED_MS),
            (6, 51_000, SPARED_MS),
        ] {
            run_once(&mut fitness, pid, false, ms);
            // `run_once` ends it a moment later.
            assert!(
                fitness.unfit(at(ms + spared_ms - 1), false).is_some(),
                "and spared longer"
            );
            assert_eq!(fitness.unfit(at(ms + spared_ms + 100), false), None);
        }
        run_once(&mut fitness, 7, false, 150_000);
        assert_eq!(fitness.unfit(at(150_100), false), None, "old ends are forgotten");
    }

    #[tokio::test]
    async fn ends_that_were_asked_for_do_not_count() {
        let mut fitness = Fitness::new(Vec::new());
        for pid in 1..9 {
            run_once(&mut fitness, pid, true, u64::try_from(pid).unwrap() * 1_000);
        }
        assert_eq!(fitness.unfit(at(9_000), false), None);
        run_once(&mut fitness, 9, false, 9_000);
        assert_eq!(
            fitness.ends.len(),
            1,
            "what was said of one postmaster is not said of the next"
        );
    }

    #[tokio::test]
    async fn the_disk_is_probed_after_an_end_and_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let mut fitness = Fitness::new(vec![dir.path().to_owned()]);
        assert!(!fitness.is_known(at(0)));
        let probed = async |fitness: &mut Fitness, now: Moment| {
            fitness.look(now);
            while fitness.probe.is_some() {
                tokio::task::yield_now().await;
                fitness.look(now);
            }
        };
        probed(&mut fitness, at(0)).await;
        assert!(fitness.is_known(at(0)) && fitness.unfit(at(0), false).is_none());
        fitness.look(at(500_000));
        assert!(fitness.probe.is_none(), "a stopped server is not probed for ever");
        fitness.saw(Some(1), false, "", at(600_000));
        assert_eq!(fitness.next, at(600_000 + LOOK_MS), "a running one is");
        fitness.saw(None, false, "", at(600_010));
        assert!(!fitness.is_known(at(600_010)));
        probed(&mut fitness, at(600_010)).await;
        assert!(fitness.is_known(at(600_010)));
    }

    #[tokio::test]
    async fn an_unusable_disk_is_looked_at_again_until_it_is_usable() {
        let mut fitness = Fitness::new(vec![PathBuf::from("/")]);
        fitness.took_in(Err("the disk is full".into()), at(0));
        assert_eq!(fitness.unfit(at(0), false).as_deref(), Some("the disk is full"));
        assert_eq!(fitness.next, at(AGAIN_MS));
        fitness.doubt(at(100));
        assert_eq!(
            fitness.unfit(at(100), false).as_deref(),
            Some("the disk is full"),
            "bad news stay until better"
        );
        fitness.took_in(Ok(()), at(200));
        assert_eq!(fitness.unfit(at(200), false), None);
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_unusable_until_it_does() {
        let mut fitness = Fitness::new(vec![PathBuf::from("/srv/pg")]);
        let (answer, wait) = std::sync::mpsc::channel::<()>();
        let hung = tokio::task::spawn_blocking(move || {
            let _ = wait.recv();
            Ok(())
        });
        fitness.probe = Some((at(0), hung));
        fitness.look(at(PATIENCE_MS));
        assert!(!fitness.is_known(at(PATIENCE_MS)));
        assert!(
            fitness.is_known(at(PATIENCE_MS + 1)),
            "nothing waits for it any longer"
        );
        fitness.look(at(HUNG_MS));
        assert_eq!(fitness.unfit(at(HUNG_MS), false), None);
        fitness.look(at(HUNG_MS + 1));
        assert_eq!(
            fitness.unfit(at(HUNG_MS + 1), false).as_deref(),
            Some("the disk of /srv/pg does not answer")
        );
        drop(answer);
        while fitness.probe.is_some() {
            tokio::task::yield_now().await;
            fitness.look(at(20_000));
        }
        assert_eq!(fitness.unfit(at(20_000), false), None);
    }

    #[test]
    fn one_that_hung_is_spared_for_as_long_as_others_may_be_elected() {
        let mut fitness = Fitness::new(Vec::new());
        fitness.hung = Some(at(0));
        assert!(fitness.unfit(at(SPARED_MS - 1), false).is_some());
        assert!(fitness.unfit(at(ELECTED_MS - 1), true).is_some());
        assert_eq!(
            fitness.unfit(at(ELECTED_MS), true),
            None,
            "it alone has everything that was acknowledged"
        );
    }
}
