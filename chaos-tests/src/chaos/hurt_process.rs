//! Faults of processes: killed, stopped, frozen.

use crate::chaos::arena::Arena;
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::processes;
use nix::sys::signal::Signal;

/// Makes one of them happen.
pub async fn inject(fault: Fault, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    match fault {
        Fault::KillPostmaster => {
            let node = fault::primary(arena).await?;
            let pid = arena.herd.nodes[node].postmaster_pid();
            kill_one(fault, node, pid, "postmaster")
        }
        Fault::KillBackend => {
            let node = fault::primary(arena).await?;
            let serving = arena.herd.nodes[node]
                .postgres_processes()
                .into_iter()
                .find(|process| process.title().contains("10.77.0.100("));
            kill_one(fault, node, serving.map(|process| process.pid), "backend")
        }
        Fault::KillGuard => {
            let node = choose(arena, pick).await?;
            let pid = arena.herd.nodes[node].guard_pid();
            kill_one(fault, node, pid, "guard")
        }
        Fault::KillDaemon => {
            let node = choose(arena, pick).await?;
            let pid = arena.herd.nodes[node].daemon_pid();
            let hurt = kill_one(fault, node, Some(pid), "daemon")?;
            arena.held[node] = true;
            arena.herd.nodes[node].reap();
            Ok(Hurt {
                remedies: vec![Remedy::Start(node)],
                ..hurt
            })
        }
        Fault::KillPrimary => {
            let node = fault::primary(arena).await?;
            kill_nodes(fault, arena, &[node])
        }
        Fault::KillNode => {
            let node = fault::any(arena, pick)?;
            kill_nodes(fault, arena, &[node])
        }
        Fault::KillMajority => {
            let spared = fault::any(arena, pick)?;
            let others = arena.herd.others(spared);
            let hurt = kill_nodes(fault, arena, &others)?;
            Ok(Hurt {
                silent: vec![spared],
                ..hurt
            })
        }
        Fault::StopDaemon => {
            let node = choose(arena, pick).await?;
            let pid = arena.herd.nodes[node].daemon_pid();
            stop_one(fault, arena, node, Some(pid), "daemon")
        }
        Fault::StopGuard => {
            let node = choose(arena, pick).await?;
            let pid = arena.herd.nodes[node].guard_pid();
            stop_one(fault, arena, node, pid, "guard")
        }
        Fault::StopPostmaster => {
            let node = fault::primary(arena).await?;
            let pid = arena.herd.nodes[node].postmaster_pid();
            stop_one(fault, arena, node, pid, "postmaster")
        }
        Fault::FreezePrimary => {
            let node = fault::primary(arena).await?;
            freeze(fault, arena, node)
        }
        _ => {
            let node = fault::any(arena, pick)?;
            freeze(fault, arena, node)
        }
    }
}

/// The primary in half of the cases, where faults are worth most; else any node.
async fn choose(arena: &Arena, pick: u64) -> Result<usize, String> {
    if pick.is_multiple_of(2) {
        fault::primary(arena).await
    } else {
        fault::any(arena, pick / 2)
    }
}

fn kill_one(fault: Fault, node: usize, pid: Option<i32>, what: &str) -> Result<Hurt, String> {
    let pid = pid
        .filter(|pid| processes::is_alive(*pid))
        .ok_or_else(|| format!("no {what} ran"))?;
    processes::send(pid, Signal::SIGKILL);
    processes::wait_dead(pid);
    let witness = format!("{what} {pid} was alive and is dead");
    Ok(Hurt::new(fault, vec![node], witness, Vec::new()))
}

/// Kills nodes whole, at once as far as one program can.
pub fn kill_nodes(fault: Fault, arena: &mut Arena, nodes: &[usize]) -> Result<Hurt, String> {
    for node in nodes {
        fault::free(arena, *node)?;
    }
    let mut killed = Vec::new();
    for node in nodes {
        arena.held[*node] = true;
        killed.push(processes::kill_all_of(&arena.herd.nodes[*node].dir));
        arena.herd.nodes[*node].reap();
    }
    if killed.contains(&0) {
        nodes.iter().for_each(|node| arena.held[*node] = false);
        return Err("a node had no process".into());
    }
    let remedies = nodes.iter().map(|node| Remedy::Start(*node)).collect();
    let witness = format!("{killed:?} processes were alive, none is left");
    Ok(Hurt::new(fault, nodes.to_vec(), witness, remedies))
}

fn stop_one(
    fault: Fault,
    arena: &mut Arena,
    node: usize,
    pid: Option<i32>,
    what: &str,
) -> Result<Hurt, String> {
    let pid = pid
        .filter(|pid| processes::is_alive(*pid))
        .ok_or_else(|| format!("no {what} ran"))?;
    processes::send(pid, Signal::SIGSTOP);
    if !processes::await_stopped(pid) {
        return Err(format!("{what} {pid} died before it stood still"));
    }
    arena.held[node] = true;
    let witness = format!("{what} {pid} is in state T");
    Ok(Hurt::new(
        fault,
        vec![node],
        witness,
        vec![Remedy::Continue(node, pid)],
    ))
}

fn freeze(fault: Fault, arena: &mut Arena, node: usize) -> Result<Hurt, String> {
    arena.freezer(node)?.set(true)?;
    arena.held[node] = true;
    let witness = "the control group says that it is frozen".into();
    Ok(Hurt::new(fault, vec![node], witness, vec![Remedy::Thaw(node)]))
}
