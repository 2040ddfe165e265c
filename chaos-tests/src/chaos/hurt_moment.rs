//! Faults that must hit a moment: a promotion, a base backup, a rewind; restarts in turn; clocks that jump or drift.

use crate::chaos::arena::{Arena, NODES};
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::chaos::hurt_process::kill_nodes;
use crate::processes;
use crate::rest;
use matriarch::clock::boot_ns;
use std::time::Duration;

/// How long the moment is waited for.
const MOMENT_NS: u64 = 15_000_000_000;
/// How long a stop in order may take.
const STOP_NS: u64 = 60_000_000_000;

/// Between two looks at a clock whose pace is wanted.
const PACED: Duration = Duration::from_secs(1);

/// Makes one of them happen.
pub async fn inject(fault: Fault, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    match fault {
        Fault::RollingRestart => rolling_restart(arena).await,
        Fault::RollingStop => rolling_stop(arena).await,
        Fault::KillInPromote => kill_in_promote(arena).await,
        Fault::KillInBackup => kill_in_backup(arena, pick).await,
        Fault::KillInRewind => kill_in_rewind(arena).await,
        Fault::Switchover => switchover(arena, pick).await,
        Fault::KillInSwitchover => kill_in_switchover(arena, pick).await,
        _ => {
            let node = fault::any(arena, pick)?;
            let hours = [-24, -1, 1, 24][usize::try_from(pick / 8 % 4).unwrap()];
            arena.set_clock(node, hours * 3600)?;
            let now = arena.herd.nodes[node]
                .sql("SELECT extract(epoch FROM now())::bigint")
                .await;
            let here = i64::try_from(matriarch::clock::wall_ms() / 1000).unwrap();
            let there: i64 = now?.parse().map_err(|_| "no clock was read")?;
            if (there - here - hours * 3600).abs() > 60 {
                arena.set_clock(node, 0)?;
                return Err(format!("the clock did not jump: {} s apart", there - here));
            }
            let witness = format!("PostgreSQL's clock is {} s off", there - here);
            Ok(Hurt::new(
                fault,
                vec![node],
                witness,
                vec![Remedy::SetClock(node)],
            ))
        }
    }
}

/// A wall clock that runs too slow or too fast. The proof: how far PostgreSQL's own went meanwhile.
pub async fn drift(arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    let node = fault::any(arena, pick)?;
    let percent = [50, 80, 120, 200][usize::try_from(pick / 8 % 4).unwrap()];
    arena.set_pace(node, percent)?;
    match pace_of(arena, node).await {
        Ok(pace) if (pace - f64::from(percent) / 100.0).abs() < 0.1 => {
            let witness = format!("PostgreSQL's clock runs at {pace:.2} of its pace");
            let remedies = vec![Remedy::SetClock(node)];
            Ok(Hurt::new(Fault::ClockDrift, vec![node], witness, remedies))
        }
        outcome => {
            arena.set_clock(node, 0)?;
            Err(format!("the clock did not drift: {outcome:?}, not {percent} %"))
        }
    }
}

/// How fast PostgreSQL's clock goes on a node, by two looks.
async fn pace_of(arena: &Arena, node: usize) -> Result<f64, String> {
    let look = async || {
        let text = arena.herd.nodes[node]
            .sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            .await?;
        let there: i64 = text.parse().map_err(|_| "no clock was read")?;
        Ok::<_, String>((boot_ns(), there))
    };
    let first = look().await?;
    tokio::time::sleep(PACED).await;
    let second = look().await?;
    Ok((second.1 - first.1) as f64 * 1e3 / (second.0 - first.0) as f64)
}

