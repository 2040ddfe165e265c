//! Cuts inside a switch under load, and a short run of chaos. Needs root, else each test says that it was skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch::clock::boot_ns;
use matriarch_chaos::chaos::arena::{Arena, Tool, in_arena, seconds};
use matriarch_chaos::chaos::fault::{Fault, Hurt};
use matriarch_chaos::chaos::history::{Call, History};
use matriarch_chaos::chaos::load::Load;
use matriarch_chaos::chaos::network::{Port, Way};
use matriarch_chaos::chaos::run::{self, Plan};
use matriarch_chaos::chaos::verdict::{Healed, Mode};
use matriarch_chaos::writer::{self, Writer};
use matriarch_chaos::{Options, oracle};
use std::time::Duration;

/// Far more than a failover by an ended lease may take (ttl + 0.3 s).
const FAILOVER_S: u64 = 60;
/// Everybody must be back within this time.
const HEALTH_S: u64 = 120;
const TTL_MS: u64 = 2_000;
/// A busy machine may be silent for longer than it should, and primacy moves then.
const ATTEMPTS: usize = 3;
/// Rows that show that writes flow.
const FLOW: usize = 50;

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

/// Without it the lease would run out, and primacy would move for nothing: the third node hears everybody.
#[test]
fn a_leader_that_is_cut_from_the_primary_leaves_the_lead_to_who_hears_it() {
    // The lead is to move after 1.75 s, before a fence that only the third node's knocks at its port keep away.
    let options = Options {
        ttl: 4.0,
        ..Options::synchronous("quorum")
    };
    in_arena(options, "cut-from-leader", Some(Tool::Nft), async |arena| {
        arena.grow().await.unwrap();
        writer::prepare(&arena.herd).await;
        let client = Writer::start(&arena.herd);
        client.await_flow(&arena.herd, FLOW, FAILOVER_S).await;
        let mut stayed = false;
        for attempt in 0..ATTEMPTS {
            stayed = cut_from_leader(arena, &format!("cut{attempt}"), &client).await;
            if stayed {
                break;
            }
        }
        assert!(stayed, "primacy moved each time");
        let writes = client.stop().await;
        let primary = arena.herd.await_whole(HEALTH_S).await;
        let verdict = oracle::judge(&arena.herd, primary, &writes).await;
        verdict.demand_nothing_lost();
    });
}

/// Cuts the leader from the primary, and heals that once another leads and the lease would be over; whether the client
/// noticed nothing.
async fn cut_from_leader(arena: &mut Arena, name: &str, client: &Writer) -> bool {
    let (primary, leader) = arena.herd.await_leader_elsewhere(HEALTH_S).await;
    let before = (arena.herd.nodes[leader].log().len(), client.connections());
    let ways = Way::both(Port::Node(primary), Port::Node(leader));
    arena.network.cut(name, &ways).unwrap();
    let begun = boot_ns();
    let herd = &arena.herd;
    herd.until("another leader or another primary", FAILOVER_S, async || {
        let (leads, serves) = (herd.raft_leader().await, herd.primary().await);
        leads.is_some_and(|node| node != leader) || serves.is_some_and(|node| node != primary)
    })
    .await;
    client.await_flow(herd, FLOW, FAILOVER_S).await;
    let over = begun + 8_000_000_000;
    herd.until("twice the time of a lease", FAILOVER_S, async || boot_ns() > over)
        .await;
    client.await_flow(herd, FLOW, FAILOVER_S).await;
    let word = format!("which hears {}", herd.nodes[primary].name);
    let handed_over = herd.nodes[leader].log_since(before.0).contains(&word);
    let swallowed = arena.network.swallowed(name).unwrap();
    eprintln!(
        "handed over: {handed_over}, new connections: {}, packets swallowed {swallowed:?}",
        client.connections() - before.1
    );
    assert!(swallowed.iter().all(|packets| *packets > 0), "{swallowed:?}");
    arena.network.heal(name).unwrap();
    handed_over && client.connections() == before.1
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
