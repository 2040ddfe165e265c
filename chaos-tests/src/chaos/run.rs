//! One run: grow, load, hurt and heal by the schedule, settle, judge.

use crate::chaos::arena::{Arena, NODES, seconds};
use crate::chaos::fault::{Fault, Hurt};
use crate::chaos::hurt_members;
use crate::chaos::load::Load;
use crate::chaos::schedule::{self, Entry};
use crate::chaos::truth;
use crate::chaos::verdict::{self, Healed, Mode, Verdict};
use crate::chaos::watch::{Sample, Watch};
use matriarch::clock::boot_ns;
use std::time::Duration;

/// After the last fault everybody must be back within this time.
const HEALTH_S: u64 = 60;
/// A standby may take so long to replay the last commit.
const LEVEL_NS: u64 = 20_000_000_000;
/// A busy primary may take so long to say that it is one.
const TOLD_NS: u64 = 20_000_000_000;
/// Rows that show that writes flow.
const FLOW: usize = 20;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the schedule.
    pub seed: u64,
    /// How long faults come.
    pub length: Duration,
    /// How commits are acknowledged.
    pub mode: Mode,
    /// Faults to choose from.
    pub kinds: Vec<Fault>,
    /// Length of a lease.
    pub ttl_ms: u64,
    /// Whether every step is told on standard error.
    pub loud: bool,
}

/// What came of it.
pub struct Run {
    /// Seed of the schedule.
    pub seed: u64,
    /// How commits were acknowledged.
    pub mode: Mode,
    /// Begin of the load.
    pub begun: u64,
    /// End of the load.
    pub ended: u64,
    /// What happened.
    pub faults: Vec<Healed>,
    /// Faults this machine cannot make, with the reason.
    pub skipped: Vec<String>,
    /// Faults that hit nothing.
    pub missed: Vec<String>,
    /// What was seen of the nodes.
    pub samples: Vec<Sample>,
    /// Ends of all acknowledged commits.
    pub acknowledged: Vec<u64>,
    /// Intervals between acknowledgements, longest first.
    pub gaps: Vec<(u64, u64)>,
    /// What the oracle found.
    pub verdict: Verdict,
    said: Vec<(u64, String)>,
}

impl Run {
    /// Whether no promise was broken.
    pub fn is_good(&self) -> bool {
        self.verdict.violations.is_empty()
    }

    /// The verdict in one line.
    pub fn sentence(&self) -> String {
        let count = |what: &str| {
            let found = self.verdict.counts.iter().find(|(name, _)| name == what);
            found.map_or("?".to_owned(), |(_, value)| value.clone())
        };
        let word = if self.is_good() {
            "good".to_owned()
        } else {
            format!("{} VIOLATIONS", self.verdict.violations.len())
        };
        format!(
            "{word}: seed {}, mode {:?}, {:.0} s, {} faults, {} commits acknowledged, {} lost, longest gap {:.1} s, \
             healthy after {} s",
            self.seed,
            self.mode,
            seconds(self.ended - self.begun),
            self.faults.len(),
            count("acknowledged commits"),
            count("acknowledged writes lost"),
            self.gaps.first().map_or(0.0, |(from, to)| seconds(to - from)),
            count("healthy after the last fault, s"),
        )
    }

