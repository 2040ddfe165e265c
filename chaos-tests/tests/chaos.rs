//! Cuts inside a switch under load, and a short run of chaos. Needs root, else each test says that it was skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch::clock::boot_ns;
use matriarch_chaos::Options;
use matriarch_chaos::chaos::arena::{Arena, Tool, in_arena, seconds};
use matriarch_chaos::chaos::fault::{Fault, Hurt};
use matriarch_chaos::chaos::history::{Call, History};
use matriarch_chaos::chaos::load::Load;
use matriarch_chaos::chaos::run::{self, Plan};
use matriarch_chaos::chaos::verdict::{Healed, Mode};
use std::time::Duration;

/// Far more than a failover by an ended lease may take (ttl + 0.3 s).
const FAILOVER_S: u64 = 60;
/// Everybody must be back within this time.
const HEALTH_S: u64 = 120;
const TTL_MS: u64 = 2_000;

fn plan() -> Plan {
    Plan {
        seed: 0,
        length: Duration::ZERO,
        mode: Mode::Async,
        kinds: Vec::new(),
        ttl_ms: TTL_MS,
        loud: true,
    }
}

/// Injects a fault under load, lets `meanwhile` run, undoes it, and asks the oracle.
async fn under(
    fault: Fault,
    arena: &mut Arena,
    meanwhile: impl AsyncFnOnce(&Load, &Hurt),
) -> (Healed, History) {
    arena.grow().await.unwrap();
    let load = Load::start(&arena.herd).await.unwrap();
    assert!(
        load.flows(20, FAILOVER_S).await,
        "no writes flow before the fault"
    );
    // A busy node may not say in time that it is the primary.
    let end = boot_ns() + FAILOVER_S * 1_000_000_000;
    let hurt = loop {
        match fault.inject(arena, 0).await {
            Ok(hurt) => break hurt,
            Err(why) => assert!(boot_ns() < end, "{} hits nothing: {why}", fault.name()),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    eprintln!("{}: {}", fault.name(), hurt.witness);
    meanwhile(&load, &hurt).await;
    let until = boot_ns();
    assert_eq!(hurt.heal(arena).await, Vec::<String>::new());
    let healed = Healed {
        hurt,
        until,
        over: boot_ns(),
    };
    let took = arena.await_health(HEALTH_S).await.expect("everybody is back");
    eprintln!("healthy {took:.1} s after the end of {}", fault.name());
    assert!(load.flows(20, FAILOVER_S).await, "no writes flow after the fault");
    let history = load.stop().await;
    let verdict = run::last_words(arena, &history, std::slice::from_ref(&healed), &plan())
        .await
        .unwrap();
    assert_eq!(verdict.violations, Vec::<String>::new());
    (healed, history)
}

/// What was acknowledged while the fault lasted, by the node it hit and by the others.
fn during(healed: &Healed, history: &History) -> (Vec<Call>, Vec<Call>) {
    let is_during = |call: &Call| call.end > healed.hurt.since && call.end < healed.until;
    history
        .acknowledged()
        .into_iter()
        .filter(is_during)
        .partition(|call| healed.hurt.nodes.contains(&call.node))
}

/// Asserts that the node that was hit accepted nothing a lease later and nothing beside another.
fn demand_one_after_the_other(healed: &Healed, history: &History) {
    let (there, elsewhere) = during(healed, history);
    let first = elsewhere
        .iter()
        .map(|call| call.end)
        .min()
        .expect("another took over");
    eprintln!(
        "{} acknowledged there, {} elsewhere, the first {:.2} s after the cut",
        there.len(),
        elsewhere.len(),
        seconds(first - healed.hurt.since)
    );
    let late: Vec<&Call> = there.iter().filter(|call| call.begin > first).collect();
    assert!(
        late.is_empty(),
        "acknowledged beside the new primary: {:?}",
        late.first()
    );
}

#[test]
fn the_primary_is_cut_off_under_load_and_refuses_before_another_accepts() {
    in_arena(
        Options::default(),
        "cut-primary",
        Some(Tool::Nft),
        async |arena| {
            let (healed, history) = under(Fault::CutPrimary, arena, async |load, hurt| {
                await_elsewhere(load, hurt).await;
            })
            .await;
            demand_one_after_the_other(&healed, &history);
        },
    );
}

#[test]
fn the_primary_is_heard_by_nobody_and_another_takes_over() {
    in_arena(
        Options::default(),
        "one-way-out",
        Some(Tool::Nft),
        async |arena| {
            let (healed, history) = under(Fault::OneWayOut, arena, async |load, hurt| {
                await_elsewhere(load, hurt).await;
            })
            .await;
            demand_one_after_the_other(&healed, &history);
        },
    );
}

#[test]
fn the_primary_hears_nobody_and_another_takes_over() {
    in_arena(Options::default(), "one-way-in", Some(Tool::Nft), async |arena| {
        let (healed, history) = under(Fault::OneWayIn, arena, async |load, hurt| {
            await_elsewhere(load, hurt).await;
        })
        .await;
        demand_one_after_the_other(&healed, &history);
    });
}

/// Waits until rows were acknowledged by a node that the fault did not hit.
async fn await_elsewhere(load: &Load, hurt: &Hurt) {
    let end = boot_ns() + FAILOVER_S * 1_000_000_000;
    while !load.flows_elsewhere(&hurt.nodes, hurt.since) {
        assert!(boot_ns() < end, "nobody took over");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(load.flows(100, FAILOVER_S).await, "writes stopped again");
}

#[test]
fn no_node_reaches_another_and_nobody_accepts_a_write_a_lease_later() {
    in_arena(
        Options::default(),
        "cut-majority",
        Some(Tool::Nft),
        async |arena| {
            let (healed, history) = under(Fault::CutMajority, arena, async |_, hurt| {
                // The time without a majority is what is tested.
                let end = hurt.since + (TTL_MS + 4_000) * 1_000_000;
                while boot_ns() < end {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await;
            let deadline = healed.hurt.since + (TTL_MS + 300) * 1_000_000;
            let (there, _) = during(&healed, &history);
            let late: Vec<&Call> = there.iter().filter(|call| call.begin > deadline).collect();
            assert!(
                late.is_empty(),
                "acknowledged without a majority: {:?}",
                late.first()
            );
        },
    );
}

#[test]
fn a_short_run_of_chaos() {
    in_arena(Options::default(), "chaos", None, async |arena| {
        let plan = Plan {
            seed: 11,
            length: Duration::from_secs(25),
            kinds: vec![
                Fault::KillPrimary,
                Fault::CutPrimary,
                Fault::StopDaemon,
                Fault::KillPostmaster,
                Fault::PowerOne,
                Fault::HalfOpen,
            ],
            ..plan()
        };
        let outcome = run::run(arena, &plan, || false).await.unwrap();
        eprintln!("{}\n{:?}", outcome.sentence(), outcome.skipped);
        assert_eq!(outcome.verdict.violations, Vec::<String>::new());
        assert!(!outcome.faults.is_empty(), "no fault hit: {:?}", outcome.missed);
    });
}