/// Waits for a moment without pause: it may last for milliseconds only.
async fn catch<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = boot_ns() + MOMENT_NS;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if boot_ns() > end {
            return Err(format!("{what} was not seen within 15 s"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn kill_in_promote(arena: &mut Arena) -> Result<Hurt, String> {
    let node = fault::primary(arena).await?;
    let others = arena.herd.others(node);
    let marks: Vec<usize> = others.iter().map(|i| arena.herd.nodes[*i].log().len()).collect();
    let first = kill_nodes(Fault::KillInPromote, arena, &[node])?;
    let promoting = "received promote request";
    let caught = catch("a promotion", || {
        others.iter().zip(&marks).find_map(|(i, mark)| {
            let log = arena.herd.nodes[*i].log_since(*mark);
            log.contains(promoting).then_some(*i)
        })
    })
    .await;
    let Ok(second) = caught else {
        return Ok(Hurt {
            witness: "the primary was killed, but no promotion was caught".into(),
            ..first
        });
    };
    let killed = kill_nodes(Fault::KillInPromote, arena, &[second]);
    let Ok(hurt) = killed else { return Ok(first) };
    let mut nodes = first.nodes.clone();
    nodes.push(second);
    Ok(Hurt {
        witness: format!(
            "{} had received its promote request and was killed",
            arena.herd.nodes[second].name
        ),
        remedies: [first.remedies, hurt.remedies].concat(),
        nodes,
        ..hurt
    })
}

/// Catches a tool of a node and kills the whole node while it runs.
async fn kill_with_tool(fault: Fault, arena: &mut Arena, node: usize, tool: &str) -> Result<Hurt, String> {
    let dir = arena.herd.nodes[node].dir.clone();
    let found = catch(tool, || {
        processes::of(&dir)
            .into_iter()
            .find(|process| process.program() == tool)
    })
    .await;
    let seen = match found {
        Ok(process) => format!("{tool} {} ran and was killed with its node", process.pid),
        Err(why) => return Err(why),
    };
    let hurt = kill_nodes(fault, arena, &[node])?;
    Ok(Hurt {
        witness: seen,
        ..hurt
    })
}

async fn kill_in_backup(arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    let node = fault::standby(arena, pick).await?;
    kill_nodes(Fault::KillInBackup, arena, &[node])?;
    // It may be gone already, where the node was about to copy anyway.
    let _ = std::fs::remove_dir_all(arena.herd.nodes[node].data_dir());
    arena.held[node] = false;
    arena.supervise();
    kill_with_tool(Fault::KillInBackup, arena, node, "pg_basebackup").await
}

async fn kill_in_rewind(arena: &mut Arena) -> Result<Hurt, String> {
    let node = fault::primary(arena).await?;
    kill_nodes(Fault::KillInRewind, arena, &[node])?;
    let end = boot_ns() + MOMENT_NS;
    while arena.herd.primary().await.is_none_or(|other| other == node) {
        if boot_ns() > end {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    arena.held[node] = false;
    arena.supervise();
    kill_with_tool(Fault::KillInRewind, arena, node, "pg_rewind").await
}

/// Asks for another primary. A refusal in words is an answer too, but no fault.
async fn ask_for(arena: &Arena, from: usize, to: usize) -> Result<String, String> {
    let name = |node: usize| &arena.herd.nodes[node].name;
    let body = format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, name(from), name(to));
    let (address, port) = arena.herd.nodes[from].rest_addr();
    match rest::send(address, port, "POST", "/switchover", &body).await {
        Some((200, text)) => Ok(text),
        Some((status, text)) => Err(format!("{status}: {text}")),
        None => Err("no answer".into()),
    }
}

/// There and back.
async fn switchover(arena: &Arena, pick: u64) -> Result<Hurt, String> {
    let from = fault::primary(arena).await?;
    let to = fault::standby(arena, pick).await?;
    let mut said = vec![ask_for(arena, from, to).await?];
    // The way back needs the former primary to follow again, which other faults may hinder.
    let end = boot_ns() + MOMENT_NS;
    while !arena.herd.nodes[from].is_streaming().await && boot_ns() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    said.push(ask_for(arena, to, from).await.unwrap_or_else(|why| why));
    let (nodes, witness) = (vec![from, to], said.join("; "));
    Ok(Hurt::new(Fault::Switchover, nodes, witness, Vec::new()))
}

async fn kill_in_switchover(arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    let from = fault::primary(arena).await?;
    let to = fault::standby(arena, pick).await?;
    let mark = arena.herd.nodes[from].log().len();
    {
        let caught = catch("the stop of the primary", || {
            let log = arena.herd.nodes[from].log_since(mark);
            log.contains("received fast shutdown request").then_some(())
        });
        // Whoever asks hangs up when the stop is seen.
        tokio::select! {
            caught = caught => caught?,
            answer = ask_for(arena, from, to) => {
                return Err(format!("it was over before it was seen to begin: {answer:?}"));
            }
        }
    }
    let hurt = kill_nodes(Fault::KillInSwitchover, arena, &[to])?;
    let (from, to) = (&arena.herd.nodes[from].name, &arena.herd.nodes[to].name);
    let witness = format!("{from} was stopping for {to}, which was killed");
    Ok(Hurt { witness, ..hurt })
}

async fn rolling_restart(arena: &mut Arena) -> Result<Hurt, String> {
    let mut pids = Vec::new();
    for node in 0..NODES {
        if fault::free(arena, node).is_err() {
            continue;
        }
        let old = arena.herd.nodes[node].daemon_pid();
        arena.herd.nodes[node].kill_daemon();
        arena.herd.nodes[node].start();
        pids.push((old, arena.herd.nodes[node].daemon_pid()));
        await_answer(arena, node).await;
    }
    let witness = format!("daemons before and after: {pids:?}");
    Ok(Hurt::new(
        Fault::RollingRestart,
        vec![0, 1, 2],
        witness,
        Vec::new(),
    ))
}

async fn rolling_stop(arena: &mut Arena) -> Result<Hurt, String> {
    let mut took = Vec::new();
    for node in 0..NODES {
        if fault::free(arena, node).is_err() {
            continue;
        }
        let begun = boot_ns();
        arena.herd.nodes[node].terminate();
        while arena.herd.nodes[node].exit().is_none() {
            if boot_ns() - begun > STOP_NS {
                return Err(format!(
                    "{} did not stop within 60 s",
                    arena.herd.nodes[node].name
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        took.push((boot_ns() - begun) / 1_000_000);
        arena.herd.nodes[node].start();
        await_answer(arena, node).await;
    }
    let witness = format!("daemons ended after {took:?} ms");
    Ok(Hurt::new(Fault::RollingStop, vec![0, 1, 2], witness, Vec::new()))
}

async fn await_answer(arena: &Arena, node: usize) {
    let end = boot_ns() + MOMENT_NS;
    while arena.herd.nodes[node].get("/patroni").await.is_none() && boot_ns() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