    /// What was said when a fault was undone.
    pub fn said(&self, healed: &Healed) -> String {
        let of_it = self.said.iter().filter(|(since, _)| *since == healed.hurt.since);
        of_it
            .map(|(_, what)| what.as_str())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// The faults of a plan that this machine can make, and why not the others.
pub fn possible(arena: &Arena, kinds: &[Fault]) -> (Vec<Fault>, Vec<String>) {
    let mut skipped = Vec::new();
    let can = |fault: &&Fault| match fault.needs().and_then(|tool| arena.missing.get(&tool)) {
        None => true,
        Some(why) => {
            skipped.push(format!("{}: {why}", fault.name()));
            false
        }
    };
    let kinds = kinds.iter().filter(can).copied().collect();
    (kinds, skipped)
}

/// Runs a plan in an arena. `ends_early` becomes true when somebody wants it over.
pub async fn run(arena: &mut Arena, plan: &Plan, ends_early: impl Fn() -> bool) -> Result<Run, String> {
    let (kinds, skipped) = possible(arena, &plan.kinds);
    let length_ms = u64::try_from(plan.length.as_millis()).unwrap();
    let entries = schedule::draw(plan.seed, length_ms, &kinds);
    arena.grow().await?;
    let load = Load::start(&arena.herd).await?;
    let watch = Watch::start();
    let mut stage = Stage {
        arena,
        begun: boot_ns(),
        loud: plan.loud,
        active: Vec::new(),
        healed: Vec::new(),
        missed: Vec::new(),
        said: Vec::new(),
    };
    stage.play(&entries, length_ms, ends_early).await;
    let over = boot_ns();
    let mut verdict = Verdict::default();
    let health = stage.arena.await_health(HEALTH_S).await;
    stage.tell(&format!(
        "all undone, health: {:?}",
        health.as_ref().map_err(String::len)
    ));
    let flows = load.flows(FLOW, 20).await;
    let history = load.stop().await;
    let (begun, ended) = (stage.begun, boot_ns());
    let samples = watch.stop();
    let (faults, missed, said) = (stage.healed, stage.missed, stage.said);
    match last_words(arena, &history, &faults, plan).await {
        Ok(found) => verdict = found,
        Err(why) => verdict.violations.push(why),
    }
    if let Err(portrait) = &health {
        eprintln!("{portrait}");
    }
    verdict.health(health.ok(), flows, HEALTH_S);
    verdict.gave_up(&arena.gave_up, &faults, over);
    let mut acknowledged: Vec<u64> = history.acknowledged().iter().map(|call| call.end).collect();
    acknowledged.sort_unstable();
    let mut gaps: Vec<(u64, u64)> = acknowledged.windows(2).map(|pair| (pair[0], pair[1])).collect();
    gaps.sort_by_key(|(from, to)| std::cmp::Reverse(to - from));
    gaps.truncate(200);
    Ok(Run {
        seed: plan.seed,
        mode: plan.mode,
        begun,
        ended,
        faults,
        skipped,
        missed,
        samples,
        acknowledged,
        gaps,
        verdict,
        said,
    })
}

/// Reads what is there, judges it, and compares the nodes.
pub async fn last_words(
    arena: &mut Arena,
    history: &crate::chaos::history::History,
    faults: &[Healed],
    plan: &Plan,
) -> Result<Verdict, String> {
    // Whoever waited for health before has it; whoever did not get it is judged all the same.
    let _ = arena.await_health(5).await;
    let end = boot_ns() + TOLD_NS;
    let primary = loop {
        match arena.herd.primary().await {
            Some(primary) => break primary,
            None if boot_ns() > end => return Err("no primary in the end".into()),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let truth = truth::read(&arena.herd.nodes[primary]).await?;
    let mut verdict = verdict::judge(history, &truth, faults, plan.mode, plan.ttl_ms);
    let wanted = arena.herd.nodes[primary].sql(truth::DIGEST).await?;
    for node in 0..NODES {
        let end = boot_ns() + LEVEL_NS;
        loop {
            let found = arena.herd.nodes[node].sql(truth::DIGEST).await;
            if found.as_ref() == Ok(&wanted) {
                break;
            }
            if boot_ns() > end {
                let name = &arena.herd.nodes[node].name;
                verdict.violations.push(format!(
                    "{name} differs from the primary: {found:?}, not {wanted}"
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(verdict)
}

/// The faults under way.
struct Stage<'a> {
    arena: &'a mut Arena,
    begun: u64,
    loud: bool,
    active: Vec<(u64, Hurt)>,
    healed: Vec<Healed>,
    missed: Vec<String>,
    said: Vec<(u64, String)>,
}

impl Stage<'_> {
    async fn play(&mut self, entries: &[Entry], length_ms: u64, ends_early: impl Fn() -> bool) {
        let mut next = entries.iter().peekable();
        while !ends_early() {
            let now_ms = (boot_ns() - self.begun) / 1_000_000;
            self.arena.supervise();
            for said in hurt_members::let_in(self.arena).await {
                self.tell(&said);
            }
            if let Some(due) = self.active.iter().position(|(until, _)| *until <= now_ms) {
                let (_, hurt) = self.active.remove(due);
                self.heal(hurt).await;
                continue;
            }
            if let Some(entry) = next.next_if(|entry| entry.at_ms <= now_ms) {
                self.inject(entry).await;
                continue;
            }
            if now_ms >= length_ms || (next.peek().is_none() && self.active.is_empty()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (_, hurt) in std::mem::take(&mut self.active) {
            self.heal(hurt).await;
        }
    }

    async fn inject(&mut self, entry: &Entry) {
        let name = entry.fault.name();
        let held = self.arena.held;
        match entry.fault.inject(self.arena, entry.pick).await {
            Ok(hurt) => {
                self.tell(&format!("{name}: {}", hurt.witness));
                let until_ms = (boot_ns() - self.begun) / 1_000_000 + entry.hold_ms;
                self.active.push((until_ms, hurt));
            }
            Err(why) => {
                self.tell(&format!("{name} hit nothing: {why}"));
                // What it had begun is undone: it has no remedy that would do it later.
                self.arena.held = held;
                self.missed.push(format!("{name}: {why}"));
            }
        }
    }

    async fn heal(&mut self, hurt: Hurt) {
        let until = boot_ns();
        let said = hurt.heal(self.arena).await;
        self.tell(&format!("{} undone {}", hurt.fault.name(), said.join("; ")));
        self.said.extend(said.into_iter().map(|what| (hurt.since, what)));
        self.healed.push(Healed {
            hurt,
            until,
            over: boot_ns(),
        });
    }

    fn tell(&self, what: &str) {
        if self.loud {
            eprintln!("{:7.2} s  {what}", seconds(boot_ns() - self.begun));
        }
    }
}
